"""A rule on train losses alone: a train set that is learned by heart shows at the epoch bounds."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.windows import batch_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import StepLog
    from pytest_ftloop.diagnose.evidence import Evidence

LEAST_DROP = 0.15
"""Smallest relative fall of the train loss at an epoch's end that counts as a step."""

LEAST_IN_EPOCH = 3
"""Fewest logged losses of an epoch; of the first, and of the last, which may be cut short, 2."""

LEAST_AT_ONE_BOUND = 6
"""Fewest logged losses of each epoch if there is one bound only: a fall may be there by chance."""

FLAT_SHARE = 0.4
"""Largest fall within an epoch, as a share of the fall at its bounds."""

ERRORS = 4.0
"""Standard errors that a fall must exceed."""

LEARNED = 0.05
"""Train loss in nats under which no further step is looked for: all is known by heart by then."""


def memorising(e: Evidence) -> Finding | None:
    """The train loss falls where rows are seen again, and only there: they are learned by heart.

    Signal: nothing, or only once, was evaluated; at each epoch's end the train loss falls at once
    by 15% or more and 4 standard errors, and within the epochs by at most 0.4 times as much. What
    generalises is learned within an epoch too. Source: public logs of full trainings of language
    models, in which the loss is flat within an epoch and falls by a third and more at its end.
    Minimum data: three epochs, of three logged losses (the first and the last of two), or two of
    six. NaN: those steps are left out. With two evaluation points the eval loss decides, see
    `overfitting`.
    """
    if sum(math.isfinite(point.eval_loss) for point in e.evals) >= 2:
        return None
    found = steps_at_bounds(e.steps, e.steps_per_epoch)
    if not found:
        return None
    levels = [found[0][0], *(after for _, after in found)]
    falls = ", ".join(f"{1 - after / before:.0%}" for before, after in found)
    return Finding(
        kind="memorising",
        severity="warning",
        message=(
            "The train loss is flat within each epoch and falls where the rows are seen again, by "
            f"{falls} ({', '.join(f'{level:.2f}' for level in levels)}): they are learned by heart."
        ),
        evidence={
            "bounds": len(found),
            "steps_per_epoch": e.steps_per_epoch,
            **{f"epoch_{n}": level for n, level in enumerate(levels, start=1)},
        },
        remedy=(
            "Hold rows out and evaluate at each epoch (eval_strategy), which shows where to stop. "
            "Until then train for one epoch, or two, or at a lower learning rate, or on more rows."
        ),
    )


def steps_at_bounds(steps: Sequence[StepLog], per_epoch: int) -> list[tuple[float, float]]:
    """The train loss before and after each epoch's end, if it falls at every one and only there.

    Empty if it falls elsewhere, too, or if there is too little data.
    """
    epochs = _epochs([step for step in steps if math.isfinite(step.loss)], per_epoch)
    if len(epochs) < 2:
        return []
    found: list[tuple[float, float]] = []
    for old, new in pairwise(epochs):
        before, after = fmean(_late(old)), fmean(_early(new))
        if before < LEARNED:
            break
        noise = max(batch_noise(epoch) for epoch in (old, new))
        fall, error = before - after, noise * math.sqrt(1 / len(_late(old)) + 1 / len(_early(new)))
        if fall < max(LEAST_DROP * before, ERRORS * error):
            return []
        # The first epoch begins with what generalises: only its second half has to be flat.
        inside = _late(old) if not found else old
        if max(_fall(inside), _fall(new)) > max(FLAT_SHARE * fall, 2 * error):
            return []
        found.append((before, after))
    if len(found) == 1 and min(map(len, epochs)) < LEAST_AT_ONE_BOUND:
        return []
    return found


def _epochs(steps: Sequence[StepLog], per_epoch: int) -> list[list[float]]:
    """The losses of each epoch, without those whose mean reaches back into the one before."""
    if per_epoch < LEAST_IN_EPOCH or len(steps) < 2 * LEAST_IN_EPOCH - 1:
        return []
    epochs: dict[int, list[float]] = {}
    before = 0
    for step in steps:
        epoch = (step.step - 1) // per_epoch
        if before >= epoch * per_epoch:
            epochs.setdefault(epoch, []).append(step.loss)
        before = step.step
    found = [epochs.get(n, []) for n in range(max(epochs, default=-1) + 1)]
    if found and len(found[-1]) < LEAST_IN_EPOCH - 1:
        found.pop()
    enough = all(len(epoch) >= LEAST_IN_EPOCH - 1 for epoch in found)
    return found if enough and any(len(epoch) >= LEAST_IN_EPOCH for epoch in found) else []


def _early(losses: list[float]) -> list[float]:
    return losses[: (len(losses) + 1) // 2]


def _late(losses: list[float]) -> list[float]:
    return losses[len(losses) // 2 :]


def _fall(losses: list[float]) -> float:
    return fmean(_early(losses)) - fmean(_late(losses))
