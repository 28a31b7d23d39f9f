"""Comparisons of what is measured otherwise: A/A groups and figures of whole runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.gate.compare import power_text
from tests.fakes import fake_measured, fake_seed_run, fake_table

if TYPE_CHECKING:
    from pytest_ftloop.gate.verdict import Verdict
from tests.gate.compare_cases import (
    ELSEWHERE,
    LOSS_ONLY,
    RULE,
    TRAININGS,
    N,
    calibrated,
    judged,
    kinds,
    losses,
    run_of,
    trained_as,
    with_figure,
)

GAP = Regression(metrics=("overfit_gap",))


# what is measured otherwise


def test_scoring_changed() -> None:
    """The pass rate is left out, with the flips, and said so; the loss is compared."""
    verdict = judged(run_of(1), run_of(2, 1.25, range(50), scoring={"scorer": "contains"}))
    assert ["eval_loss"] == [change.metric for change in verdict.changes]
    assert "pass_rate is not compared: scoring changed" in verdict.notes
    assert ((), ()) == (verdict.fixed, verdict.broken)
    assert "regressed" == verdict.kind


def test_tokens_changed() -> None:
    """Another tokenizer: losses by token are not comparable, nor is the gap; passing is."""
    rows = fake_table(losses(5.0), range(80), tokens=7)
    rule = replace(RULE, metrics=("eval_loss", "token_accuracy", "overfit_gap", "pass_rate"))
    verdict = judged(run_of(1), fake_measured(2, rows), rule)
    assert {"pass_rate": "regressed"} == kinds(verdict)
    assert () == verdict.runs
    for name in ("eval_loss", "token_accuracy", "overfit_gap"):
        assert f"{name} is not compared: the tokens of the examples changed" in verdict.notes


@pytest.mark.parametrize(("changed", "ok"), TRAININGS)
def test_nothing_left_to_compare(changed: dict[str, Any], ok: bool) -> None:
    """Where every metric is left out it says why of each, and passes only if trained alike."""
    old, rows = run_of(1), fake_table(losses(5.0), tokens=7)
    fields = trained_as(old, 2, **changed)
    verdict = judged(old, fake_measured(2, rows, scoring={"scorer": "contains"}, **fields))
    assert ("not comparable", ok) == (verdict.kind, verdict.ok)
    assert "the examples changed; pass_rate is not compared: scoring changed" in verdict.because


def test_a_figure_of_the_whole_eval_set() -> None:
    """A gate on it alone fails where one row was edited and the training changed."""
    rows = fake_table(losses())
    edited = (*fake_table(losses()[:1], start=500), *rows[1:])
    verdict = judged(run_of(1), fake_measured(2, edited), GAP)
    assert ("not comparable", False) == (verdict.kind, verdict.ok)
    assert "a figure of the whole eval set, which changed" in verdict.because
    unmeasured = judged(run_of(1), run_of(2), GAP)
    assert ("not comparable", True) == (unmeasured.kind, unmeasured.ok)


def test_environment_changed() -> None:
    """Other hardware: not comparable, whatever the figures, and said what changed."""
    verdict = judged(run_of(1), run_of(2, 9.0, environment=ELSEWHERE))
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert "environment changed (device cpu -> cuda)" == verdict.because
    label = {"device": "cpu", "torch": "2.13.0+cpu", "threads": "64"}
    assert "regressed" == judged(run_of(1), run_of(2, 9.0, environment=label)).kind


def test_baseline_trained_in_the_candidates_environment() -> None:
    """A run of the baseline's settings there takes its place; runs elsewhere count on no side."""
    old, new = run_of(1), run_of(2, 1.0, environment=ELSEWHERE)
    there = fake_seed_run(old, 42, role="baseline", environment=ELSEWHERE)
    elsewhere = fake_seed_run(new, 43, fake_table([9.0] * N), environment=old.environment)
    verdict = judged(old, new, LOSS_ONLY, seed_runs=[there, elsewhere])
    assert "not comparable" != verdict.kind
    assert (1, 1) == (verdict.changes[0].test.k_baseline, verdict.changes[0].test.k_candidate)


# A/A groups


def nu(verdict: Verdict, metric: str = "eval_loss") -> int:
    change = verdict.change(metric)
    assert change is not None
    return change.test.nu


