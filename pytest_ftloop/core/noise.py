"""How far a metric moves without meaning anything: measured by the log's seed runs, else believed.

As a share of the figure for a loss, and as it is for a rate and for a gap, which may be near 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import METRICS, split_name
from pytest_ftloop.core.runs import Measured, groups_of, is_figure

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration, SeedRun

ABSOLUTE: Mapping[str, float] = {"pass_rate": 0.005, "token_accuracy": 0.005, "overfit_gap": 0.01}
"""What is believed of the metrics that are not measured in shares: half a point, 0.01 nats."""

SHARE = 0.01
"""What is believed of all others: 1% of the figure."""

PRIOR_DF = 2
"""Degrees of freedom that the belief is worth, as in the gate: two seeds that happen to agree must
not make every change a meaningful one."""

UNMEASURED: Mapping[str, float] = MappingProxyType({})


def noise(metric: str, value: float, measured: Mapping[str, float] = UNMEASURED) -> float:
    """How far `metric` moves by chance at `value`; `measured` is what `run_noise` gave."""
    name = split_name(metric)[0]
    # The whole set's noise says too little of one tag's examples: of those nothing is measured.
    found = measured.get(metric, _believed(name))
    return found if name in ABSOLUTE else found * abs(value)


def better_beyond_noise(
    metric: str, new: float, old: float, measured: Mapping[str, float] = UNMEASURED
) -> bool:
    """Whether `new` is better than `old` by more than noise; any figure is better than NaN."""
    if math.isnan(old):
        return not math.isnan(new)
    improved = METRICS[split_name(metric)[0]].improved(new, old)
    return improved and abs(new - old) > noise(metric, old, measured)


def run_noise(iterations: Iterable[Iteration], seed_runs: Iterable[SeedRun]) -> dict[str, float]:
    """By metric, how far two runs of equal settings lie apart: the seed alone moved them.

    The standard deviation of such a difference, over all A/A groups (runs that differ in the seed),
    each weighted with its seeds less one and shrunk to the belief. A metric that no group has is
    left out, so without seed runs it is empty. Figures that are NaN or infinite don't count.
    """
    groups = groups_of(iterations, seed_runs)
    measured = {}
    for name in METRICS:
        told = [found for group in groups if (found := _variance(name, group))]
        if told:
            df = PRIOR_DF + sum(count for _, count in told)
            squares = [2 * variance * count for variance, count in told]
            measured[name] = math.sqrt((PRIOR_DF * _believed(name) ** 2 + sum(squares)) / df)
    return measured


def _believed(name: str) -> float:
    return ABSOLUTE.get(name, SHARE)


def _variance(name: str, group: Sequence[Measured]) -> tuple[float, int] | None:
    """Variance of a figure over a group's seeds, in its own measure, and its degrees of freedom."""
    values = [v for run in group if is_figure(v := run.metrics.get(name, math.nan))]
    mean = math.fsum(values) / len(values) if values else 0.0
    unit = 1.0 if name in ABSOLUTE else abs(mean)
    if len(values) < 2 or not unit:
        return None
    return math.fsum(((v - mean) / unit) ** 2 for v in values) / (len(values) - 1), len(values) - 1
