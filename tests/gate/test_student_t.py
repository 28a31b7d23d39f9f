"""Student's t: the same figures as scipy's, at any degrees of freedom the gate can meet."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import LEAST_ALPHA, MOST_ALPHA
from pytest_ftloop.gate.student_t import LARGE_DF, quantile, survival

DEGREES = [0.5, 1, 1.5, 2, 2.7, 3, 4, 6, 10, 31.4, 99, LARGE_DF - 0.1, LARGE_DF, 2e3, 1e5, 1e7]
TAILS = [1e-12, 1e-9, 1e-6, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.49]
degrees = st.floats(0.5, 1e9)


@pytest.mark.parametrize("df", DEGREES)
def test_survival_is_scipys(df: float) -> None:
    """Every tail down to 1e-12 agrees with scipy to 10 digits."""
    special = pytest.importorskip("scipy.special")
    for t in (1e-3, 0.1, 0.5, 1, 1.5, 1.7, 2, 3, 5, 7, 20, 1e3, 1e6, 1e12):
        expected = float(special.stdtr(df, -t))
        if expected > 1e-12:
            assert pytest.approx(expected, rel=1e-10) == survival(t, df), t
            assert pytest.approx(1 - expected, rel=1e-10) == survival(-t, df), t


@pytest.mark.parametrize("df", DEGREES)
def test_quantile_is_scipys(df: float) -> None:
    """Quantiles of both tails agree with scipy to 10 digits."""
    special = pytest.importorskip("scipy.special")
    for tail in TAILS:
        expected = float(special.stdtrit(df, tail))
        assert pytest.approx(expected, rel=1e-10) == quantile(tail, df), tail
        assert pytest.approx(-expected, rel=1e-4) == quantile(1 - tail, df), tail


@given(st.floats(1e-12, 1, exclude_max=True), degrees)
def test_quantile_undoes_survival(p: float, df: float) -> None:
    """Below the quantile lies just the probability it was asked for."""
    assert pytest.approx(p, rel=1e-10) == survival(-quantile(p, df), df)


@given(st.floats(allow_nan=False), degrees)
def test_tails_add_to_one(t: float, df: float) -> None:
    """A value's two tails are all there is."""
    assert pytest.approx(1.0, abs=1e-15) == survival(t, df) + survival(-t, df)


@given(st.floats(-40, 40), st.floats(0.001, 10), degrees)
def test_survival_falls(t: float, step: float, df: float) -> None:
    """A larger value is exceeded less often, up to rounding."""
    assert survival(t + step, df) <= survival(t, df) * (1 + 1e-11)


@pytest.mark.parametrize("df", [1e12, 1e300, math.inf])
def test_many_degrees_are_the_normal(df: float) -> None:
    """With very many degrees of freedom t is the normal distribution."""
    for z in (0.3, 1.0, 2.326, 7.0):
        tail = 0.5 * math.erfc(z / math.sqrt(2))
        assert pytest.approx(tail, rel=1e-8) == survival(z, df)
        assert pytest.approx(NormalDist().inv_cdf(tail), rel=1e-8) == quantile(tail, df)


def test_the_ends() -> None:
    """Zero halves it, nothing exceeds infinity, and extreme values neither crash nor give NaN."""
    assert survival(0, 3) == 0.5
    assert quantile(0.5, 3) == 0
    assert survival(math.inf, 3) == 0
    assert survival(-math.inf, 3) == 1
    assert survival(5e-324, 7) == 0.5
    assert survival(1e300, 1e12) == 0
    assert pytest.approx(1 / (math.pi * 1e300), rel=1e-10) == survival(1e300, 1)
    assert quantile(0.99, 1e-3) == math.inf
    assert pytest.approx(1e-100, rel=1e-10) == survival(-quantile(1e-100, 3), 3)


def test_survival_refuses_nonsense() -> None:
    """A NaN or degrees of freedom that are not above 0 are named in the error."""
    for t, df in ((math.nan, 3), (1, 0), (1, -2), (1, math.nan)):
        with pytest.raises(ValueError, match=f"found t={t}, df={df}"):
            survival(t, df)


def test_quantile_refuses_nonsense() -> None:
    """A probability outside ]0, 1[ or bad degrees of freedom are named in the error."""
    for p, df in ((0, 3), (1, 3), (math.nan, 3), (0.5, 0), (0.1, math.nan)):
        with pytest.raises(ValueError, match=f"found p={p}, df={df}"):
            quantile(p, df)


@pytest.mark.parametrize("df", [0.5, 1.0, 4.0, 300.0, 1e9, math.inf])
def test_extreme_values(df: float) -> None:
    """Any t gives a probability, and any alpha that a gate allows its own quantile back."""
    for t in (1e-300, 1e-30, 1e30, 1e100, 1e300, math.inf):
        assert 0 <= survival(t, df) <= 0.5 <= survival(-t, df) <= 1
    for alpha in (LEAST_ALPHA / 2, LEAST_ALPHA, 0.01, math.nextafter(MOST_ALPHA, 0)):
        assert alpha == pytest.approx(survival(quantile(1 - alpha, df), df), rel=1e-6)
