"""Whole loops on a simulated fine-tuning, read by the real diagnosis."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.adjust import parent_of_next
from pytest_ftloop.adjust.state import TOO_HIGH, has, rate_of
from tests.adjust.adjust_cases import (
    iteration,
    loop,
    propose,
    train,
)
from tests.fakes import (
    fake_iteration,
)


def loss_of(one):
    """Its eval loss."""
    return one.metrics["eval_loss"]


def best_by_rate(optimum):
    """The lowest eval loss that any learning rate reaches, at 2 epochs."""
    rates = [optimum * 10 ** (n / 50) for n in range(-50, 38)]
    made = [fake_iteration(training={"learning_rate": r, "num_train_epochs": 2}) for r in rates]
    return min(train(one.settings, optimum).metrics["eval_loss"] for one in made)


def short_of_best(times, optimum, iterations):
    """How far the best of a loop is above the best that any learning rate reaches, as a share."""
    chain = loop(min(times * optimum, 0.1), optimum, iterations)
    best = parent_of_next(chain, "eval_loss").metrics["eval_loss"]
    return best / best_by_rate(optimum) - 1


@pytest.mark.parametrize("times", [0.2, 0.33, 1, 5, 10])
@pytest.mark.parametrize("optimum", [3e-4, 1e-3])
def test_reaches_the_optimum(times, optimum):
    """Within 2% of the best of any learning rate in 5 iterations, from a few times off."""
    assert short_of_best(times, optimum, 5) <= 0.02


@pytest.mark.parametrize("times", [0.01, 0.03, 0.1, 3, 30, 100])
@pytest.mark.parametrize("optimum", [3e-4, 1e-3])
def test_comes_near_the_optimum_from_anywhere(times, optimum):
    """Within 6% in 5 iterations and 3% in 6, from up to 100 times off either way."""
    assert short_of_best(times, optimum, 5) <= 0.06
    assert short_of_best(times, optimum, 6) <= 0.031


@pytest.mark.parametrize("start", [2e-4, 1e-3, 3e-2])
def test_reaches_the_known_optimum(start):
    """From 2e-4 and from 3e-2 to about 5e-3, as measured on a real model, in 4 iterations."""
    rates = [one.settings.get("training.learning_rate") for one in loop(start, 5e-3, 4)]
    assert min(abs(math.log(rate / 5e-3)) for rate in rates) <= math.log(1.5)


@given(
    rate=st.floats(1e-6, 0.1),
    optimum=st.floats(1e-5, 1e-2),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_simulated_loops_keep_the_rules(rate, optimum):
    """In a whole loop settings never repeat, stay in bounds, and stay below what diverged."""
    keep_the_rules(loop(float(f"{rate:.1e}"), optimum, 9))


OUTCOMES = st.tuples(
    st.sampled_from(
        [
            (),
            ("underfit",),
            ("not-learning",),
            ("overfitting",),
            ("diverged",),
            ("non-finite",),
            ("oscillation",),
            ("plateau",),
        ]
    ),
    st.one_of(st.floats(0.1, 6.0), st.just(math.nan)),
)


@given(
    outcomes=st.lists(OUTCOMES, min_size=2, max_size=12),
    rate=st.sampled_from([None, 1e-6, 2e-5, 2e-4, 1e-2, 0.1]),
)
@settings(max_examples=150, deadline=None)
def test_any_outcomes_keep_the_rules(outcomes, rate):
    """Whatever the runs show, settings never repeat, stay in bounds, below what diverged."""
    chain = []
    training = {} if rate is None else {"learning_rate": rate}
    made, adjustments = fake_iteration(training=training).settings, ()
    for number, (kinds, loss) in enumerate(outcomes, start=1):
        one = iteration(number, loss, *kinds)
        chain.append(replace(one, settings=made, adjustments=adjustments))
        adjustments = propose(chain)
        if not adjustments:
            break
        made = parent_of_next(chain, "eval_loss").settings.adjusted(adjustments)
    keep_the_rules(chain)


def keep_the_rules(chain):
    """No settings twice, one or two at a time, in bounds, and below what diverged before.

    Where as high a rate works too, the rate was not what made the other diverge.
    """
    seen = []
    for number, one in enumerate(chain):
        rate, before = rate_of(one), chain[:number]
        diverged = {rate_of(i) for i in before if has(i, TOO_HIGH)}
        works = [i for i in before if not has(i, TOO_HIGH) and math.isfinite(loss_of(i))]
        highest = max(map(rate_of, works), default=0.0)
        assert all(rate < ceiling for ceiling in diverged if ceiling > highest)
        assert one.settings not in seen
        seen.append(one.settings)
        if number:
            assert 1 <= len(one.adjustments) <= 2
            assert all(made.before != made.after and made.because for made in one.adjustments)
        assert 1e-6 <= rate <= 0.1
        assert one.settings.get("training.num_train_epochs", 3) <= 20
        assert 1 <= one.settings.get("lora.r", 8) <= 256
        assert one.settings.get("lora.lora_dropout", 0) <= 0.3
        assert one.settings.get("training.weight_decay", 0) <= 0.1