def test_groups_on_half_of_the_examples() -> None:
    """An A/A group tells of the seed noise when it has at least half of the common examples."""
    old, new = run_of(1), run_of(2)
    for start, wanted in ((100, 1), (101, 0)):
        other = fake_measured(3, fake_table(losses(), start=start))
        group = [fake_seed_run(other, 43, fake_table(losses(1.0, 9), start=start))]
        verdict = judged(old, new, others=[other], seed_runs=group)
        assert wanted == nu(verdict)


def test_groups_of_another_scoring() -> None:
    """They tell of the noise of the loss, not of that of the pass rate."""
    old, new = run_of(1), run_of(2)
    other = run_of(3, scoring={"scorer": "contains"})
    verdict = judged(old, new, others=[other], seed_runs=calibrated(other))
    assert (4, 0) == (nu(verdict), nu(verdict, "pass_rate"))


def test_broken_groups_tell_nothing() -> None:
    """A seed of other settings that diverged does not stop the comparison."""
    old, new, other = run_of(1), run_of(2), run_of(3)
    rows = (replace(other.examples[0], loss=math.nan), *other.examples[1:])
    verdict = judged(old, new, others=[other], seed_runs=[fake_seed_run(other, 43, rows)])
    assert "incomplete" != verdict.kind
    assert 0 == nu(verdict)


def test_unknown_seed_noise_is_said() -> None:
    """Until replicates tell, the verdict names what it supposes and what sharpens it."""
    old, new = run_of(1), run_of(2)
    (note,) = judged(old, new).notes
    assert "ftloop calibrate measures it" in note
    assert () == judged(old, new, seed_runs=calibrated(old)).notes


def test_gap_decides_where_it_is_asked_for() -> None:
    """A gap that widened far regresses; otherwise it is told beside the deciding metrics."""
    old, new = run_of(1), with_figure(run_of(2), overfit_gap=0.9)
    assert "regressed" == judged(old, new, GAP, seed_runs=calibrated(old)).kind
    verdict = judged(old, new, seed_runs=calibrated(old))
    assert {"overfit_gap": "regressed", "train_loss": "unchanged"} == {
        change.metric: change.kind for change in verdict.runs
    }
    assert ("unchanged", True) == (verdict.kind, verdict.ok)


def test_gap_whose_noise_is_unknown() -> None:
    """Until the seed noise is measured a gap proves nothing, and it says what measures it."""
    verdict = judged(run_of(1), with_figure(run_of(2), overfit_gap=0.9), GAP)
    assert ("not comparable", ()) == (verdict.kind, verdict.changes)
    assert "its seed noise is not measured yet (run ftloop calibrate)" in verdict.because


def test_power_without_examples() -> None:
    """Of figures of whole runs the number of examples says nothing."""
    old = run_of(1)
    verdict = judged(old, run_of(2), GAP, seed_runs=calibrated(old))
    assert power_text(verdict.changes).startswith("1 seed against 5: a regression of ")


@pytest.mark.parametrize("value", [math.nan, None])
def test_missing_gap(value: float | None) -> None:
    """A missing or NaN figure that decides fails the candidate; the baseline's is left out."""
    whole, lacking = run_of(1), run_of(2)
    figures = {n: v for n, v in lacking.metrics.items() if n != "overfit_gap"}
    lacking = replace(lacking, metrics=figures | ({} if value is None else {"overfit_gap": value}))
    verdict = judged(whole, lacking, GAP)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    assert f"{lacking.name}: it has no figure overfit_gap" == verdict.because
    verdict = judged(lacking, whole, replace(GAP, metrics=("overfit_gap", "eval_loss")))
    assert ["eval_loss"] == [change.metric for change in verdict.changes]
    assert "overfit_gap is not compared: the baseline lacks overfit_gap" in verdict.notes


def test_gap_of_a_changed_eval_set() -> None:
    """It is a figure of all examples, so a new hard one would look like overfitting."""
    old = run_of(1)
    rows = (*fake_table(losses(1.0, 1)), *fake_table([50.0], start=500))
    new = with_figure(fake_measured(2, rows), overfit_gap=0.9)
    rule = replace(RULE, metrics=("eval_loss", "overfit_gap"))
    verdict = judged(old, new, rule, seed_runs=calibrated(old))
    assert ["eval_loss"] == [change.metric for change in verdict.changes]
    assert (
        "overfit_gap is not compared: it is a figure of the whole eval set, which changed"
        in verdict.notes
    )
    assert ["train_loss"] == [change.metric for change in verdict.runs]
