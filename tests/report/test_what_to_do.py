"""What to do about a regression: what to put back comes first, accepting it last."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_ftloop.core.data_changes import DataChange
from pytest_ftloop.core.records import Adjustment, Iteration
from pytest_ftloop.gate.statistic import PairedTest
from pytest_ftloop.gate.verdict import Change, Verdict
from pytest_ftloop.report.what_to_do import verdict_advice
from tests.fakes import fake_iteration
from tests.report.fakes_report import fake_result

TEST = PairedTest(0.05, 0.01, 30.0, 0.008, 5, 0.01, 200, 1, 3)
ROWS = DataChange("train", "6 rows: 1 relabelled", file="data/train.jsonl")
STANDARD: Any = SimpleNamespace(commit="0123456789abcdef0123", shown="main (0123456)")
COMMAND = "  git checkout 0123456789ab -- data/train.jsonl"


def advice(before: Iteration, now: Iteration, **fields: Any) -> list[str]:
    """The advice on a regression of these two, without the log's path."""
    changes = fields.pop("changes", (Change("pass_rate", 0.9, 0.4, TEST, 1e-4, "regressed"),))
    verdict = Verdict("regressed", False, "so", now.name, before.name, changes=changes)
    result = fake_result((before, now), best=now, baseline=before, **fields)
    return [line.partition(" --log")[0] for line in verdict_advice(result, verdict, 1_000)]


OLD = fake_iteration(1, training={"learning_rate": 1e-3})


def now(training: dict[str, Any] | None = None, **fields: Any) -> Iteration:
    return fake_iteration(2, training={"learning_rate": 1e-3} | (training or {}), **fields)


@pytest.mark.parametrize(
    ("new", "fields", "told"),
    [
        (now({"learning_rate": 0.05}), {}, ["set training.learning_rate back to 1e-3."]),
        (now({"max_steps": 5}), {}, ["remove training.max_steps."]),
        (now(model="other"), {}, ["set model back to tiny."]),
        (now(), {"data_changes": (ROWS,), "standard": STANDARD}, ["restore data.train:", COMMAND]),
        (
            now({"learning_rate": 0.05}),
            {"data_changes": (ROWS,), "standard": STANDARD},
            ["restore data.train, set training.learning_rate back to 1e-3:", COMMAND],
        ),
        (
            now(),
            {"data_changes": (replace(ROWS, file=""),), "standard": STANDARD},
            ["restore data.train."],
        ),
        (now(), {"data_changes": (replace(ROWS, role="eval"),)}, ["revert the change."]),
        (now(scoring={"scorer": "contains"}), {}, ["revert the change."]),
        (
            now({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}),
            {},
            ["remove training.a, remove training.b, remove training.c, and 2 settings more."],
        ),
        (
            now(
                {"learning_rate": 0.05},
                adjustments=[Adjustment("training.learning_rate", 0, 1, "")],
            ),
            {},
            ["revert the change."],
        ),
    ],
    ids=[
        "setting",
        "new setting",
        "model",
        "rows",
        "both",
        "rows that git does not have",
        "eval rows",
        "scoring",
        "many",
        "the loop's own adjustment",
    ],
)
def test_what_to_put_back(new: Iteration, fields: dict[str, Any], told: list[str]) -> None:
    """By name, of what changes the weights; with git's command where git has the rows."""
    assert [
        f"what to do: {told[0]}",
        *told[1:],
        "only if pass_rate 40.0% in place of 90.0% is intended, accept it and commit:",
        "  ftloop accept best sentiment.ftloop.yaml --baseline",
    ] == advice(OLD, new, **fields)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ({"eval_loss": "regressed", "pass_rate": "regressed"}, "pass_rate 40.0% in place of 90.0%"),
        ({"eval_loss": "regressed", "pass_rate": "unchanged"}, "eval_loss 0.4000 in place of 0.90"),
    ],
)
def test_it_says_what_would_be_accepted(kinds: dict[str, Any], said: str) -> None:
    """The figure that is proven to be worse, of a rate if one is: people know what it means."""
    changes = tuple(Change(m, 0.9, 0.4, TEST, 1e-4, kind) for m, kind in kinds.items())
    lines = advice(OLD, now({"learning_rate": 0.05}), changes=changes)
    assert lines[-2].startswith(f"only if {said}")
