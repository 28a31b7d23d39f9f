"""The tests agree with scipy's, which the package does without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pytest_ftloop.diagnose.statistics import Ranks, discoveries, fisher_exact


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int, int]:
    total = draw(st.integers(2, 400))
    size, failing = draw(st.integers(0, total)), draw(st.integers(0, total))
    inside = draw(st.integers(max(0, size + failing - total), min(size, failing)))
    return inside, size, failing, total


@given(tables())
def test_fisher_exact_is_scipys(table: tuple[int, int, int, int]) -> None:
    """The tail of the hypergeometric distribution, for any group of any set."""
    inside, size, failing, total = table
    expected = stats.hypergeom.sf(inside - 1, total, failing, size)
    assert fisher_exact(*table) == pytest.approx(expected, rel=1e-8, abs=1e-250)


def test_fisher_exact_of_a_large_set() -> None:
    """A tail far below what a float sums to otherwise."""
    expected = stats.fisher_exact([[60, 20], [140, 4780]], alternative="greater").pvalue
    assert fisher_exact(60, 80, 200, 5000) == pytest.approx(expected, rel=1e-8)


def test_fisher_exact_of_impossible_counts() -> None:
    """More than there are is impossible, at least none is certain."""
    assert 0.0 == fisher_exact(4, 3, 10, 20)
    assert 1.0 == fisher_exact(0, 3, 10, 20)


@given(
    st.lists(st.integers(0, 12), min_size=2, max_size=40),
    st.lists(st.integers(0, 12), min_size=2, max_size=40),
)
def test_mann_whitney_is_scipys(group: list[int], rest: list[int]) -> None:
    """With ties and continuity, one-sided."""
    ranks, members = Ranks.of([*group, *rest]), range(len(group))
    found = stats.mannwhitneyu(group, rest, alternative="greater", method="asymptotic")
    assert ranks.superiority(members) == pytest.approx(found.statistic / len(group) / len(rest))
    if len({*group, *rest}) > 1:
        assert ranks.mann_whitney(members) == pytest.approx(found.pvalue, rel=1e-9)


def test_ranks_of_equal_values_tell_nothing() -> None:
    """Where all values are equal no group stands out."""
    assert 1.0 == Ranks.of([2.0] * 9).mann_whitney([0, 1, 2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_discoveries_are_scipys(p_values: list[float]) -> None:
    """The adjusted p-values that scipy gives, at 5%."""
    adjusted = stats.false_discovery_control(p_values)
    for found, p in zip(discoveries(p_values, 0.05), adjusted, strict=True):
        if abs(p - 0.05) > 1e-12:
            assert found == (p <= 0.05)


def test_no_tests_no_discoveries() -> None:
    """Nothing tested, nothing found."""
    assert [] == discoveries([], 0.05)
