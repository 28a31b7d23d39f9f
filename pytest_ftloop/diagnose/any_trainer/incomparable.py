"""Rules on figures of a log that do not measure the same: a sum beside a mean, other tokens."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.impossible import LARGEST_UNIFORM

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.evidence import Evidence

ACCUMULATIONS = (2, 4, 8, 16, 32, 64)
"""Usual numbers of gradient accumulation steps."""

NEAR = 1.12
"""Largest factor between a ratio of losses and a number of accumulation steps: the two losses are
of different rows."""

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


def incomparable_losses(e: Evidence) -> Finding | None:
    """Two figures of the log do not measure the same, so nothing can be concluded from both.

    Signal, any of:

    - the train loss is some 2, 4, 8, ... times the eval loss at each of the late evaluations (the
      second half, at least two; three for a factor of 2), and at least 0.8 times as much at each
      earlier one: it is a sum over the accumulation steps, as with transformers 4.46 (issue 35204);
    - the eval loss is under 0.8 (1 - accuracy) ln 2. An answer that is not the most likely one has
      at most half of the probability, and so a loss over ln 2: the two are of different tokens.

    The second is about causal models, and about classifiers that log accuracy alone: a multi-label
    accuracy counts sets. Minimum data: three evaluations; for the second, one. NaN: left out.
    """
    return _is_a_sum(e) or _contradicts_accuracy(e)


def _is_a_sum(e: Evidence) -> Finding | None:
    ratios = _ratios(e)
    late = ratios[len(ratios) // 2 :]
    if len(ratios) < 3 or len(late) < 2:
        return None
    factor = min(ACCUMULATIONS, key=lambda of: abs(math.log(fmean(late) / of)))
    near = all(1 / NEAR < ratio / factor < NEAR for ratio in late)
    if not near or min(ratios) < AT_FIRST * factor or (factor == 2 and len(late) < 3):
        return None
    if factor == 2 and max(late) / min(late) > 1.06:
        return None
    first = next(step.loss for step in e.steps if math.isfinite(step.loss)) / factor
    too_high = e.causal is not False and first > LARGEST_UNIFORM
    padding = (
        f" Divided by {factor} it begins at {first:.1f} nats, above {LARGEST_UNIFORM}, the loss of "
        "a guess among 262,144 tokens: padding or tokens of another tokenizer may be labelled."
        if too_high
        else ""
    )
    shown = ", ".join(f"{ratio:.1f}" for ratio in late[-3:])
    return _incomparable(
        f"The train loss is about {factor} times the eval loss at each of the last {len(late)} "
        f"evaluations ({shown}): a sum over {factor} gradient accumulation steps, not a mean."
        f"{padding}",
        {"ratio": fmean(late), "factor": factor, "points": len(late), "first_divided": first},
        "Compare nothing with this train loss; divide it by the accumulation steps, or update "
        "transformers (4.46 logs it so).",
    )


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


def _contradicts_accuracy(e: Evidence) -> Finding | None:
    names = [score.name for score in e.scores]
    if not (e.causal or all(name.endswith("accuracy") for name in names)):
        return None
    points = [p for p in e.evals if math.isfinite(p.eval_loss) and math.isfinite(p.token_accuracy)]
    least = [(p, (1 - p.token_accuracy) * math.log(2)) for p in points]
    below = [(p, floor) for p, floor in least if p.eval_loss < BELOW * floor]
    if not below or len(below) < len(points) / 2:
        return None
    point, floor = below[-1]
    if 1 - point.token_accuracy < FEWEST_ERRORS or point.eval_loss < 0:
        return None
    return _incomparable(
        f"At step {point.step} the eval loss is {point.eval_loss:.3g}, but an accuracy of "
        f"{point.token_accuracy:.1%} means at least {floor:.3g}: a wrong answer costs over ln 2. "
        "They are not of the same tokens.",
        {
            "eval_loss": point.eval_loss,
            "accuracy": point.token_accuracy,
            "least_loss": floor,
            "points": len(below),
        },
        "Check which labels each counts: an accuracy over padding or prompts, a loss divided by "
        "too many tokens, or a loss that is no cross-entropy (focal, loss_type dft).",
    )


def _incomparable(message: str, evidence: dict[str, float | int | str], remedy: str) -> Finding:
    return Finding(
        kind="incomparable-losses",
        severity="info",
        message=message,
        evidence=evidence,
        remedy=remedy,
        tunable=False,
    )
