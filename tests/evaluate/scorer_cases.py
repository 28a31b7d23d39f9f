"""What the tests of `scorers` share."""

from __future__ import annotations

from typing import Any

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import Location
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.scorers import load_scorer

WHERE = Location("data/eval.jsonl", 7)


SETTING = Location("sentiment.ftloop.yaml", 12)


def an_example(expected: str | None = "yes", **row: Any) -> Example:
    row = row or {"prompt": "Well?", "completion": expected}
    return Example(id="e1", content="c", row=row, expected=expected, where=WHERE)


def passes(expected: str | None, output: str, **scoring: Any) -> bool:
    return load_scorer(Scoring(**scoring))(an_example(expected), output).passed
