"""The gap between train and eval loss: whether it is one of rows that were learned by heart."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.noise import least_change
from pytest_ftloop.diagnose.windows import (
    FIRST_STEPS,
    at,
    finite_losses,
    relative_noise,
    span,
    train_since,
)

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.evidence import Evidence

STEADY_SHARE = 0.04
"""Largest span of eval losses, relative to the lowest, that still counts as steady: what jitters
more may fall as much at the next point."""


def is_wide(e: Evidence, gap: float, train_loss: float) -> bool:
    """Whether a gap, after two points or more, is too wide for noise or another distribution."""
    noise = least_change("overfit_gap", gap, e.seed_noise)
    points = sum(point.step > 0 for point in e.evals)
    return points >= 2 and gap > max(0.1, 0.25 * train_loss, noise)


def is_flat(e: Evidence, gap: float) -> bool:
    """Whether the eval loss hardly falls any more: what else is learned, is learned by heart.

    Of our own runs, whose gap is measured, in the last quarter by at most 2%, 0.01 nats or a tenth
    of the gap. A logged train loss is a mean over an epoch, in train mode, and its gap may be one
    between the sets. So another trainer's run has to be past its first epoch and to have five
    points, of which those of the last third, at least two, are not below the lowest before and
    differ by at most 4%; and the train loss fell by a tenth meanwhile, or is half the eval loss.
    """
    curve = e.eval_curve
    if e.measured_train:
        before = at(curve, 0.75 * curve[-1][0])
        return before - curve[-1][1] <= max(0.02 * before, 0.01, 0.1 * gap)
    points = [point for point in e.evals if point.step > 0]
    since = 2 / 3 * points[-1].step if points else 0
    first = [point.eval_loss for point in points if point.step <= since]
    last = [point.eval_loss for point in points if point.step > since]
    if len(points) < 5 or len(last) < 2 or points[-1].epoch <= 1:
        return False
    if min(last) < min(first) or span(last) > STEADY_SHARE:
        return False
    train = train_since(e, round(since))
    fell = train is not None and train[1] < 0.9 * train[0]
    return fell or e.metrics["eval_loss"] > 2 * e.metrics["train_loss"]


def gap_at_start(e: Evidence) -> float:
    """How far the untrained base's eval loss is above the first train losses, as the sets differ.

    Only the part beyond two standard errors of 3 losses counts. If a run learns at once, the mean
    of 3 losses is below the start, so the first loss counts if it is higher. 0 if either side is
    unknown.
    """
    losses = finite_losses(e)
    if len(losses) < 3 or math.isnan(e.untrained_loss) or e.steps[0].step > FIRST_STEPS:
        return 0.0
    first = max(losses[0], fmean(losses[:3]))
    error = 2 * relative_noise(losses) * first / math.sqrt(3)
    return max(e.untrained_loss - first - error, 0.0)
