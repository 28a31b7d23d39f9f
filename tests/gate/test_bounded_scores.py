"""Scores from 0 to 1 in the regression gate: compared as rates, only where both sides have them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import best_metrics, figure_of
from pytest_ftloop.core.records import Evaluation, Iteration
from pytest_ftloop.core.runs import differences
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.log.consistent import verify
from tests.gate.compare_cases import judged, run_of

NAME = "score.fields"
RULE = Regression(metrics=("eval_loss", NAME))


def scored(number: int, mean: float, *, with_scores: bool = True) -> Iteration:
    """A run whose examples have scores of about `mean`, in fifths as those of five fields."""
    chance = random.Random(number)
    made = run_of(number, 1.0)
    rows = tuple(
        replace(row, scores={NAME: sum(chance.random() < mean for _ in range(5)) / 5})
        for row in made.examples
    )
    rows = rows if with_scores else tuple(made.examples)
    figures = best_metrics(Evaluation(rows, (), (), 5.0))
    return replace(made, examples=rows, metrics={**made.metrics, **figures})


@pytest.mark.parametrize(
    ("after", "kind"), [(0.6, "inconclusive"), (0.3, "regressed"), (0.95, "improved")]
)
def test_a_score_is_compared(after: float, kind: str) -> None:
    """A drop of a score fails although the loss is the same; a gain is an improvement."""
    verdict = judged(scored(1, 0.6), scored(2, after), RULE)
    change = verdict.change(NAME)
    assert change is not None
    assert kind == change.kind
    assert abs(change.candidate - after) < 0.05


def test_a_baseline_without_scores() -> None:
    """Figures of before are not taken for zeros: the score is left out, and a note says why."""
    verdict = judged(scored(1, 0.6, with_scores=False), scored(2, 0.6), RULE)
    assert verdict.change(NAME) is None
    assert f"{NAME} is not compared: the baseline lacks {NAME}" in verdict.notes
    alone = judged(scored(1, 0.6, with_scores=False), scored(2, 0.6), Regression(metrics=(NAME,)))
    assert "not comparable" == alone.kind


def test_a_candidate_without_scores() -> None:
    """A figure that the gate names and the candidate lacks is a failure."""
    verdict = judged(scored(1, 0.6), scored(2, 0.6, with_scores=False), RULE)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    assert f"it has no figure {NAME}" in verdict.because


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=50))
def test_scores_vary_at_most_as_rates(pairs: list[tuple[float, float]]) -> None:
    """About their mean, differences of scores vary by no more than passes and failures can.

    With m the mean absolute difference, flips with the same m have the mean square m.
    """
    moved = [after - before for before, after in pairs]
    n = len(moved)
    most = sum(map(abs, moved)) / n - (sum(moved) / n) ** 2
    assert differences(moved).variance <= most * n / (n - 1) + 1e-9


def test_a_score_that_contradicts_its_table() -> None:
    """A record whose score is not the mean of its table's, or not in it, is damaged."""
    good = scored(1, 0.6)
    verify(good, "x.yaml")
    for metrics in (
        {**good.metrics, NAME: 0.9},
        {**good.metrics, "score.other": 0.5},
        {name: value for name, value in good.metrics.items() if name != NAME},
    ):
        with pytest.raises(LogError, match=r"it says score\.(fields|other)"):
            verify(replace(good, metrics=metrics), "x.yaml")


def answered(number: int, values: Sequence[float]) -> Iteration:
    """A run whose scorer gave these numbers; where all are 1 or 0, a yes or a no was recorded."""
    made = run_of(number, 1.0)
    numbers = [values[i % len(values)] for i in range(len(made.examples))]
    plain = all(value in (0, 1) for value in numbers)
    rows = tuple(
        replace(row, passed=value >= 1, scores={} if plain else {"score": value})
        for row, value in zip(made.examples, numbers, strict=True)
    )
    figures = best_metrics(Evaluation(rows, (), (), 5.0))
    return replace(made, examples=rows, metrics={**made.metrics, **figures})


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ((0, 0.5), (1,), "improved"),
        ((1,), (0, 0.5), "regressed"),
        ((0,), (1,), "improved"),
        ((1, 0.5), (0,), "regressed"),
    ],
)
def test_numbers_that_are_all_1_or_0(
    before: Sequence[float], after: Sequence[float], kind: str
) -> None:
    """A scorer of numbers may give 1 and 0 alone, of a perfect model: its score is compared."""
    rule = Regression(metrics=("score",))
    verdict = judged(answered(1, before), answered(2, after), rule)
    change = verdict.change("score")
    assert kind == verdict.kind
    assert change is not None
    found = change.baseline, change.candidate
    assert found == pytest.approx((sum(before) / len(before), sum(after) / len(after)))


@pytest.mark.parametrize(
    ("metrics", "name", "figure"),
    [
        ({"pass_rate": 0.5}, "score", 0.5),
        ({"pass_rate": 0.5, "score": 0.7}, "score", 0.7),
        ({"pass_rate": 0.5, "score.valid": 0.7}, "score", math.nan),
        ({"pass_rate": 0.5}, "score.valid", math.nan),
        ({"pass_rate": 0.5, "pass_rate[x]": 0.25}, "score[x]", 0.25),
        ({"pass_rate": 0.5, "score": 0.7, "pass_rate[x]": 0.25}, "score[x]", math.nan),
        ({"pass_rate": 0.5, "score_of_mine": 0.7}, "score", 0.5),
        ({"guard.a.pass_rate": 0.5, "score": 0.7}, "guard.a.score", 0.5),
        ({"guard.a.pass_rate": 0.5, "guard.a.score.x": 0.7}, "guard.a.score", math.nan),
        ({"eval_loss": 0.5}, "score", math.nan),
    ],
)
def test_figure_of_a_score(metrics: dict[str, float], name: str, figure: float) -> None:
    """The mean score is the pass rate where each example was a yes or a no, and only there."""
    assert figure_of(metrics, name) == pytest.approx(figure, nan_ok=True)
    (result,) = check_gates([Gate(name, ">=", 0.4)], metrics)
    assert result.value == (None if math.isnan(figure) else figure)
