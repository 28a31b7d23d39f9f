"""False alarms of the gates `lift` and `forgetting`: comparisons with a base that was not trained.

A trial draws n examples whose losses change by a normal amount of mean 0, which the candidate's
seed shifts together; the base has no seed. That is a lift of exactly the bound, or a guard that is
no worse: the test of a lift's p-value is the same, mirrored and shifted by its bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pytest_ftloop.core.noise import SeedNoise, noise_of
from pytest_ftloop.core.runs import Differences
from pytest_ftloop.gate.statistic import holm_adjusted, paired_test, prior_for

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
    return float(np.mean([_p_worse(draw, n, noise, kept)[0] <= ALPHA for _ in range(trials)]))


def forgetting_alarms(
    n: int, noise: float, kept: str, trials: int, seed: int, guards: int = 3
) -> float:
    """The share of trials in which one of several guards, none of them worse, fails the gate.

    Each is compared with the base and, with a seed of its own, with the baseline.
    """
    draw = np.random.default_rng(seed)
    failed = 0
    for _ in range(trials):
        tests = [
            _p_worse(draw, n, noise, kept, untrained=untrained)
            for _ in range(guards)
            for untrained in (True, False)
        ]
        adjusted = holm_adjusted([p for p, _ in tests])
        failed += any(
            p <= ALPHA and change >= WORTH_IT * LEVEL
            for p, (_, change) in zip(adjusted, tests, strict=True)
        )
    return failed / trials


def _p_worse(
    draw: Generator, n: int, noise: float, kept: str, *, untrained: bool = True
) -> tuple[float, float]:
    """p and the change of one comparison, by the gate's test."""
    shift = draw.normal(0.0, noise * LEVEL) - (
        0.0 if untrained else draw.normal(0.0, noise * LEVEL)
    )
    mean = float(draw.normal(shift, SPREAD / np.sqrt(n)))
    variance = float(SPREAD**2 * draw.chisquare(n - 1) / (n - 1))
    known = _known(draw.normal(LEVEL, noise * LEVEL, (PAIRS[kept], 2)).tolist())
    prior = prior_for("loss", LEVEL, known.df)
    found = Differences(n, mean, variance)
    test = paired_test(found, 1, 1, known, prior, ALPHA, untrained=untrained)
    return test.p_worse, test.change


def _known(pairs: Sequence[Sequence[float]]) -> SeedNoise:
    return noise_of(pairs) if pairs else SeedNoise(0.0, 0.0, 0)
