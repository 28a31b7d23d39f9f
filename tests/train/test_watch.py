"""Watch: ends a hopeless run, and never a healthy one."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from pytest_ftloop.train.early_end import Watch
from tests.fakes import fake_steps

VOCABULARY = 4096
REAL = json.loads((Path(__file__).parents[1] / "diagnose" / "real_curves.json").read_text())


def watch(losses, grad_norms=1.0, vocabulary=VOCABULARY):
    """The first reason and its step, or ('', 0)."""
    observer = Watch(vocabulary)
    for step in fake_steps(losses, grad_norms):
        if reason := observer.see(step):
            return reason, step.step
    return "", 0


def healthy(seed):
    """A noisy healthy run: warmup, decay to a floor, batch noise up to a factor of e per step."""
    rng = random.Random(seed)
    steps = rng.choice([5, 30, 100, 250, 500])
    start, floor = rng.uniform(1.5, 9), rng.choice([0.001, 0.02, 0.2, 1.0])
    warmup, speed = rng.choice([0, 0.1]) * steps, rng.choice([0.0, 1, 3, 8, 20])
    sigma = rng.choice([0.05, 0.2, 0.5, 1.0])
    cosine, progress, losses = rng.random() < 0.5, 0.0, []
    for n in range(steps):
        share = n / steps
        rate = min(1, (n + 1) / warmup) if warmup else 1.0
        if cosine:
            rate *= 0.5 * (1 + math.cos(math.pi * share))
        progress += rate / steps
        mean = floor + (start - floor) * math.exp(-speed * progress)
        losses.append(mean * math.exp(rng.gauss(0, sigma) - sigma**2 / 2))
    return losses


def test_healthy_noisy_runs_are_never_ended():
    """500 healthy curves, with warmup, cosine schedules and the noise of batches of one."""
    assert [seed for seed in range(500) if watch(healthy(seed)) != ("", 0)] == []


@pytest.mark.parametrize(
    "name", [name for name in REAL if name not in {"lr1", "lr100"}], ids=lambda name: name
)
def test_real_runs_are_not_ended(name):
    """Recorded runs whose loss stayed finite are left alone, the oscillating one included."""
    assert watch(REAL[name]["losses"], REAL[name]["norms"]) == ("", 0)


def test_a_real_run_is_ended_at_its_first_nan():
    """A recorded run at learning rate 1 turned NaN at step 21."""
    assert watch(REAL["lr1"]["losses"], REAL["lr1"]["norms"]) == ("loss is nan at step 21", 21)


def test_a_restarted_schedule_is_not_divergence():
    """A loss that rises when the learning rate restarts, and falls again, is left alone."""
    cycle = [0.3 + 2.7 * math.exp(-n / 20) for n in range(100)]
    restarted = [0.3 + 0.7 * math.exp(-n / 40) for n in range(100)]
    assert watch(cycle + restarted) == ("", 0)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_non_finite_loss_ends_the_run_at_once(loss):
    """One NaN or infinite loss is enough: the weights are lost."""
    assert (f"loss is {loss} at step 12", 12) == watch([2.0] * 11 + [loss])


def test_single_infinite_norms_are_loss_scaling():
    """Infinite gradient norms that don't repeat 3 times are skipped steps of a healthy run."""
    assert watch([2.0] * 100, ([1.0] * 8 + [math.inf] * 2) * 10) == ("", 0)


def test_loss_scaling_may_settle_at_the_start():
    """Before the first finite gradient norm up to 7 infinite ones are tolerated."""
    assert watch([2.0] * 20, [math.inf] * 7 + [1.0] * 13) == ("", 0)


def test_repeated_non_finite_norms_end_the_run():
    """3 non-finite gradient norms in a row end a run whose loss is still finite."""
    reason = "gradient norm is inf at step 6, 3 in a row"
    assert (reason, 6) == watch([2.0] * 9, [1.0] * 3 + [math.inf] * 6)


def test_norms_that_are_never_finite_end_the_run():
    """8 non-finite gradient norms from the start are too many for loss scaling."""
    reason, step = watch([2.0] * 20, math.nan)
    assert (reason, step) == ("gradient norm is nan at step 8, 8 in a row", 8)


def test_missing_norms_are_no_evidence():
    """A run that logs no gradient norm is judged by its loss alone."""
    assert watch([2.0] * 50, None) == ("", 0)


@pytest.mark.parametrize("seed", range(20))
def test_divergence_after_learning_ends_the_run(seed):
    """A noisy loss that fell to 1 and climbs to 9 is ended within 40 steps of the turn."""
    rng = random.Random(seed)
    falling = [1 + 4 * math.exp(-n / 20) for n in range(80)]
    rising = [1 + 8 * (1 - math.exp(-n / 5)) for n in range(80)]
    reason, step = watch([loss * rng.uniform(0.7, 1.3) for loss in falling + rising])
    assert (reason.startswith("diverged: the loss of the last 20"), 80 < step < 120) == (True, True)


def test_divergence_from_the_start_ends_the_run():
    """A loss that only ever climbed is measured against its first steps."""
    reason, step = watch([5.0, 5.2, 6.0] + [12.0] * 60)
    assert (reason.startswith("diverged"), step) == (True, 23)


def test_a_spike_is_survived():
    """15 high losses in a row, then recovery, do not end a run."""
    assert watch([3.0] * 10 + [1.0] * 40 + [8.0] * 15 + [1.0] * 40) == ("", 0)


def test_frozen_at_the_uniform_loss_ends_the_run():
    """ln(vocabulary) with zero gradient, after a gradient, is divergence without NaN."""
    uniform = math.log(VOCABULARY)
    reason, step = watch([5.0] * 3 + [uniform] * 9, [1.0] * 3 + [0.0] * 9)
    assert (reason.startswith("the loss froze at 8.32, ln(vocabulary)"), step) == (True, 8)


def test_a_gradient_that_never_was_is_left_to_the_diagnosis():
    """Zero gradient from the first step is a wiring fault, not a frozen run."""
    assert watch([math.log(VOCABULARY)] * 15, 0.0) == ("", 0)


def test_an_untrained_vocabulary_sized_loss_is_no_freeze():
    """A fresh model starts at ln(vocabulary) with a gradient: healthy."""
    assert watch([math.log(VOCABULARY)] * 15, 0.5) == ("", 0)


def test_a_vocabulary_of_one_is_tolerated():
    """No uniform loss exists for a vocabulary of one token."""
    assert watch([1.0] * 30, 0.0, vocabulary=1) == ("", 0)
