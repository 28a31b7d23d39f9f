"""Rows whose scoring reads other columns: losses compare by what the model sees of them.

Scores and passes compare only where what the scorer reads is the same, so that other answers are no
way past the gate.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.set_metrics import of_labels
from pytest_ftloop.gate.compare import ONE_TRAINING, Side, compare
from pytest_ftloop.gate.metric_tests import ANSWERS_CHANGED, SCORING_CHANGED
from pytest_ftloop.gate.verdict import TRAINED_ANEW
from tests.gate.compare_cases import (
    LOSS_ONLY,
    TRAININGS,
    N,
    calibrated,
    judged,
    kinds,
    run_of,
    trained_as,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_ftloop.core.records import Iteration

EVERY = range(N)
OLD_SCORER, NEW_SCORER = {"scorer": "mine:a"}, {"scorer": "mine:b"}


def rescored(run: Iteration, places: Collection[int] = EVERY, by: str = "new") -> Iteration:
    """The run with other answers in these rows, as an eval set with another column has them."""
    rows = [
        replace(row, content=f"{row.content}+{by}") if place in places else row
        for place, row in enumerate(run.examples)
    ]
    return replace(run, examples=tuple(rows))


@pytest.mark.parametrize("places", [EVERY, range(1, N), range(50)], ids=len)
@pytest.mark.parametrize(("mean", "kind"), [(1.25, "regressed"), (1.0, "unchanged")])
def test_a_scorer_that_reads_other_columns(places: Collection[int], mean: float, kind: str) -> None:
    """Losses compare on all rows, with the p-values of a scorer that reads the same ones."""
    old = run_of(1, scoring=OLD_SCORER)
    new = run_of(2, mean, scoring=NEW_SCORER)
    plain = judged(old, new, seed_runs=calibrated(old))
    found = judged(old, rescored(new, places), seed_runs=calibrated(old))
    assert kind == plain.kind == found.kind
    assert {"eval_loss"} == set(kinds(found))
    assert plain.changes == found.changes
    assert (N, N) == (found.common, found.total)
    assert f"pass_rate is not compared: {SCORING_CHANGED}" in found.notes
    assert found.notes[0] == (
        f"eval set changed: {N} of {N} examples compared ({len(places)} by their losses alone, as "
        "what the scorer reads of them changed)"
    )
    assert found.notes[1:] == plain.notes
    assert ((), ()) == (found.fixed, found.broken)


def test_the_run_figures_are_of_the_same_rows() -> None:
    """The overfit gap is a figure of losses: it needs the same rows, but not the same answers."""
    old, rule = run_of(1), Regression(metrics=("overfit_gap",))
    new = run_of(2)
    seeds = calibrated(old, seeds=7)
    assert {"overfit_gap": "unchanged"} == kinds(judged(old, rescored(new), rule, seed_runs=seeds))
    gone = replace(new, examples=new.examples[1:], data=trained_as(old, 2)["data"] | {"eval": {}})
    assert {} == kinds(judged(old, gone, rule, seed_runs=seeds))


def test_an_added_answer_leaves_the_other_rows_scored() -> None:
    """Of one scorer, passes compare on the rows with unchanged answers, losses on all."""
    places = range(40)
    old, new = run_of(1), rescored(run_of(2, failing=range(60)), places)
    found = judged(old, new)
    by_name = {change.metric: change.test.n for change in found.changes}
    assert {"eval_loss": N, "pass_rate": N - 40} == by_name
    assert "regressed" == found.kind == kinds(found)["pass_rate"]
    assert {f"e{n:03d}" for n in range(40, 60)} == set(found.broken)


# No way past the gate.


@pytest.mark.parametrize("kept", [0, 3])
@pytest.mark.parametrize(("changed", "ok"), TRAININGS)
def test_other_answers_with_another_training(kept: int, changed: dict[str, Any], ok: bool) -> None:
    """With the scorer unchanged and other answers in nearly all rows, a new training fails.

    Its losses are as good as the baseline's; that of its passes nothing is known decides.
    """
    old = run_of(1)
    new = run_of(2, failing=range(N - 20, N), **trained_as(old, 2, **changed))
    found = judged(old, rescored(new, range(kept, N)))
    assert ok is found.ok
    if not ok:
        assert "not comparable" == found.kind
        assert TRAINED_ANEW in found.notes
        how = (
            f"only {kept} of the baseline's {N} examples are scored by the same answers and columns"
        )
        assert how == found.because


def test_better_losses_do_not_make_up_for_it() -> None:
    """A training with better losses whose passes can't be compared any more fails as well."""
    old, new = run_of(1), run_of(2, 0.7)
    seeds = calibrated(old)
    assert "improved" == judged(old, new, seed_runs=seeds).kind
    found = judged(old, rescored(new), seed_runs=seeds)
    assert ("not comparable", False) == (found.kind, found.ok)
    assert {"eval_loss": "improved"} == kinds(found)
    # Where the gate is about the loss alone, nothing that it asks for is missing.
    assert "improved" == judged(old, rescored(new), LOSS_ONLY, seed_runs=seeds).kind


