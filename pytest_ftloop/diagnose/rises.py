"""A rise of the eval loss: whether it is one, or no more than the curve's own jitter.

Each evaluation of a run is of other weights, so its curve goes up and down by more than the error
of its points. What it came back from once it may come back from again: only a rise beyond that
shows anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.core.noise import least_change
from pytest_ftloop.diagnose.windows import eval_is_finite, train_since

if TYPE_CHECKING:
    from pytest_ftloop.core.records import EvalPoint
    from pytest_ftloop.diagnose.evidence import Evidence

RISE_SHARE = 0.05
"""Smallest rise, relative to the lowest eval loss."""

POINTS_AFTER = 2
"""Evaluation points that have to follow the lowest one: a rise seen once is often taken back."""

RECOVERED_TIMES = 1.5
"""Times by which a rise has to exceed the largest one that the curve came back from."""

DROPPED_TIMES = 0.5
"""Times by which it has to exceed the largest drop since the lowest point."""


@dataclass(frozen=True)
class Rise:
    """An eval loss that ends above its lowest, by more than jitter.

    `lowest` and `last` are evaluation points, `jitter` is what the curve came back from, in nats.
    """

    lowest: EvalPoint
    last: EvalPoint
    jitter: float

    @property
    def is_of_new_rows(self) -> bool:
        """Whether the run is in its first epoch, in which no row is seen twice.

        False if no epoch is known.
        """
        return 0 < self.last.epoch <= 1


def rise_of(e: Evidence) -> Rise | None:
    """The rise at the end of the eval curve; None if there is none, or too few points to tell.

    The last point must be above the lowest by more than 5%, 0.01 nats, measured noise and the
    jitter; the point before it by half as much. At least two points must follow the lowest.
    """
    if not e.evals or not eval_is_finite(e):
        return None
    lowest = min(e.evals, key=lambda point: point.eval_loss)
    place = e.evals.index(lowest)
    after = e.evals[place + 1 :]
    if len(after) < POINTS_AFTER:
        return None
    jitter = _jitter([point.eval_loss for point in e.evals], place)
    noise = least_change("eval_loss", lowest.eval_loss, e.seed_noise)
    limit = max(RISE_SHARE * lowest.eval_loss, 0.01, noise, jitter)
    above = [point.eval_loss - lowest.eval_loss for point in after]
    if not (above[-1] > limit and min(above[-POINTS_AFTER:]) > limit / 2):
        return None
    return Rise(lowest, after[-1], jitter)


def train_rose(e: Evidence, step: int) -> bool:
    """Whether the train loss rose after `step`, by two standard errors."""
    train = train_since(e, step)
    return train is not None and train[1] > train[0] + 2 * train[2]


def _jitter(losses: Sequence[float], lowest: int) -> float:
    """What the curve came back from, in nats.

    It is 1.5 times the largest rise before the lowest point, all of which were taken back, or half
    of the largest drop after it.
    """
    recovered = _largest_rise(losses[: lowest + 1])
    dropped = _largest_rise([-loss for loss in losses[lowest + 1 :]])
    return max(RECOVERED_TIMES * recovered, DROPPED_TIMES * dropped)


def _largest_rise(values: Sequence[float]) -> float:
    """The largest rise from any value to a later one; 0 if they only fall."""
    lowest, largest = math.inf, 0.0
    for value in values:
        lowest = min(lowest, value)
        largest = max(largest, value - lowest)
    return largest
