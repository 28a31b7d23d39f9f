"""How much a metric varies by chance: measured from the log's seed runs, or else assumed.

Noise is relative to the figure for losses, and absolute for rates and gaps, which may be near 0.
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
"""Assumed noise of metrics with absolute noise: half a percentage point, 0.01 nats."""

SHARE = 0.01
"""Assumed noise of all other metrics, relative to the figure."""

PRIOR_DF = 2
"""Weight of the assumed noise, in degrees of freedom, as in the gate: if two seeds happen to agree,
not every change may become significant."""

UNMEASURED: Mapping[str, float] = MappingProxyType({})
"""The measured noise of a log without seed runs."""


def noise(metric: str, value: float, measured: Mapping[str, float] = UNMEASURED) -> float:
    """The noise of `metric` at `value`; `measured` is the result of `run_noise`."""
    name = split_name(metric)[0]
    # The noise of the whole set says too little about one tag, whose own is never measured.
    found = measured.get(metric, _assumed(name))
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
    """By metric, the standard deviation of the difference between two runs with equal settings.

    It is pooled over all A/A groups (runs that differ in the seed only), each weighted with its
    number of seeds minus one, and shrunk towards the assumed noise. A metric that no group has is
    left out, so the result is empty without seed runs. NaN and infinite figures are ignored.
    """
    groups = groups_of(iterations, seed_runs)
    measured = {}
    for name in METRICS:
        found_in = [found for group in groups if (found := _variance(name, group))]
        if found_in:
            df = PRIOR_DF + sum(count for _, count in found_in)
            squares = [2 * variance * count for variance, count in found_in]
            measured[name] = math.sqrt((PRIOR_DF * _assumed(name) ** 2 + sum(squares)) / df)
    return measured


def _assumed(name: str) -> float:
    return ABSOLUTE.get(name, SHARE)


def _variance(name: str, group: Sequence[Measured]) -> tuple[float, int] | None:
    """The variance of a figure over a group's seeds, and its degrees of freedom."""
    values = [v for run in group if is_figure(v := run.metrics.get(name, math.nan))]
    mean = math.fsum(values) / len(values) if values else 0.0
    unit = 1.0 if name in ABSOLUTE else abs(mean)
    if len(values) < 2 or not unit:
        return None
    return math.fsum(((v - mean) / unit) ** 2 for v in values) / (len(values) - 1), len(values) - 1
