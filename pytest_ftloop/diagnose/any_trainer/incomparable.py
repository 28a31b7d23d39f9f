"""Rules on figures of a log that do not measure the same: a sum beside a mean, other tokens."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.impossible import LARGEST_UNIFORM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.diagnose.any_trainer.series import Series
    from pytest_ftloop.diagnose.evidence import Evidence

ACCUMULATIONS = (2, 4, 8, 16, 32, 64)
"""Usual numbers of gradient accumulation steps."""

NEAR = 1.12
"""Largest factor between a ratio of losses and a number of accumulation steps: the two losses are
of different rows."""

STEADY, STEADY_AT_TWO = 1.3, 1.06
"""Largest span of ratios that are one factor; smaller for 2, which other causes have as well."""

LEAST_ODD_FACTOR = 3.5
"""Smallest ratio that is taken for a sum though it is near no usual number."""

LEAST_FALL = 0.1
"""Smallest relative fall of the eval loss over a run that learns."""

FEWEST_TRAIN = 5
"""Fewest train losses that are compared with an accuracy."""

AT_FIRST = 0.8
"""Smallest share of the late ratio at every earlier point: a sum is one from the first step on,
while augmentation, dropout and wrong labels only show once the model has learned."""

BELOW = 0.8
"""Share of the least loss of an accuracy below which a loss contradicts it. trl averages accuracy
over batches, not over tokens, which moves it a little."""

SMALLEST = 0.01
"""Eval loss in nats under which a ratio says nothing: dropout alone can make a train loss four
times as large there."""

FEWEST_ERRORS = 0.02
"""Smallest share of wrong answers at which the two are compared: rounding hides less."""


def incomparable_losses(e: Evidence, train_accuracy: Series = ()) -> Finding | None:
    """Two figures of the log do not measure the same, so nothing can be concluded from both.

    `train_accuracy` is the accuracy that was logged beside the train losses, by step. Signal, any:

    - the train loss is a multiple of the eval loss, 2 or 3.5 and more, at each of the late
      evaluations (the second half, at least two; three for a factor of 2), and at least 0.8 times
      as much at each earlier one: it is a sum over the accumulation steps, as with transformers
      4.46 (issue 35204). Or it is a quarter of the eval loss or less from the first evaluation on:
      it was divided by them twice;
    - a loss is under 0.8 (1 - accuracy) ln 2. An answer that is not the most likely one has at most
      half of the probability, and so a loss over ln 2: the two are of different tokens.

    The second is about causal models, and about classifiers that log accuracy alone: a multi-label
    accuracy counts sets. Minimum data: three evaluations; for the second one, or five train losses.
    NaN: left out.
    """
    return _is_a_sum(e) or _is_divided(e) or _contradicts_accuracy(e, train_accuracy)


def _is_a_sum(e: Evidence) -> Finding | None:
    ratios = _ratios(e)
    late = ratios[len(ratios) // 2 :]
    if len(ratios) < 3 or len(late) < 2:
        return None
    mean = fmean(late)
    factor = min(ACCUMULATIONS, key=lambda of: abs(math.log(mean / of)))
    is_near = all(1 / NEAR < ratio / factor < NEAR for ratio in late)
    if factor == 2:
        is_near = is_near and len(late) >= 3 and max(late) / min(late) < STEADY_AT_TWO
    elif not is_near and mean >= LEAST_ODD_FACTOR:
        # The two losses differ, or the number of steps is an odd one.
        is_near, factor = max(late) / min(late) < STEADY, round(mean)
    if not is_near or min(ratios) < AT_FIRST * mean:
        return None
    first = next(step.loss for step in e.steps if math.isfinite(step.loss)) / factor
    too_high = e.causal is not False and first > LARGEST_UNIFORM
    padding = (
        f" Divided by {factor} it begins at {first:.1f} nats, above {LARGEST_UNIFORM}, the loss of "
        "a guess among 262,144 tokens: padding or tokens of another tokenizer may be labelled."
        if too_high
        else ""
    )
    return _incomparable(
        f"The train loss is about {factor} times the eval loss at each of the last {len(late)} "
        f"evaluations ({_shown(late)}): a sum over gradient accumulation steps, not a mean."
        f"{padding}",
        {"ratio": mean, "factor": factor, "points": len(late), "first_divided": first},
        "Compare nothing with this train loss; divide it by the accumulation steps, or update "
        "transformers (4.46 logs it so).",
    )


def _is_divided(e: Evidence) -> Finding | None:
    ratios = [1 / ratio for ratio in _ratios(e)]
    evals = [point.eval_loss for point in e.evals if math.isfinite(point.eval_loss)]
    if len(ratios) < 3 or min(ratios) < LEAST_ODD_FACTOR or max(ratios) / min(ratios) > STEADY:
        return None
    # A train set known by heart has such a ratio too, but then the eval loss does not fall.
    if evals[-1] > (1 - LEAST_FALL) * evals[0]:
        return None
    return _incomparable(
        f"The eval loss is about {fmean(ratios):.0f} times the train loss at each of the "
        f"{len(ratios)} evaluations, from the first on ({_shown(ratios)}), and both fall alike: "
        "the train loss was divided by the gradient accumulation steps once too often.",
        {"ratio": fmean(ratios), "points": len(ratios)},
        "Compare nothing with this train loss; multiply it by the accumulation steps, or update "
        "the trainer.",
    )


def _shown(ratios: Sequence[float]) -> str:
    return ", ".join(f"{ratio:.1f}" for ratio in ratios[-3:])


def _ratios(e: Evidence) -> list[float]:
    """The mean train loss since the evaluation before, over the eval loss, at each evaluation."""
    found, before = [], 0
    for point in e.evals:
        losses = [step.loss for step in e.steps if before < step.step <= point.step]
        if losses and point.eval_loss >= SMALLEST and math.isfinite(point.eval_loss):
            ratio = fmean(losses) / point.eval_loss
            found += [ratio] if math.isfinite(ratio) and ratio > 0 else []
        before = point.step
    return found


def _contradicts_accuracy(e: Evidence, train_accuracy: Series) -> Finding | None:
    names = [score.name for score in e.scores]
    if not (e.causal or all(name.endswith("accuracy") for name in names)):
        return None
    of_eval = [(point.step, point.eval_loss, point.token_accuracy) for point in e.evals]
    losses = {step.step: step.loss for step in e.steps}
    of_train = [(step, losses[step], at) for step, at in train_accuracy if step in losses]
    below = _below(of_eval, 1) or _below(of_train[len(of_train) // 2 :], FEWEST_TRAIN)
    if below is None:
        return None
    step, loss, accuracy = below
    what = "eval" if below in of_eval else "train"
    floor = (1 - accuracy) * math.log(2)
    return _incomparable(
        f"At step {step} the {what} loss is {loss:.3g}, but an accuracy of {accuracy:.1%} means at "
        f"least {floor:.3g}: a wrong answer costs over ln 2. They are not of the same tokens.",
        {f"{what}_loss": loss, "accuracy": accuracy, "least_loss": floor},
        "Check which labels each counts: an accuracy over padding or prompts, a loss divided by "
        "too many tokens, or a loss that is no cross-entropy (focal, loss_type dft).",
    )


def _below(
    points: Sequence[tuple[int, float, float]], fewest: int
) -> tuple[int, float, float] | None:
    """The last of the points (step, loss, accuracy) whose loss is too low, if half of them are."""
    known = [point for point in points if math.isfinite(point[1]) and 0 <= point[2] <= 1]
    below = [
        point
        for point in known
        if 1 - point[2] >= FEWEST_ERRORS and 0 <= point[1] < BELOW * (1 - point[2]) * math.log(2)
    ]
    return below[-1] if len(known) >= fewest and below and len(below) >= len(known) / 2 else None


def _incomparable(message: str, evidence: dict[str, float | int | str], remedy: str) -> Finding:
    return Finding(
        kind="incomparable-losses",
        severity="info",
        message=message,
        evidence=evidence,
        remedy=remedy,
        tunable=False,
    )
