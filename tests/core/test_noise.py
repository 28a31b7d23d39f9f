"""How far a metric moves by chance: believed, until seed runs have measured it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.noise import better_beyond_noise, noise, run_noise
from tests.fakes import fake_iteration, fake_metrics, fake_seed_run


def group(*losses, pass_rate=0.5):
    """An iteration with seed runs, whose eval losses these are."""
    first = fake_iteration(1, metrics=fake_metrics(losses[0], 0.9, pass_rate), group="g")
    runs = [
        fake_seed_run(first, 42 + n, (), metrics=fake_metrics(loss, 0.9, pass_rate))
        for n, loss in enumerate(losses[1:], start=1)
    ]
    return [first], runs


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("eval_loss", 2.0, 0.02),
        ("eval_loss[negation]", 2.0, 0.02),
        ("pass_rate", 0.8, 0.005),
        ("token_accuracy", 0.0, 0.005),
        ("overfit_gap", 0.0, 0.01),
    ],
)
def test_believed(metric, value, expected):
    """1% of a loss, half a point of a rate, 0.01 nats of a gap."""
    assert expected == pytest.approx(noise(metric, value))


def test_without_seed_runs_nothing_is_measured():
    """One run of each setting tells nothing of the seed."""
    assert {} == run_noise([fake_iteration(n, group=f"g{n}") for n in (1, 2)], [])


def test_measured_is_a_share_of_the_loss():
    """Noise of 4% measured at a loss of 2 is 4% of a loss of 0.5 as well."""
    rng = random.Random(1)
    told = run_noise(*group(*(2.0 + rng.gauss(0, 0.08) for _ in range(60))))
    assert math.sqrt(2) * 0.04 == pytest.approx(told["eval_loss"], rel=0.2)
    assert 0.5 * told["eval_loss"] == noise("eval_loss", 0.5, told)


def test_two_seeds_that_agree():
    """They halve a variance that is worth 2 degrees of freedom by a third, and no more."""
    told = run_noise(*group(2.0, 2.0))
    assert 0.01 * math.sqrt(2 / 3) == pytest.approx(told["eval_loss"])


def test_rates_are_measured_as_they_are():
    """A rate that never moved is measured too; what is measured of it is no share."""
    told = run_noise(*group(1.0, 1.1, pass_rate=0.9))
    assert 0.005 * math.sqrt(2 / 3) == pytest.approx(told["pass_rate"])
    assert told["pass_rate"] == noise("pass_rate", 0.1, told)


def test_of_a_tag_nothing_is_measured():
    """The whole set's noise understates that of a slice: for it what is believed stands."""
    told = run_noise(*group(2.0, 3.0))
    assert 0.02 == pytest.approx(noise("eval_loss[negation]", 2.0, told))


def test_figures_that_are_not_finite_are_left_out():
    """A NaN run tells nothing, the others of its group do."""
    with_nan, without = run_noise(*group(2.0, math.nan, 2.0)), run_noise(*group(2.0, 2.0))
    assert with_nan["eval_loss"] == without["eval_loss"]
    assert "eval_loss" not in run_noise(*group(2.0, math.nan))


def test_other_settings_are_no_group():
    """Iterations of different settings differ by more than the seed."""
    runs = [fake_iteration(n, metrics=fake_metrics(n), group=f"g{n}") for n in (1, 2, 3)]
    assert {} == run_noise(runs, [])


def test_better_beyond_measured_noise():
    """A gain of 3% counts where 1% is believed, and not where 5% was measured."""
    assert better_beyond_noise("eval_loss", 0.97, 1.0)
    assert not better_beyond_noise("eval_loss", 0.97, 1.0, {"eval_loss": 0.05})


def test_nan():
    """Any figure is better than NaN; NaN is never better."""
    assert better_beyond_noise("eval_loss", 9.0, math.nan)
    assert not better_beyond_noise("eval_loss", math.nan, 9.0)
    assert not better_beyond_noise("eval_loss", math.nan, math.nan)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=6))
def test_any_figures_give_finite_noise(losses):
    """Whatever figures a log holds, what is measured is finite and above 0."""
    assert all(0 < found < math.inf for found in run_noise(*group(*losses)).values())
