"""False alarms of the gates `lift` and `forgetting`: comparisons with a base that was not trained.

A trial draws n examples whose losses change by a normal amount of mean 0, which the candidate's
seed shifts together; the base has no seed. That is a lift of exactly the bound, or a guard that is
no worse: the test of a lift's p-value is the same, mirrored and shifted by its bound.
"""

from __future__ import annotations

import numpy as np

from pytest_ftloop.core.noise import SeedNoise, noise_of
from pytest_ftloop.core.runs import Differences
from pytest_ftloop.gate.statistic import PairedTest, corrected, paired_test, prior_for

ALPHA = 0.01
LEVEL = 1.0
"""The base's loss, in nats per token; noises are shares of it."""
SPREAD = 0.3
"""Standard deviation of an example's change, in nats: as of guards of other text, measured."""
PAIRS = {"8 pairs": 8, "none": 0}
"""Pairs of runs that differ in their seed only, by the log's name."""
WORTH_IT = 0.01
"""The least change that fails, as a share of the loss."""

Generator = np.random.Generator


def lift_alarms(n: int, noise: float, kept: str, trials: int, seed: int) -> float:
    """The share of trials in which a gain beyond the true one is proven."""
    draw = np.random.default_rng(seed)
    found = (_guard(draw, n, noise, kept)[0].p_worse <= ALPHA for _ in range(trials))
    return sum(found) / trials


def forgetting_alarms(
    n: int, noise: float, kept: str, trials: int, seed: int, guards: int
) -> float:
    """The share of trials in which one of so many guards, none of them worse, fails the gate.

    Each is compared with the base, and with a baseline that has a seed of its own.
    """
    draw = np.random.default_rng(seed)
    failed = 0
    for _ in range(trials):
        tests = [test for _ in range(guards) for test in _guard(draw, n, noise, kept)]
        adjusted, _ = corrected(tests)
        failed += any(
            p <= ALPHA and test.change >= WORTH_IT * LEVEL
            for p, test in zip(adjusted, tests, strict=True)
        )
    return failed / trials


def _guard(draw: Generator, n: int, noise: float, kept: str) -> tuple[PairedTest, PairedTest]:
    """The tests of one set of rows against the base and the baseline.

    Both share the candidate, and so the shift of its seed.
    """
    candidate, baseline = draw.normal(0.0, noise * LEVEL, 2)
    pairs = draw.normal(LEVEL, noise * LEVEL, (PAIRS[kept], 2)).tolist()
    known = noise_of(pairs) if pairs else SeedNoise(0.0, 0.0, 0)
    prior = prior_for("loss", LEVEL, known.df)

    def test(shift: float, *, untrained: bool) -> PairedTest:
        mean = float(draw.normal(shift, SPREAD / np.sqrt(n)))
        variance = float(SPREAD**2 * draw.chisquare(n - 1) / (n - 1))
        found = Differences(n, mean, variance)
        return paired_test(found, 1, 1, known, prior, ALPHA, untrained=untrained)

    return test(candidate, untrained=True), test(candidate - baseline, untrained=False)
