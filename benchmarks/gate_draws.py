"""Simulated runs for gate.py, as sufficient statistics.

The loss: per example log-normal with mean 1 and sd 0.7; a run adds a shift common to all examples
(the seed noise) and an interaction of seed and example, sd 0.15, in proportion to the example's
loss; a regression multiplies the candidate's losses. The pass rate: logits of the examples
N(1.7, 3^2), so that 69% pass; a run adds a shift to every logit (a seed noise in points, to first
order) and passes each example with its probability anew, so that 20% of the examples flip between
two runs; a regression lowers every logit.

Shapes: T trials, k or P runs, n examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_ftloop.core.noise import Replicates

Array = NDArray[Any]
Metric = Literal["loss", "rate"]

SEED = 20240601
NOISES = (0.0, 0.005, 0.01, 0.02, 0.04)
RATE_EFFECTS = (0.03, 0.05, 0.10)
SIDE, PAIRS, RATE_PAIRS, CALIBRATION = 3, 16, 8, 5
"""Runs per side of a comparison; A/A pairs of the loss and of the rate; seeds of a calibration."""
ROWS = 400_000
"""Examples drawn at a time, over trials."""


class Draws(Protocol):
    """Simulated runs of one eval set size, as sufficient statistics."""

    @property
    def n(self) -> int: ...
    @property
    def metric(self) -> Metric: ...

    def comparison(self, noise: float, effect: float) -> Comparison:
        """The runs to compare; `effect` of the candidate, as a share of the loss or of all."""

    def log(self, noise: float, kept: str) -> list[list[Replicates]]:
        """The A/A groups in each trial's log."""


@dataclass(frozen=True)
class Comparison:
    """Three baseline runs, then three candidate runs, on n common examples; higher is worse."""

    n: int
    means: Array  # (T, 6)
    covariances: Array  # (T, 6, 6) over examples

    def differences(self, k_baseline: int, k_candidate: int) -> tuple[Array, Array]:
        """Mean and variance of the examples' differences, each (T,)."""
        weights = np.zeros(2 * SIDE)
        weights[:k_baseline] = -1 / k_baseline
        weights[SIDE : SIDE + k_candidate] = 1 / k_candidate
        return self.means @ weights, np.einsum("i,tij,j->t", weights, self.covariances, weights)

    def replicates(self, first: int, k: int) -> list[list[Replicates]]:
        """The runs from `first`, as an A/A group of each trial; none for a single run."""
        if k == 1:
            return [[] for _ in self.means]
        side = slice(first, first + k)
        return [
            [group]
            for group in groups(self.n, self.means[:, side], self.covariances[:, side, side])
        ]


def groups(n: int, means: Array, covariances: Array) -> list[Replicates]:
    """An A/A group per trial, from its runs' means (T, k) and covariances (T, k, k)."""
    k = means.shape[1]
    within = np.einsum("tii->t", covariances) - covariances.sum((1, 2)) / k
    return [
        Replicates(k, n, v, ms)
        for v, ms in zip(means.var(1, ddof=1).tolist(), (within / (k - 1)).tolist(), strict=True)
    ]


def pair_groups(n: int, means: Array, variances: Array) -> list[list[Replicates]]:
    """Each trial's A/A pairs, from the mean and variance of each pair's differences, (T, P)."""
    return [
        [Replicates(2, n, m * m / 2, v / 2) for m, v in zip(*pairs, strict=True)]
        for pairs in zip(means.tolist(), variances.tolist(), strict=True)
    ]


def moments(values: Array) -> tuple[Array, Array]:
    """Means (T, k) and covariances (T, k, k) over the examples of values (T, k, n)."""
    means = values.mean(2, dtype=np.float64)
    centred = values - means[:, :, None]
    return means, centred @ centred.transpose(0, 2, 1) / (values.shape[2] - 1)