def test_worse_losses_are_told_before() -> None:
    """A proven regression of the loss is the verdict, whatever else can't be compared."""
    old = run_of(1)
    found = judged(old, rescored(run_of(2, 1.3)), seed_runs=calibrated(old))
    assert "regressed" == found.kind
    assert f"pass_rate is not compared: {ANSWERS_CHANGED}" in found.notes


@pytest.mark.parametrize("mean", [1.0, 0.7])
def test_swapped_rows_are_not_paired(mean: float) -> None:
    """Another text is another row, though the answers are equal: nothing is in common."""
    old = rescored(run_of(1), by="same")
    rows = [replace(row, content=f"other{n}+same") for n, row in enumerate(old.examples)]
    new = replace(run_of(2, mean), examples=tuple(rows))
    found = judged(old, new)
    assert ("not comparable", False, 0) == (found.kind, found.ok, found.common)
    assert "no example is in common with the baseline" == found.because


def test_the_same_set_must_have_the_same_answers() -> None:
    """A record of the same eval set whose rows have other answers was edited: incomplete."""
    data = {"eval": {"rows": N, "sha256": "same"}}
    old = run_of(1, data=data)
    found = judged(old, rescored(run_of(2, data=data), [7]))
    assert ("incomplete", False) == (found.kind, found.ok)
    assert "the eval set is the same, but example e007 is not in both logs" == found.because


def test_two_evaluations_of_one_training() -> None:
    """They are known by their losses, whatever columns the scorers read: equal for certain."""
    fields = {"adapter": "a" * 32, "weights": "b" * 64, "training": {"learning_rate": 1e-3}}
    old = run_of(1, scoring=OLD_SCORER, **fields)
    data = {**old.data, "eval": {"rows": N, "sha256": "other"}}
    again = rescored(replace(old, number=2, id="again", scoring=NEW_SCORER, data=data))
    found = judged(old, again)
    assert ("unchanged", True) == (found.kind, found.ok)
    assert ONE_TRAINING in found.notes
    assert [(0.0, 1.0)] == [(change.test.change, change.p) for change in found.changes]


def test_a_metric_of_the_set_reads_answers() -> None:
    """It is compared on rows with equal answers only, as a score is."""
    named = {"scorer": "exact", "metrics": {"mine": "accuracy"}}
    old, new = run_of(1, scoring=named), rescored(run_of(2, scoring=named))
    rule, metrics = Regression(metrics=("mine",)), {"mine": of_labels("accuracy")}
    found = compare(Side(new, (new,)), Side(old, (old,)), None, (), rule, metrics)
    assert f"mine is not compared: {ANSWERS_CHANGED}" == found.because
    assert ("not comparable", False) == (found.kind, found.ok)
