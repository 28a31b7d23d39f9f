"""How far a metric moves without meaning anything, before the log knows its seed noise."""

from __future__ import annotations

import math

from pytest_ftloop.metrics import METRICS, split_name

RATES = frozenset({"pass_rate", "token_accuracy"})


def noise(metric: str, value: float) -> float:
    """Half a point of a rate, 1% of any other figure (0.01 nats of a gap, which may be near 0)."""
    name = split_name(metric)[0]
    if name in RATES:
        return 0.005
    return 0.01 if name == "overfit_gap" else 0.01 * abs(value)


def better_beyond_noise(metric: str, new: float, old: float) -> bool:
    """Whether `new` is better than `old` by more than noise; any figure is better than NaN."""
    if math.isnan(old):
        return not math.isnan(new)
    improved = METRICS[split_name(metric)[0]].improved(new, old)
    return improved and abs(new - old) > noise(metric, old)
