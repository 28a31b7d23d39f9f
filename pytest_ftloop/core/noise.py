"""Seed noise: how much a figure varies with the training seed alone. Computed only here.

There are two quantities:

- The **measured** seed noise (`SeedNoise.sd`) is the standard deviation of a run's figure within
  A/A groups (runs that differ in the seed only), pooled over the log. Reports print this one; the
  gate's note also states the assumed one.
- The **assumed** seed noise (`shrunk`) is the measured variance shrunk towards a prior, because a
  few runs may agree by chance. Decisions use this one: the gate with its own prior, the policy and
  the diagnosis through `least_change`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from pytest_ftloop.core.metrics import METRICS, is_rate, metric_of, split_name
from pytest_ftloop.core.runs import (
    Measured,
    distinct,
    has_figure,
    mean_of,
    require_finite,
    variance_of,
)

OF_A_RATE, OF_A_GAP = 0.005, 0.01
"""The least change of rates and gaps without seed runs: half a percentage point, 0.01 nats."""

SHARE = 0.01
"""The least change of all other metrics without seed runs, relative to the figure."""

PRIOR_DF = 2
"""Weight of these, in degrees of freedom, as in the gate: if two seeds happen to agree, not every
change may become significant."""


@dataclass(frozen=True)
class SeedNoise:
    """The seed noise of one figure, measured over A/A groups.

    `df` are the degrees of freedom: the runs beyond the first of each group. `variance` is that of
    a run's figure (in its unit squared), and `interaction` is 0. From the values of examples,
    `variance` is an unbiased estimate for a run's true mean, so it may be below 0, and
    `interaction` is the pooled mean square of seed x example.
    """

    variance: float
    interaction: float
    df: int

    @property
    def sd(self) -> float:
        """The standard deviation, in the figure's unit."""
        return math.sqrt(max(self.variance, 0.0))


UNMEASURED: Mapping[str, SeedNoise] = MappingProxyType({})
"""The measured noise of a log without seed runs."""


@dataclass(frozen=True)
class Prior:
    """The standard deviation expected before any measurement, with a weight of `df` runs."""

    tau: float
    df: float


@dataclass(frozen=True)
class Replicates:
    """An A/A group: k runs with the same settings and different seeds, on n common examples.

    `run_variance` is the variance of the k run means, `interaction` the mean square of seed x
    example. For one run (k = 1) both are 0.
    """

    k: int
    n: int
    run_variance: float
    interaction: float


# --- measured ------------------------------------------------------------------------------------


def measured_noise(groups: Iterable[Sequence[Measured]]) -> dict[str, SeedNoise]:
    """The measured seed noise by metric, from a log's A/A groups (`groups_of`).

    A metric of which no group has two figures is left out, so the result is empty without seed
    runs. NaN and infinite figures are ignored.
    """
    groups = list(groups)
    known = {split_name(name)[0] for group in groups for run in group for name in run.metrics}
    names = (*METRICS, *sorted(known - METRICS.keys()))
    measured = {name: noise_of(_figures(name, groups)) for name in names}
    return {name: noise for name, noise in measured.items() if noise.df}


def noise_of(groups: Iterable[Sequence[float]]) -> SeedNoise:
    """The measured seed noise of one figure, from its values in each A/A group.

    ValueError for NaN, infinity or an empty group.
    """
    return pool(replicates([[value] for value in group]) for group in groups)


def replicates(runs: Sequence[Sequence[float]]) -> Replicates:
    """An A/A group from its values (k, n): a row per run, a column per example.

    The interaction is the residual mean square of the two-way table without replication, with
    (k-1)(n-1) degrees of freedom. It is 0 for one example, where it can't be separated from the
    seed noise. ValueError for no run, rows of different length, NaN or infinity.
    """
    k, n = len(runs), len(runs[0]) if runs else 0
    if any(len(run) != n for run in runs):
        raise ValueError(f"wanted runs on the same examples, found {[len(run) for run in runs]}")
    for run in runs or [[]]:
        require_finite(run)
    if k == 1:
        return Replicates(k, n, 0.0, 0.0)
    run_means = [mean_of(run) for run in runs]
    if n == 1:
        return Replicates(k, n, variance_of(run_means), 0.0)
    overall = mean_of(run_means)
    squares: list[float] = []
    for example in zip(*runs, strict=True):
        centre = mean_of(example) - overall
        residuals = [value - mean - centre for value, mean in zip(example, run_means, strict=True)]
        squares += [residual * residual for residual in residuals]
    return Replicates(k, n, variance_of(run_means), math.fsum(squares) / ((k - 1) * (n - 1)))


def pool(groups: Iterable[Replicates]) -> SeedNoise:
    """The seed noise of all A/A groups, each weighted with its k - 1; zeros for no replicates.

    A run mean also varies with its own seed x example interaction, MS / n. It is subtracted here,
    because the examples' differences bring it into the gate's test.
    """
    told = [group for group in groups if group.k > 1]
    nu = sum(group.k - 1 for group in told)
    if not nu:
        return SeedNoise(0.0, 0.0, 0)
    variance = math.fsum((g.k - 1) * (g.run_variance - g.interaction / g.n) for g in told) / nu
    interaction = math.fsum((g.k - 1) * g.interaction for g in told) / nu
    return SeedNoise(variance, interaction, nu)


def _figures(metric: str, groups: Iterable[Sequence[Measured]]) -> list[list[float]]:
    """The finite figures of each group that has one."""
    having = ([run for run in group if has_figure(run, metric)] for group in groups)
    return [[run.metrics[metric] for run in group] for group in distinct(filter(None, having))]


# --- assumed -------------------------------------------------------------------------------------


def shrunk(noise: SeedNoise, prior: Prior) -> float:
    """The assumed variance: measured and prior, weighted by degrees of freedom (Smyth 2004)."""
    total = prior.df + noise.df
    return (prior.df * prior.tau * prior.tau + noise.df * max(noise.variance, 0.0)) / total


def least_change(
    metric: str, value: float, measured: Mapping[str, SeedNoise] = UNMEASURED
) -> float:
    """How far `metric` has to be from `value` to be more than noise.

    This is the assumed standard deviation of the difference between two runs. The noise of a tag's
    figure is never measured, and that of the whole set would understate it.
    """
    gap = split_name(metric)[0] == "overfit_gap"
    prior = OF_A_GAP if gap else OF_A_RATE if is_rate(metric) else SHARE * abs(value)
    noise = measured.get(metric)
    if noise is None:
        return prior
    of_difference = replace(noise, variance=2 * noise.variance)
    return math.sqrt(shrunk(of_difference, Prior(prior, PRIOR_DF)))


def better_beyond_noise(
    metric: str,
    new: float,
    old: float,
    measured: Mapping[str, SeedNoise] = UNMEASURED,
) -> bool:
    """Whether `new` is better than `old` by more than `least_change`; any figure beats NaN."""
    if math.isnan(old):
        return not math.isnan(new)
    improved = metric_of(metric).improved(new, old)
    return improved and abs(new - old) > least_change(metric, old, measured)
