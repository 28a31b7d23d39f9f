"""The regression gate on metrics of the whole set: a paired bootstrap in the gate's test."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import Evaluation
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.core.set_metrics import of_labels
from pytest_ftloop.gate.bootstrap import change_variance, seed_from
from pytest_ftloop.gate.compare import Side, compare
from tests.fakes import fake_example, fake_measured, fake_seed_run

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult, Iteration
    from pytest_ftloop.gate.verdict import Verdict

OWN = {"f1": of_labels("macro_f1")}
RULE = Regression(metrics=("f1",))
SCORING = {"scorer": "exact", "metrics": {"f1": "macro_f1"}}


def table(wrong: float, seed: int = 0, n: int = 200) -> tuple[ExampleResult, ...]:
    """Labels of four classes, a share of the outputs being another class."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        expected = "abcd"[i % 4]
        output = rng.choice("abcd".replace(expected, "")) if rng.random() < wrong else expected
        rows.append(fake_example(f"e{i:03d}", output == expected, expected=expected, output=output))
    return tuple(rows)


def measured(number: int, rows: tuple[ExampleResult, ...], **fields: Any) -> Iteration:
    iteration = fake_measured(number, rows, **{"scoring": SCORING, **fields})
    figures = best_metrics(Evaluation(rows, (), (), math.nan), OWN)
    return replace(iteration, metrics={**iteration.metrics, "f1": figures["f1"]})


def verdict(
    old: Iteration, new: Iteration, seed_runs: Any = (), rule: Regression = RULE
) -> Verdict:
    sides = [Side(i, runs_of(i, [old, new], seed_runs)) for i in (new, old)]
    return compare(*sides, None, groups_of([old, new], seed_runs), rule, OWN)


def test_a_large_drop_regresses() -> None:
    """A drop of 30 points in macro-F1 is a regression, with both figures as they are logged."""
    old, new = measured(1, table(0.1)), measured(2, table(0.4, 1))
    found = verdict(old, new)
    assert ("regressed", False) == (found.kind, found.ok)
    change = found.change("f1")
    assert change is not None
    assert math.isclose(old.metrics["f1"], change.baseline, abs_tol=1e-6)
    assert math.isclose(new.metrics["f1"], change.candidate, abs_tol=1e-6)


def test_a_large_gain_improves() -> None:
    """Higher is better: the same two the other way round are an improvement."""
    assert "improved" == verdict(measured(1, table(0.4, 1)), measured(2, table(0.1))).kind


def test_equal_outputs_are_no_certainty() -> None:
    """Where no output differs, the standard error is still that of one example, not 0."""
    found = verdict(measured(1, table(0.1)), measured(2, table(0.1))).change("f1")
    assert found is not None
    assert 0 == found.test.change
    assert found.test.se >= 1 / 200


def test_the_same_verdict_each_time() -> None:
    """The resampling is seeded by the examples, so a verdict can be repeated."""
    old, new = measured(1, table(0.1)), measured(2, table(0.13, 1))
    assert verdict(old, new).as_record() == verdict(old, new).as_record()


def test_seed_noise_is_added() -> None:
    """Seeds that differ by ten points widen the standard error beyond the examples'."""
    old, new = measured(1, table(0.1)), measured(2, table(0.25, 1))
    noisy = [
        fake_seed_run(old, 43 + i, table(w, i), scoring=SCORING)
        for i, w in enumerate((0.3, 0.02, 0.35))
    ]
    quiet, wide = (verdict(old, new, runs).change("f1") for runs in ((), noisy))
    assert quiet is not None
    assert wide is not None
    assert wide.test.tau > 0.05 > quiet.test.tau


@pytest.mark.parametrize(
    "scoring",
    [
        {"scorer": "exact", "metrics": {"f1": "micro_f1"}},
        {"scorer": "contains", "metrics": {"f1": "macro_f1"}},
        {"scorer": "exact"},
    ],
)
def test_another_definition_is_not_compared(scoring: dict[str, Any]) -> None:
    """A metric that the baseline defines otherwise, or lacks, is not compared."""
    found = verdict(measured(1, table(0.1), scoring=scoring), measured(2, table(0.4, 1)))
    assert "not comparable" == found.kind
    assert "f1 is not compared: scoring changed" in found.because


def test_a_new_metric_leaves_the_others_comparable() -> None:
    """A metric of the set only reads what was scored: with a new one pass rates still compare."""
    old = measured(1, table(0.1), scoring={"scorer": "exact"})
    rule = Regression(metrics=("pass_rate",))
    assert "regressed" == verdict(old, measured(2, table(0.4, 1)), rule=rule).kind


def test_gate_of_a_tag_takes_its_examples_only() -> None:
    """`regression[x]` compares the figure of the examples with that tag."""
    rows = [
        tuple(replace(row, tags=("x",)) if i < 100 else row for i, row in enumerate(table(w, s)))
        for w, s in ((0.1, 0), (0.4, 1))
    ]
    rule = Regression(name="regression[x]", metrics=("f1",))
    found = verdict(measured(1, rows[0]), measured(2, rows[1]), rule=rule).change("f1[x]")
    assert found is not None
    assert math.isclose(OWN["f1"].of(rows[0][:100]), found.baseline)
    assert 100 == found.test.n


def test_variance_of_a_mean_is_the_known_one() -> None:
    """Of an accuracy, the bootstrap's variance is that of a mean difference, within its error."""
    old, new = table(0.1, 0, 400), table(0.2, 1, 400)
    accuracy = of_labels("accuracy")
    parts = [[accuracy.parts(row) for row in rows] for rows in (old, new)]
    found = change_variance([parts[0]], [parts[1]], accuracy.figure, seed_from(["x"]))
    apart = [int(b.passed or 0) - int(a.passed or 0) for a, b in zip(old, new, strict=True)]
    mean = sum(apart) / 400
    known = sum((d - mean) ** 2 for d in apart) / 399 / 400
    # 1,000 resamples give a variance within 4.5% of its value (one standard error).
    assert math.isclose(known, found, rel_tol=0.2)


@pytest.mark.parametrize("name", ["f1", "eval_loss", "overfit_gap"])
def test_trainings_evaluated_again_count_once(name: str) -> None:
    """Runs of the same trainings, measured twice, are no more evidence of the seed noise."""
    old, new = measured(1, table(0.1)), measured(2, table(0.25, 1))
    once = [
        fake_seed_run(old, 43 + i, table(0.1 + i / 100, i), scoring=SCORING, weights=f"w{i}")
        for i in range(4)
    ]
    again = [replace(run, group="evaluated again", fingerprint="c" * 64) for run in once]
    rule = Regression(metrics=(name,))
    first, twice = (verdict(old, new, runs, rule) for runs in (once, [*once, *again]))
    assert first.change(name) is not None
    assert first.change(name) == twice.change(name)
