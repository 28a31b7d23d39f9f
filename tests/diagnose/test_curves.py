"""The rules over curves together: real runs, healthy ones, and runs without data."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import fmean

import pytest

from pytest_ftloop.diagnose import diagnose
from pytest_ftloop.diagnose.broken import non_finite
from pytest_ftloop.diagnose.curves import RULES, out_of_memory
from tests.diagnose.fakes_curves import REAL, evidence, kinds, real


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lr1e-6", ["not-learning"]),
        ("lr2e-5", ["not-learning"]),
        ("lr2e-4", ["underfit"]),
        ("lr1e-3", ["underfit"]),
        ("lr5e-3", []),
        ("lr1.2e-2", []),
        ("lr3e-2", ["underfit"]),
        ("lr1e-1", ["oscillation"]),
        ("lr1", ["non-finite"]),
        ("lr100", ["non-finite"]),
        ("overfit", ["overfitting"]),
        ("bs1", ["underfit"]),
        ("bs1hot", ["underfit"]),
        ("long", []),
        ("cosine", []),
        ("two", ["underfit"]),
        ("one", ["underfit"]),
    ],
)
def test_real_runs_are_read_right(name, expected):
    """What is said of recorded runs, from learning rate 1e-6 to 100."""
    assert expected == kinds(real(name))


def healthy(seed):
    """Evidence of a noisy, often short or coarsely evaluated, healthy run."""
    rng = random.Random(seed)
    steps = rng.choice([3, 5, 10, 30, 100, 250])
    start, floor = rng.uniform(1.5, 8), rng.choice([0.005, 0.02, 0.2, 1.0])
    gap = rng.uniform(0, 0.05)
    warmup, speed = rng.choice([0, 0.1]) * steps, rng.choice([1, 3, 8, 20])
    sigma, points, progress = rng.choice([0.05, 0.2, 0.5, 1.0]), rng.choice([1, 2, 4, 10]), 0.0
    means = []
    for n in range(steps):
        progress += (min(1, (n + 1) / warmup) if warmup else 1) / steps
        means.append(floor + (start - floor) * math.exp(-speed * progress))
    losses = [mean * math.exp(rng.gauss(0, sigma) - sigma**2 / 2) for mean in means]
    at = sorted({max(1, round(steps * (n + 1) / points)) for n in range(points)})
    evals = [means[step - 1] * (1 + gap) * (1 + rng.gauss(0, 0.003)) for step in at]
    base = start * (1 + gap) if rng.random() < 0.8 else math.nan
    return evidence(losses, evals, base, train_loss=min(means))


def test_healthy_runs_raise_no_alarm():
    """300 healthy runs give no warning and no error."""
    found = {seed: diagnose(healthy(seed)) for seed in range(300)}
    alarms = {s: f for s, all_ in found.items() for f in all_ if f.severity != "info"}
    assert alarms == {}


def long_and_noisy(seed, every=1):
    """Evidence of 30 to 800 steps with batch noise of 3 to 35%, logged as means of `every`."""
    rng = random.Random(seed)
    steps, sigma = rng.choice([30, 60, 120, 300, 800]), rng.choice([0.03, 0.1, 0.2, 0.35])
    start = rng.choice([1.2, 1.6, 2.5, 3.5, 5.0])
    floor, tau = start * rng.uniform(0.3, 0.75), steps * rng.uniform(0.05, 0.35)
    means = [floor + (start - floor) * math.exp(-n / tau) for n in range(steps + 1)]
    losses = [mean * math.exp(rng.gauss(-(sigma**2) / 2, sigma)) for mean in means[:steps]]
    at = [steps * part // 5 for part in range(1, 6)]
    evals = [1.03 * means[n] + rng.gauss(0, 0.002) for n in at]
    logged = [fmean(losses[n - every : n]) for n in range(every, steps + 1, every)]
    base = 1.03 * start if every == 1 else math.nan
    of = evidence(logged, evals, base, train_loss=means[-1])
    return replace(
        of,
        steps=tuple(replace(entry, step=every * entry.step) for entry in of.steps),
        evals=tuple(replace(point, step=n) for point, n in zip(of.evals, at, strict=True)),
    )


@pytest.mark.parametrize("every", [1, 5, 10, 50])
def test_long_and_noisy_runs_raise_no_alarm(every):
    """300 healthy runs, however they are logged, give no warning and no error."""
    found = {seed: diagnose(long_and_noisy(seed, every)) for seed in range(300)}
    assert {} == {s: f for s, all_ in found.items() for f in all_ if f.severity != "info"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_run_without_data_says_nothing(rule):
    """No step and no evaluation point: no rule fires, none fails."""
    assert None is rule(evidence([], (), math.nan, metrics={"eval_loss": math.nan}))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_tiny_runs_are_harmless(steps):
    """A run of a few steps that learns a little is no warning."""
    found = diagnose(evidence([5.0 - 0.1 * n for n in range(steps)], (4.8,), 5.0, 4.7))
    assert [finding for finding in found if finding.severity != "info"] == []


@pytest.mark.parametrize(
    "rule",
    [r for r in RULES if r not in {non_finite, out_of_memory}],
    ids=lambda rule: rule.__name__,
)
def test_only_non_finite_speaks_of_nan(rule):
    """Where all is NaN only the rule for NaN fires."""
    assert None is rule(evidence([math.nan] * 50, (math.nan,) * 4, math.nan))


class TestOutOfMemory:
    def test_recovery(self):
        """A survived memory limit is told, with what was changed."""
        found = out_of_memory(evidence(recoveries=("batch 8 to 4, accumulation 1 to 2",)))
        assert (found.severity, "batch 8 to 4" in found.message) == ("info", True)

    def test_none(self):
        """Nothing happened, nothing is told."""
        assert None is out_of_memory(evidence())

    def test_survives_suppression(self):
        """The memory is told even of a run that diverged; the error comes first."""
        losses = [3.0] * 10 + [1.0] * 40 + [6.0] * 20
        found = kinds(evidence(losses, (1.0, 6.0), recoveries=("batch 8 to 4",)))
        assert found == ["diverged", "out-of-memory"]


def test_findings_are_records_of_plain_numbers():
    """Evidence holds numbers and text only, each message is a sentence on one line."""
    for finding in (finding for name in REAL for finding in diagnose(real(name))):
        assert {float, int, str} >= {type(value) for value in finding.evidence.values()}
        assert (finding.message.endswith("."), len(finding.message.splitlines())) == (True, 1)


def test_a_run_that_wobbled_is_not_said_to_have_converged():
    """Peaks in the first half and a level end: the remedy of the peaks comes first."""
    level = [1 + 4 * math.exp(-n / 8) for n in range(100)]
    wobbles = (2.0, 3.0, 1.5, 2.4, 1.2, 1.9, 1.05, 1.05, 1.05, 1.05, 1.05, 1.05)
    assert ["converged"] == kinds(evidence(level, wobbles[-6:]))
    assert ["oscillation"] == kinds(evidence(level, wobbles))
