"""Means over windows of a run's steps, and their noise: the arithmetic of the rules on curves.

A train loss is the mean of one noisy batch, so only means over windows of steps are compared. The
standard error of a window is estimated from the jumps between neighbouring steps, by their median,
so that neither a trend nor a spike inflates it. In the log of another trainer a step is a logged
entry, which is the mean over the steps since the last entry: fewer and calmer values, but the same
arithmetic.
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
"""Latest step at which a log may begin and still show the start of the run: trl logs every 10 steps
by default."""

LEARNED_SHARE = 0.05
"""Smallest relative change of a loss that counts as learning. Measured runs at a learning rate 200
times too low stay below it."""


def nats(loss: float) -> str:
    """A loss as it is written in messages: with three decimals, or two digits if it is small."""
    return f"{loss:.3f}" if abs(loss) >= 0.01 else f"{loss:.2g}"


def finite_losses(e: Evidence) -> list[float]:
    """The train losses that are neither NaN nor infinite."""
    return [step.loss for step in e.steps if math.isfinite(step.loss)]


def eval_is_finite(e: Evidence) -> bool:
    """Whether every evaluation point has a finite loss; True if there is none."""
    return all(math.isfinite(point.eval_loss) for point in e.evals)


def window_size(losses: Sequence[float]) -> int:
    """The size of a window: a tenth of the run, 3 to 10 steps."""
    return max(3, min(10, len(losses) // 10))


def stride(e: Evidence) -> int:
    """Steps from one logged train loss to the next, by the median; 1 if there are fewer than 2."""
    steps = [entry.step for entry in e.steps]
    return max(1, round(median(new - old for old, new in pairwise(steps)))) if steps[1:] else 1


def window_of_steps(e: Evidence) -> int:
    """The entries in a window of the log: as `window_size`, but they span at most some 10 steps.

    An entry of a coarse log is a mean already. A window of several such entries would span so much
    of the run that what happened in it is lost.
    """
    return max(1, min(window_size(finite_losses(e)), round(10 / stride(e))))


def window_means(losses: Sequence[float], size: int) -> list[float]:
    """The geometric mean of each `size` neighbouring steps, which one odd batch hardly raises."""
    logs = [math.log(max(loss, 1e-6)) for loss in losses]
    count = max(1, len(logs) - size + 1)
    return [math.exp(fmean(logs[i : i + size])) for i in range(count)] if logs else []


def tail_mean(losses: Sequence[float]) -> float:
    """The mean of the last window; NaN without a loss."""
    return fmean(losses[-window_size(losses) :]) if losses else math.nan


def last_quarters(losses: Sequence[float]) -> tuple[float, float]:
    """The means of the third quarter and of the last one, of at least 4 steps."""
    quarter = len(losses) // 4
    return fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])


def quarter_error(losses: Sequence[float]) -> float:
    """The standard error of the difference between the means of two quarters."""
    return batch_noise(losses) * math.sqrt(2 / (len(losses) // 4))


def batch_noise(losses: Sequence[float]) -> float:
    """The standard deviation of one batch's loss; infinity for fewer than two.

    It is estimated by the median jump between neighbours, and by the median bend, which a trend
    leaves at 0; the smaller one counts. In a log of a dozen entries a single step up spoils most
    bends, and a trend all jumps.
    """
    if len(losses) < 2:
        return math.inf
    jumps = [new - old for old, new in pairwise(losses)]
    bends = [new - old for old, new in pairwise(jumps)]
    # 1.4826: of a normal distribution, the standard deviation over the median absolute deviation;
    # a jump is the difference of two batches, and a bend has one batch once, twice and once.
    by_jumps = 1.4826 * median(map(abs, jumps)) / math.sqrt(2)
    if len(bends) < 4:
        return by_jumps
    return min(by_jumps, 1.4826 * median(map(abs, bends)) / math.sqrt(6))


def relative_noise(losses: Sequence[float]) -> float:
    """`batch_noise` of the log of the losses, as the noise grows with the loss."""
    return batch_noise([math.log(max(loss, 1e-6)) for loss in losses])


def at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """The eval loss at `step`, interpolated between points; before the first point, that one's."""
    earlier = curve[0]
    for point in curve:
        if point[0] >= step:
            span = point[0] - earlier[0]
            share = (step - earlier[0]) / span if span else 1.0
            return earlier[1] + max(share, 0.0) * (point[1] - earlier[1])
        earlier = point
    return earlier[1]


def measured_before(curve: Sequence[tuple[int, float]], step: float) -> tuple[int, float]:
    """The last point up to a step, or the first: a finding states no interpolated figure."""
    return max((point for point in curve if point[0] <= step), default=curve[0])


def train_since(e: Evidence, step: int) -> tuple[float, float, float] | None:
    """The mean train loss up to `step`, that since, and the standard error of the difference.

    The former is of the last steps before, the latter that of all steps since or of the last ones,
    whichever is higher. If the train sample was measured in eval mode at both places, these losses
    are returned, with an error of half a percent: they are exact. None without a loss before or
    after.
    """
    if e.measured_train and step == e.best_step < e.steps[-1].step:
        best, last = (of.get("train_loss", math.nan) for of in (e.metrics, e.final))
        if math.isfinite(best) and math.isfinite(last):
            return best, last, 0.005 * best
    losses = finite_losses(e)
    before = [s.loss for s in e.steps if s.step <= step and math.isfinite(s.loss)]
    since = [s.loss for s in e.steps if s.step > step and math.isfinite(s.loss)]
    if not before:  # the first entry is a mean over the steps up to it, so it covers `step` too
        before, since = since[:1], since[1:]
    if not before or not since:
        return None
    window = min(window_of_steps(e), len(before), len(since))
    error = batch_noise(losses) * math.sqrt(2 / window)
    return fmean(before[-window:]), max(fmean(since), fmean(since[-window:])), error


def moved(e: Evidence) -> bool:
    """Whether the train loss moved by over 10% and 5 standard errors, or the eval loss by over 5%.

    Then the model did learn, whatever gradient and learning rate were logged.
    """
    if eval_is_finite(e) and span([loss for _, loss in e.eval_curve]) > LEARNED_SHARE:
        return True
    losses = finite_losses(e)
    if len(losses) < 10:
        return False
    window = window_size(losses)
    head, tail = fmean(losses[:window]), fmean(losses[-window:])
    return abs(head - tail) > max(0.1 * head, 5 * batch_noise(losses) * math.sqrt(2 / window))


def span(losses: Sequence[float]) -> float:
    """The highest loss over the lowest, less 1; 0 for fewer than two."""
    lowest = min(losses, default=0.0)
    return max(losses) / lowest - 1 if lowest > 0 else 0.0


def swings(losses: Sequence[float]) -> int:
    """The number of peaks, of one point or more, over 5% and 0.05 nats above the lows around."""
    # `low` is the lowest loss since the last peak, `top` the height of a peak that is not over yet.
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
