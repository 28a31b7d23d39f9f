"""An iteration's figures with the measured seed noise around them, for the page's bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import Iteration, SeedRun
from pytest_ftloop.core.runs import groups_of, has_figure, in_environment, mean_of, runs_of


@dataclass(frozen=True)
class Spread:
    """A figure's mean over the iteration's own runs, whose `values` these are.

    `sd` is the measured seed noise of the figure, the same for every iteration of the log.
    """

    mean: float
    sd: float
    values: tuple[float, ...]


def spreads(
    metric: str,
    wanted: Sequence[Iteration],
    iterations: Sequence[Iteration],
    seed_runs: Sequence[SeedRun],
) -> tuple[Spread | None, ...]:
    """Each wanted iteration's spread; None where no noise is measured, or it has no figure.

    The untrained base has none: there is no seed that it was trained with.
    """
    noise = measured_noise(groups_of(iterations, seed_runs)).get(metric)

    def spread(iteration: Iteration) -> Spread | None:
        if iteration.is_untrained:
            return None
        runs = in_environment(runs_of(iteration, iterations, seed_runs), iteration.environment)
        values = tuple(run.metrics[metric] for run in runs if has_figure(run, metric))
        return Spread(mean_of(values), noise.sd, values) if noise and values else None

    return tuple(map(spread, wanted))
