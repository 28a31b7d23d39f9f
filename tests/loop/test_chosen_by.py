"""What the best iteration and its best point are chosen by: the loop file, the chain, the gates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.gates import implied_metric, parse_gate
from pytest_ftloop.core.records import Run, Settings
from pytest_ftloop.log import ImprovementLog
from tests.fake_backend import FakeBackend
from tests.loop.loop_cases import config, names, run

if TYPE_CHECKING:
    from pathlib import Path

ASKS_FOR_PASSES = {"pass_rate": ">= 99%"}
SCORES = {"gates": {"score": ">= 0.99"}, "scoring": {"scorer": "f1"}}


class Opposed(FakeBackend):
    """A backend whose pass rate and score fall while its loss does; it notes its metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[str] = []

    def train(self, settings: Settings, *, metric: str = "eval_loss", **given: Any) -> Run:
        self.metrics.append(metric)
        made = super().train(settings, metric=metric, **given)
        rows = made.evaluation.examples
        passing = max(len(rows) - len(self.metrics), 0)
        scored = tuple(
            replace(row, passed=n < passing, scores={"score": float(n < passing)})
            for n, row in enumerate(rows)
        )
        return replace(made, evaluation=replace(made.evaluation, examples=scored))


@pytest.mark.parametrize(
    ("gates", "wanted"),
    [
        ({"pass_rate": ">= 0.9"}, "pass_rate"),
        ({"pass_rate": ">= 0.9", "pass_rate[a]": ">= 0.8"}, "pass_rate"),
        ({"score.fields": ">= 0.9"}, "score.fields"),
        ({"pass_rate": ">= 0.9", "guard.general.eval_loss": "<= 3"}, "pass_rate"),
        ({"score.fields": ">= 0.9", "score.valid": ">= 0.9"}, "eval_loss"),
        ({"pass_rate": ">= 0.9", "eval_loss": "<= 3"}, "eval_loss"),
        ({"token_accuracy": ">= 0.9"}, "eval_loss"),
        ({}, "eval_loss"),
        ({"lift": ">= 10 points"}, "pass_rate"),
        ({"lift[score]": ">= 10 points", "guard.general.pass_rate": ">= 0.5"}, "score"),
        ({"lift": ">= 10 points", "lift[eval_loss]": ">= 0.5"}, "eval_loss"),
        ({"lift[eval_loss]": ">= 0.5", "pass_rate": ">= 0.9"}, "pass_rate"),
        ({"lift": ">= 10 points", "eval_loss": "<= 3"}, "eval_loss"),
    ],
)
def test_what_the_thresholds_imply(gates: dict[str, str], wanted: str) -> None:
    """The pass rate or score that all thresholds are about; else the eval loss."""
    assert wanted == implied_metric([parse_gate(name, text) for name, text in gates.items()])


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"gates": ASKS_FOR_PASSES}, "pass_rate"),
        (SCORES, "score"),
        ({"gates": {"eval_loss": "<= 0.1"}}, "eval_loss"),
        ({}, "eval_loss"),
    ],
)
def test_best_by_what_the_gates_ask(tmp_path: Path, changes: Any, metric: str) -> None:
    """The backend is asked for the best point by it, and the best iteration is the best by it."""
    result, trainer = run(config(tmp_path, iterations=2, **changes), Opposed())
    assert [metric, metric] == trainer.metrics  # type: ignore[attr-defined]
    assert metric == result.metric
    first, last = result.chain
    assert (last if metric == "eval_loss" else first) == result.best


def test_the_loop_file_comes_first(tmp_path: Path) -> None:
    """A stated metric is what counts, whatever the gates are about."""
    stated = {"iterations": 2, "metric": "eval_loss"}
    result, trainer = run(config(tmp_path, loop=stated, gates=ASKS_FOR_PASSES), Opposed())
    assert ["eval_loss"] * 2 == trainer.metrics  # type: ignore[attr-defined]
    assert result.chain[-1] == result.best


@pytest.mark.parametrize(
    ("before", "after", "by"),
    [(ASKS_FOR_PASSES, {"eval_loss": "<= 0.1"}, "pass_rate"), ({}, ASKS_FOR_PASSES, "eval_loss")],
)
def test_a_logged_chain_stays_as_it_was_chosen(
    tmp_path: Path, before: Any, after: Any, by: str
) -> None:
    """Other gates train nothing and choose no other iteration; a note says what it is chosen by."""
    first, _ = run(config(tmp_path, iterations=2, gates=before), Opposed())
    again, trainer = run(config(tmp_path, iterations=2, gates=after), Opposed())
    assert [] == trainer.runs
    assert (names(first), first.best, by) == (names(again), again.best, again.metric)
    (note,) = again.notes
    assert f"the best iteration is chosen by {by}, as the chain in the log was" in note
    more, trainer = run(config(tmp_path, iterations=3, gates=after), Opposed(), iterations=3)
    assert [by] == trainer.metrics  # type: ignore[attr-defined]
    assert by == more.metric


def test_stating_the_metric_trains_nothing(tmp_path: Path) -> None:
    """It chooses another iteration of the same chain."""
    first, _ = run(config(tmp_path, iterations=2), Opposed())
    stated = {"iterations": 2, "patience": 9, "metric": "pass_rate"}
    again, trainer = run(config(tmp_path, loop=stated), Opposed())
    assert [] == trainer.runs
    assert (first.chain[1], first.chain[0]) == (first.best, again.best)


def test_what_the_log_says_of_it(tmp_path: Path) -> None:
    """Records of chains chosen by the eval loss are as they were; others say by what."""
    for gates, wanted in (({}, None), (ASKS_FOR_PASSES, "pass_rate")):
        result, _ = run(config(tmp_path / str(wanted), iterations=1, gates=gates), Opposed())
        (record,) = ImprovementLog(result.log_folder).read()
        assert wanted == record.facts.get("chosen_by")


def test_seeds_choose_their_points_as_their_iteration(tmp_path: Path) -> None:
    """Runs that differ in the seed alone must not differ in what their points are chosen by."""
    trainer = Opposed()
    loop = {"iterations": 1, "seeds": 2}
    run(config(tmp_path, loop=loop, gates=ASKS_FOR_PASSES), trainer)
    assert ["pass_rate", "pass_rate"] == trainer.metrics
