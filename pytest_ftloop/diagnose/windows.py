"""Means of a run's steps, and how noisy they are: what the rules on curves are reckoned with.

A train loss is the mean of one noisy batch, so only means of windows of steps are compared, and a
window's standard error is judged by the step-to-step jumps: their median, so that neither a trend
nor a spike inflates it. In a log of another trainer a step is a logged entry, the mean of as many
steps as were taken since the one before: fewer, calmer values, of which the same holds.
"""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.diagnose.evidence import Evidence


def finite_losses(e: Evidence) -> list[float]:
    """The train losses, without those that are NaN or infinite."""
    return [step.loss for step in e.steps if math.isfinite(step.loss)]


def eval_is_finite(e: Evidence) -> bool:
    """Whether every evaluation point has a finite loss; also where there is none."""
    return all(math.isfinite(point.eval_loss) for point in e.evals)


def window_size(losses: Sequence[float]) -> int:
    """A tenth of the run, 3 to 10 steps."""
    return max(3, min(10, len(losses) // 10))


def window_means(losses: Sequence[float], size: int) -> list[float]:
    """Mean of each run of `size` steps, of the logs: one odd batch does not lift it far."""
    logs = [math.log(max(loss, 1e-6)) for loss in losses]
    count = max(1, len(logs) - size + 1)
    return [math.exp(fmean(logs[i : i + size])) for i in range(count)] if logs else []


def tail_mean(losses: Sequence[float]) -> float:
    """Mean of the last window; NaN without a loss."""
    return fmean(losses[-window_size(losses) :]) if losses else math.nan


def last_quarters(losses: Sequence[float]) -> tuple[float, float]:
    """Means of the third and of the last quarter of at least 4 steps."""
    quarter = len(losses) // 4
    return fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])


def quarter_error(losses: Sequence[float]) -> float:
    """Standard error of the difference of two quarters' means."""
    return batch_noise(losses) * math.sqrt(2 / (len(losses) // 4))


def batch_noise(losses: Sequence[float]) -> float:
    """Standard deviation of one batch's loss, from the median jump between neighbours."""
    if len(losses) < 2:
        return math.inf
    return 1.4826 * median(abs(new - old) for old, new in pairwise(losses)) / math.sqrt(2)


def relative_noise(losses: Sequence[float]) -> float:
    """The same of the loss's log: batch noise grows with the loss."""
    return batch_noise([math.log(max(loss, 1e-6)) for loss in losses])


def at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """The eval loss at `step`, interpolated; that of the first point for earlier steps."""
    earlier = curve[0]
    for point in curve:
        if point[0] >= step:
            span = point[0] - earlier[0]
            share = (step - earlier[0]) / span if span else 1.0
            return earlier[1] + max(share, 0.0) * (point[1] - earlier[1])
        earlier = point
    return earlier[1]