def chunks(trials: int, n: int) -> Iterator[int]:
    """Numbers of trials to draw at a time, so that memory stays small."""
    size = max(1, ROWS // n)
    while trials > 0:
        yield min(size, trials)
        trials -= size


@dataclass(frozen=True)
class LossDraws:
    """Runs without any shift, and standard normal shifts for any seed noise. Mean loss 1."""

    n: int
    means: Array  # (T, 6)
    covariances: Array  # (T, 6, 6)
    calibration: tuple[Array, Array]  # means (T, 5), covariances (T, 5, 5)
    pairs: tuple[Array, Array]  # of the differences: means (T, 16), variances (T, 16)
    shifts: Array  # (T, 6 + 5 + 16)
    metric: Metric = "loss"

    SPREAD, INTERACTION = math.sqrt(math.log(1 + 0.7**2)), 0.15

    @classmethod
    def of(cls, n: int, trials: int) -> LossDraws:
        """Draw all runs of all trials."""
        rng = np.random.default_rng([SEED, 0, n])
        parts = [cls._chunk(rng, size, n) for size in chunks(trials, n)]
        of_runs, covariances, of_pairs, variances = map(np.concatenate, zip(*parts, strict=True))
        ours, theirs = slice(2 * SIDE), slice(2 * SIDE, None)
        return cls(
            n,
            of_runs[:, ours],
            covariances[:, ours, ours],
            (of_runs[:, theirs], covariances[:, theirs, theirs]),
            (of_pairs, variances),
            rng.standard_normal((trials, 2 * SIDE + CALIBRATION + PAIRS)),
        )

    @classmethod
    def _chunk(cls, rng: np.random.Generator, size: int, n: int) -> tuple[Array, ...]:
        normal = rng.standard_normal((size, 1, n))
        levels = np.exp(cls.SPREAD * normal - cls.SPREAD**2 / 2)
        interaction = levels * (cls.INTERACTION / math.exp(cls.SPREAD**2 / 2))
        runs = rng.standard_normal((size, 2 * SIDE + CALIBRATION, n)) * interaction + levels
        # The difference of two normals is one normal.
        pairs = rng.standard_normal((size, PAIRS, n)) * (math.sqrt(2) * interaction)
        return *moments(runs), pairs.mean(2), pairs.var(2, ddof=1)

    def comparison(self, noise: float, effect: float) -> Comparison:
        factors = np.repeat([1.0, 1.0 + effect], SIDE)
        means = (self.means + noise * self.shifts[:, : 2 * SIDE]) * factors
        return Comparison(self.n, means, self.covariances * factors * factors[:, None])

    def log(self, noise: float, kept: str) -> list[list[Replicates]]:
        shifts = noise * self.shifts[:, 2 * SIDE :]
        if kept == "5 seeds":
            means, covariances = self.calibration
            return [
                [group] for group in groups(self.n, means + shifts[:, :CALIBRATION], covariances)
            ]
        count = pairs_in(kept)
        means, variances = (of_pairs[:, :count] for of_pairs in self.pairs)
        apart = math.sqrt(2) * shifts[:, CALIBRATION : CALIBRATION + count]
        return pair_groups(self.n, means + apart, variances)


@dataclass(frozen=True)
class RateDraws:
    """Failures (1 - pass) by seed noise and effect: a shift of logits can't be added later."""

    n: int
    comparisons: dict[tuple[float, float], Comparison]
    pairs: dict[float, tuple[Array, Array]]
    metric: Metric = "rate"

    CENTRE, SPREAD = 1.7, 3.0

    @classmethod
    def of(cls, n: int, trials: int) -> RateDraws:
        """Draw all runs of all trials."""
        rng = np.random.default_rng([SEED, 1, n])
        parts = [cls._chunk(rng, size, n) for size in chunks(trials, n)]
        joined = {
            key: tuple(map(np.concatenate, zip(*(part[key] for part in parts), strict=True)))
            for key in parts[0]
        }
        comparisons = {key: Comparison(n, *joined[key]) for key in joined if isinstance(key, tuple)}
        pairs = {noise: (joined[noise][0], joined[noise][1]) for noise in NOISES}
        return cls(n, comparisons, pairs)

    @classmethod
    def _chunk(cls, rng: np.random.Generator, size: int, n: int) -> dict[Any, tuple[Array, ...]]:
        runs = 2 * SIDE + 2 * RATE_PAIRS
        logits = rng.standard_normal((size, 1, n), np.float32) * cls.SPREAD + cls.CENTRE
        uniform = rng.random((size, runs, n), np.float32).clip(1e-7, 1 - 1e-7)
        # Passed with probability sigmoid(logit): where the logit is above logistic noise.
        margins = logits - np.log(uniform / (1 - uniform))
        shifts = rng.standard_normal((size, runs, 1), np.float32) / slope()
        out: dict[Any, tuple[Array, ...]] = {}
        for noise in NOISES:
            failed = margins[:, 2 * SIDE :] < noise * shifts[:, 2 * SIDE :]
            apart = failed[:, ::2].astype(np.int8) - failed[:, 1::2]
            means = apart.mean(2)
            flips = np.count_nonzero(apart, axis=2)
            out[noise] = means, (flips - n * means**2) / (n - 1)
            for effect in (0.0, *RATE_EFFECTS):
                fall = np.repeat([0.0, logit_fall(effect)], SIDE)[:, None]
                ours = margins[:, : 2 * SIDE] < noise * shifts[:, : 2 * SIDE] + fall
                out[noise, effect] = moments(ours.astype(np.float32))
        return out

    def comparison(self, noise: float, effect: float) -> Comparison:
        return self.comparisons[noise, effect]

    def log(self, noise: float, kept: str) -> list[list[Replicates]]:
        means, variances = (of_pairs[:, : pairs_in(kept)] for of_pairs in self.pairs[noise])
        return pair_groups(self.n, means, variances)


def pairs_in(kept: str) -> int:
    return 0 if kept == "none" else int(kept.split()[0])


@cache
def population() -> Array:
    """Logits of the examples, at evenly spaced ranks."""
    normal = NormalDist(RateDraws.CENTRE, RateDraws.SPREAD)
    return np.array([normal.inv_cdf((i + 0.5) / 4000) for i in range(4000)])


def pass_rate(fall: float) -> float:
    return float(np.mean(1 / (1 + np.exp(fall - population()))))


@cache
def slope() -> float:
    """Pass rate lost per logit, at first."""
    return (pass_rate(0) - pass_rate(1e-4)) / 1e-4


@cache
def logit_fall(drop: float) -> float:
    """The fall of every logit that lowers the pass rate by `drop`."""
    low, high = 0.0, 5.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if pass_rate(0) - pass_rate(middle) < drop else (low, middle)
    return low
