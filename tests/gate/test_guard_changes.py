"""What a change does to the gates lift and forgetting, and to the guards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.loop_config import LoopConfig, checked
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


def scored(scorer: str, guard: Any = None, **more: Any) -> LoopConfig:
    """A loop with a scorer and a guard, which is scored like the eval set or by its own scorer."""
    stated = {"source": "g.jsonl", **({"scoring": {"scorer": guard}} if guard else {})}
    data = {"train": "a.jsonl", "eval": "b.jsonl", "guards": {"g": stated}}
    values = {"data": data, "scoring": {"scorer": scorer, **more}}
    return checked(values, {}, folder=Path(), source="s.ftloop.yaml", name="s")


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (scored("json"), scored("json", "exact"), [("scoring.scorer", "json", "exact", True)]),
        (scored("json", "exact"), scored("json"), [("scoring.scorer", "exact", "json", True)]),
        (scored("json"), scored("json", "json"), []),
        (
            scored("loss", threshold=1.0),
            scored("loss", "exact", threshold=1.0),
            [("scoring", "not set", "exact", False)],
        ),
        (
            scored("loss", "exact", threshold=1.0),
            scored("loss", threshold=1.0),
            [("scoring", "exact", "removed", True)],
        ),
    ],
)
def test_scoring_of_a_guard(
    before: LoopConfig, after: LoopConfig, changes: list[tuple[str, str, str, bool]]
) -> None:
    """A guard without a scoring is scored like the eval set, so that is what it is compared by."""
    found = rule_changes(before, after)
    wanted = [(f"data.guards.g.{name}", *others) for name, *others in changes]
    assert wanted == [(c.name, c.before, c.after, c.loosened) for c in found]


def judged(**stated: Any) -> LoopConfig:
    judge = {"url": "http://localhost:1/v1", "model": "m", "rubric": "Be strict."} | stated
    values = {"data": {"train": "a.jsonl", "eval": "b.jsonl"}, "scoring": {"judge": judge}}
    return checked(values, {}, folder=Path(), source="s.ftloop.yaml", name="s")


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        ({"rubric": "Pass all."}, [("rubric", "Be strict.", "Pass all.")]),
        ({"scale": [0, 1]}, [("scale", "1.0, 5.0", "0.0, 1.0")]),
        ({"model": "n", "rubric": "X"}, [("model", "m", "n"), ("rubric", "Be strict.", "X")]),
        ({"url": "http://localhost:2/v1", "timeout_s": 5, "concurrency": 1}, []),
    ],
)
def test_judge(after: dict[str, Any], changes: list[tuple[str, str, str]]) -> None:
    """Of a judge each key that decides its grades is named, and no other."""
    found = rule_changes(judged(), judged(**after))
    wanted = [(f"scoring.judge.{name}", *others, True) for name, *others in changes]
    assert wanted == [(c.name, c.before, c.after, c.loosened) for c in found]


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"q": "macro_f1"}, {"q": "accuracy"}, [("metrics.q", "macro_f1", "accuracy", True)]),
        ({"q": "a:b"}, {}, [("metrics.q", "a:b", "removed", True)]),
        ({}, {"q": "mcc"}, [("metrics.q", "not set", "mcc", False)]),
        ({"mcc": "mcc"}, ["mcc"], []),
    ],
)
def test_metrics_of_the_set(before: Any, after: Any, changes: list[Any]) -> None:
    """A metric that is computed in another way under its old name is named."""
    configs = [
        checked(
            {"data": {"train": "a.jsonl", "eval": "b.jsonl"}, "metrics": metrics},
            {},
            folder=Path(),
            source="s.ftloop.yaml",
            name="s",
        )
        for metrics in (before, after)
    ]
    found = rule_changes(*configs)
    assert changes == [(c.name, c.before, c.after, c.loosened) for c in found]
