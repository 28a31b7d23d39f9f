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


FIRST_STEPS = 20
"""A log that begins within as many still shows the start: trl logs every 10 steps by default."""

LEARNED = 0.05
"""Share of the loss that must have moved for a run to have learned anything."""


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


def train_since(e: Evidence, step: int) -> tuple[float, float, float] | None:
    """The mean train loss up to `step`, the mean at the end, and the standard error between them.

    Where the losses of the train sample in eval mode are known at both places, these: they are
    exact, and half a percent is taken for their error. None where there is no loss before or after.
    """
    if e.measured_train and step == e.best_step < e.steps[-1].step:
        best, last = (of.get("train_loss", math.nan) for of in (e.metrics, e.final))
        if math.isfinite(best) and math.isfinite(last):
            return best, last, 0.005 * best
    losses = finite_losses(e)
    before = [s.loss for s in e.steps if s.step <= step and math.isfinite(s.loss)]
    since = [s.loss for s in e.steps if s.step > step and math.isfinite(s.loss)]
    if not before or not since:
        return None
    window = min(window_size(losses), len(before), len(since))
    error = batch_noise(losses) * math.sqrt(2 / window)
    return fmean(before[-window:]), fmean(since[-window:]), error


def moved(e: Evidence) -> bool:
    """Whether the train loss moved by over 10% and 5 standard errors, or the eval loss by over 5%.

    Something did learn then, whatever the log says of gradient and learning rate.
    """
    if eval_is_finite(e) and span([loss for _, loss in e.eval_curve]) > LEARNED:
        return True
    losses = finite_losses(e)
    if len(losses) < 10:
        return False
    window = window_size(losses)
    head, tail = fmean(losses[:window]), fmean(losses[-window:])
    return abs(head - tail) > max(0.1 * head, 5 * batch_noise(losses) * math.sqrt(2 / window))


def span(losses: Sequence[float]) -> float:
    """How far the highest is above the lowest, as a share of the lowest; 0 for fewer than two."""
    lowest = min(losses, default=0.0)
    return max(losses) / lowest - 1 if lowest > 0 else 0.0


def swings(losses: Sequence[float]) -> int:
    """Peaks, of one point or more, by over 5% and 0.05 nats above the lows on both sides."""
    found, low, top = 0, math.inf, -math.inf
    for loss in losses:
        if top < low:
            low = min(low, loss)
            top = loss if loss - low > _swing(loss) else top
        else:
            top = max(top, loss)
            if top - loss > _swing(top):
                found, low, top = found + 1, loss, -math.inf
    return found


def _swing(top: float) -> float:
    return max(0.05, 0.05 * top)
