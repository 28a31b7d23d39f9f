"""How far the training seed alone moves a figure, where the log knows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from pytest_ftloop.core.records import Iteration, SeedRun
from pytest_ftloop.core.runs import Measured, groups_of, in_environment, runs_of


@dataclass(frozen=True)
class Spread:
    """A figure's mean and standard deviation over seeds; `values` are those of its own runs.

    With one run alone (`is_borrowed`) the figure stands for the mean, and the standard deviation is
    that of the loop's other iterations, pooled.
    """

    mean: float
    sd: float
    values: tuple[float, ...]

    @property
    def is_borrowed(self) -> bool:
        """Whether the noise is that of other iterations."""
        return len(self.values) < 2


def spreads(
    metric: str,
    wanted: Sequence[Iteration],
    iterations: Sequence[Iteration],
    seed_runs: Sequence[SeedRun],
) -> tuple[Spread | None, ...]:
    """Each wanted iteration's spread; None where no noise is known, or the figure is not finite."""
    pooled = pooled_sd(metric, groups_of(iterations, seed_runs))

    def spread(iteration: Iteration) -> Spread | None:
        runs = in_environment(runs_of(iteration, iterations, seed_runs), iteration.environment)
        values = _values(metric, runs)
        if len(values) > 1:
            return Spread(mean(values), stdev(values), values)
        return Spread(values[0], pooled, values) if values and pooled is not None else None

    return tuple(map(spread, wanted))


def pooled_sd(metric: str, groups: Sequence[Sequence[Measured]]) -> float | None:
    """The standard deviation within the groups of runs that differ by their seed only.

    Each group counts by its degrees of freedom. None where there is no group.
    """
    known = [values for group in groups if len(values := _values(metric, group)) > 1]
    degrees = sum(len(values) - 1 for values in known)
    if not degrees:
        return None
    return math.sqrt(sum(stdev(v) ** 2 * (len(v) - 1) for v in known) / degrees)


def _values(metric: str, runs: Sequence[Measured]) -> tuple[float, ...]:
    values = (run.metrics.get(metric, math.nan) for run in runs)
    return tuple(value for value in values if math.isfinite(value))
