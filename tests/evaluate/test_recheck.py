"""What the comparison of an export with the log finds: records in, records out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.evaluate.recheck import EXACT, ROUNDED, Tolerance, compare
from tests.fakes import fake_example

EVERYTHING = Tolerance(1.0, math.inf)


def results(count: int, **fields: Any) -> list[ExampleResult]:
    return [fake_example(f"e{n}", **fields) for n in range(count)]


RESULTS = st.lists(
    st.builds(
        fake_example,
        st.uuids().map(str),
        st.booleans(),
        loss=st.floats(0, 50),
        tokens=st.integers(1, 9),
        output=st.text(max_size=5),
    ),
    min_size=1,
    max_size=8,
)


@given(RESULTS)
def test_equal_results_hold_at_any_tolerance(rows: list[ExampleResult]) -> None:
    """Results compared with themselves have no problem, even where nothing is tolerated."""
    found = compare(rows, rows)
    assert () == found.problems(Tolerance(0.0, 0.0))
    assert (len(rows), (), 0, 0) == (found.examples, found.flips, found.changed, found.retokenised)
    assert found.worst is not None
    assert 0.0 == found.worst.size


@given(RESULTS, st.data())
def test_flips_count_both_ways(rows: list[ExampleResult], data: st.DataObject) -> None:
    """Each example whose pass is another one is a flip, with its outputs and whether it passes."""
    turned = data.draw(st.sets(st.sampled_from([row.id for row in rows])))
    after = [
        replace(row, passed=not row.passed, output="now") if row.id in turned else row
        for row in rows
    ]
    found = compare(rows, after)
    wanted = [
        (row.id, row.expected, row.output, "now", not row.passed)
        for row in rows
        if row.id in turned
    ]
    assert wanted == [(f.id, f.expected, f.before, f.after, f.passed) for f in found.flips]


@pytest.mark.parametrize(
    ("flipped", "tolerance", "fails"),
    [(0, 0.0, False), (1, 0.0, True), (1, 0.1, False), (2, 0.1, True)],
)
def test_share_of_flips_that_is_tolerated(flipped: int, tolerance: float, fails: bool) -> None:
    """Of ten examples one may flip at 10%, two may not; the problem names both figures."""
    before = results(10)
    after = [replace(row, passed=n >= flipped) for n, row in enumerate(before)]
    problems = compare(before, after).problems(Tolerance(tolerance, 1.0))
    wanted = f"{flipped} of 10 examples flipped (tolerance {100 * tolerance:g}%)"
    assert ([wanted] if fails else []) == list(problems)


@pytest.mark.parametrize(
    ("loss", "fails"), [(2.0, False), (2.003, False), (2.005, True), (1.9, True), (math.nan, True)]
)
def test_loss_is_per_token(loss: float, fails: bool) -> None:
    """A sum over 4 tokens may differ by four times the tolerance per token; NaN never holds."""
    before = results(3)
    after = [*before[:2], replace(before[2], loss=loss)]
    problems = compare(before, after).problems(EXACT)
    assert fails == bool(problems)
    assert all(problem.startswith("the loss of e2 is ") for problem in problems)


def test_loss_that_was_not_finite_then_either() -> None:
    """A loss that is NaN in the log and now is no difference."""
    rows = results(2, loss=math.nan)
    assert () == compare(rows, rows).problems(EXACT)


def test_other_tokens_are_another_tokenizer() -> None:
    """Another number of labelled tokens is a problem whatever the tolerance."""
    before = results(2, loss=0.0)
    (problem,) = compare(before, [replace(before[0], tokens=5), before[1]]).problems(EVERYTHING)
    assert problem.startswith("1 of 2 examples have another number of tokens")


@pytest.mark.parametrize(("changed", "fails"), [(5, False), (6, True)])
def test_most_outputs_changed_where_nothing_passes(changed: int, fails: bool) -> None:
    """Where no example passed none can flip; more than half of the outputs changed fails then."""
    before = results(10, passed=False, output="a")
    after = [replace(row, output="b") if n < changed else row for n, row in enumerate(before)]
    assert fails == bool(compare(before, after).problems(ROUNDED))


def test_without_losses_only_outputs_count() -> None:
    """An endpoint has no losses and no tokens: neither is compared."""
    before = results(2)
    after = [replace(row, loss=math.nan, tokens=0) for row in before]
    assert () == compare(before, after, losses=False).problems(EXACT)


@pytest.mark.parametrize(("score", "fails"), [(0.5, False), (0.3, False), (0.2, True), (1.0, True)])
def test_mean_of_a_score_moves_no_further_than_flips(score: float, fails: bool) -> None:
    """Where nothing passes a score shows what was lost: its mean may move as far as flips may."""
    before = results(4, passed=False, scores={"score.fields": 0.5})
    after = [replace(before[0], scores={"score.fields": score}), *before[1:]]
    problems = compare(before, after).problems(Tolerance(0.05, 1.0))
    mean = 0.375 + score / 4
    wanted = f"score.fields is {mean:.4f}, in the log 0.5000 (tolerance 0.05)"
    assert ([wanted] if fails else []) == list(problems)
