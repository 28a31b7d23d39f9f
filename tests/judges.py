"""Judges for tests: what an endpoint answers to a request of the scorer `judge`."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.endpoints import Reply, message


def shown(body: Any) -> dict[str, str]:
    """The texts that the judge is shown, by tag, in their order."""
    text = body["messages"][-1]["content"]
    return dict(re.findall(r"<(\w+)>\n(.*?)\n</\1>", text, re.DOTALL))


def graded(grade: Any, reason: str = "because") -> Reply:
    """An answer with this grade."""
    return message(json.dumps({"reason": reason, "grade": grade}))


def fair(_path: str, body: Any) -> Reply:
    """Gives 5 to the expected answer, 1 to any other, whatever the order."""
    texts = shown(body)
    return graded(5 if texts["output"].strip() == texts.get("expected", "good") else 1)


def biased(path: str, body: Any) -> Reply:
    """Gives 5 to whatever is shown first where the output is, and is fair otherwise."""
    if list(shown(body)).index("output") == 1:
        return graded(5)
    return fair(path, body)
