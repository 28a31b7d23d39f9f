"""Sampled outputs: the share that passes, pass@k and pass^k."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.metrics import best_metrics, is_rate, metric_of
from pytest_ftloop.core.records import Evaluation, ExampleResult
from pytest_ftloop.core.runs import example_metric
from pytest_ftloop.core.sampled import estimate, recorded_ks, share_of
from tests.fakes import fake_example


def sampled(passed: int, of: int, **fields: Any) -> ExampleResult:
    """An example with so many passing outputs; the share rounded as a table rounds it."""
    share = round(passed / of, 6)
    outputs = tuple(f"o{n}" for n in range(of))
    return fake_example(passed=share > 0.5, scores={"pass@1": share}, outputs=outputs, **fields)


@given(
    st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
def test_estimates_are_the_share_of_all_choices_of_k(case: tuple[int, int, int]) -> None:
    """pass@k and pass^k are the shares of the choices of k outputs with any, and all, that pass."""
    n, passed, k = case
    choices = list(combinations([True] * passed + [False] * (n - passed), k))
    row = sampled(passed, n)
    assert math.isclose(sum(map(any, choices)) / len(choices), estimate(row, f"pass@{k}"))
    assert math.isclose(sum(map(all, choices)) / len(choices), estimate(row, f"pass^{k}"))


@pytest.mark.parametrize(
    ("samples", "ks"),
    [
        (1, ()),
        (2, (2,)),
        (5, (2, 3, 4, 5)),
        (7, (2, 3, 4, 5, 7)),
        (200, (2, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 200)),
    ],
)
def test_recorded_ks(samples: int, ks: tuple[int, ...]) -> None:
    """Figures are recorded of the usual k below the number of samples, and of that number."""
    assert ks == recorded_ks(samples)


def test_figures_of_sampled_outputs() -> None:
    """The pass rate is the mean share; pass@k and pass^k are beside it, and no metric pass@1."""
    rows = (sampled(1, 4, id="a"), sampled(4, 4, id="b"), sampled(0, 4, id="c", tags=("x",)))
    found = best_metrics(Evaluation(rows, (), (), math.nan))
    assert found["pass_rate"] == pytest.approx(1.25 / 3, abs=1e-6)
    assert found["pass@2"] == pytest.approx((0.5 + 1) / 3, abs=1e-6)
    assert found["pass^4"] == pytest.approx(1 / 3, abs=1e-6)
    assert 0.0 == found["pass@4[x]"]
    assert "pass@1" not in found


def test_a_single_output_has_no_sampled_figures() -> None:
    """Without several outputs a record has the figures that it had before."""
    found = best_metrics(Evaluation((fake_example(),), (), (), math.nan))
    assert not [name for name in found if name.startswith(("pass@", "pass^"))]
    assert [1.0, 0.0] == [share_of(fake_example(passed=passed)) for passed in (True, False)]


@given(st.lists(st.integers(0, 5), min_size=1))
def test_a_metric_s_values_average_to_its_figure(passed: list[int]) -> None:
    """What the gate compares example by example averages to the figure in the record."""
    rows = [sampled(c, 5, id=f"e{i}") for i, c in enumerate(passed)]
    found = best_metrics(Evaluation(tuple(rows), (), (), math.nan))
    for name in ("pass_rate", "pass@3", "pass^5"):
        metric = example_metric(name)
        assert metric is not None
        values = metric.values(rows)
        assert metric.figure(sum(values) / len(values)) == pytest.approx(found[name], abs=1e-6)


def test_sampled_metrics_are_rates_of_which_higher_is_better() -> None:
    """pass@k and pass^k are shown in percent, by tag too."""
    assert all(is_rate(name) for name in ("pass@5", "pass^5", "pass@5[x]"))
    assert ("higher", "higher") == (metric_of("pass@5").better, metric_of("pass^2[x]").better)
