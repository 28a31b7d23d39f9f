"""What a change does to the gates lift and forgetting, and to the guards."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_ftloop.gate.rule_changes import rule_changes
from tests.config.test_guards import GUARDS, read

TEN = {"lift": ">= 10 points"}


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ((TEN, None), ({}, None), [("lift", ">= 10 points", "removed", True)]),
        (
            (TEN, None),
            ({"lift": ">= 5 points"}, None),
            [("lift", ">= 10 points", ">= 5 points", True)],
        ),
        (
            (TEN, None),
            ({"lift": ">= 20 points"}, None),
            [("lift", ">= 10 points", ">= 20 points", False)],
        ),
        (
            ({"lift[eval_loss]": ">= 0.5"}, None),
            ({"lift[eval_loss]": ">= 0.2"}, None),
            [("lift[eval_loss]", ">= 0.5", ">= 0.2", True)],
        ),
        (
            ({"forgetting": {"alpha": 0.05}}, GUARDS),
            ({}, GUARDS),
            [("forgetting.alpha", "0.05", "0.01", True)],
        ),
        (
            ({}, GUARDS),
            ({"forgetting": {"against": ["base"]}}, GUARDS),
            [("forgetting.against", "base, baseline", "base", True)],
        ),
        (
            ({}, GUARDS),
            ({}, {"sums": GUARDS["sums"]}),
            [("data.guards.general", "g.jsonl", "removed", True)],
        ),
        (
            ({}, {"general": "g.jsonl"}),
            ({}, {"general": "other.jsonl"}),
            [("data.guards.general", "g.jsonl", "other.jsonl", True)],
        ),
        (
            ({}, {"general": "g.jsonl"}),
            ({}, {"general": "g.jsonl", "more": "m.jsonl"}),
            [("data.guards.more", "not set", "m.jsonl", False)],
        ),
    ],
)
def test_changes(
    before: tuple[dict[str, Any], Any],
    after: tuple[dict[str, Any], Any],
    changes: list[tuple[str, str, str, bool]],
) -> None:
    """A lift or guard that is removed or loosened is named, as other gates are."""
    found = rule_changes(read(*before), read(*after))
    assert changes == [(c.name, c.before, c.after, c.loosened) for c in found]


def test_last_guard_removed() -> None:
    """Without its last guard a loop loses the gate on it too."""
    found = rule_changes(read({}, {"general": "g.jsonl"}), read({}))
    assert {"forgetting", "data.guards.general"} == {c.name for c in found if c.loosened}
