"""Rules on how far a run got: whether it learned, and whether more of the same would help."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from statistics import fmean

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.broken import GUESSING_LOSS
from pytest_ftloop.diagnose.evidence import Evidence, Figures
from pytest_ftloop.diagnose.windows import (
    FIRST_STEPS,
    LEARNED_SHARE,
    at,
    batch_noise,
    eval_is_finite,
    finite_losses,
    last_quarters,
    measured_before,
    nats,
    quarter_error,
    span,
    stride,
    window_size,
)


def not_learning(e: Evidence) -> Finding | None:
    """The run hardly learned anything.

    Signal: from the first tenth of the steps to the last (3 to 10 steps each) the train loss fell
    by less than 5%, and the best eval loss is less than 5% below the untrained base's; or both fell
    by less than 15%, and the eval loss fell about as fast at the end as at first
    (`_has_just_begun`). The eval loss is exact, so the train loss only must not contradict it, by
    more than its standard error. If no eval loss from before the first step is known, the train
    loss decides alone: it must be a standard error short of 5%, whether it fell or rose.

    Silent if something did change: the eval loss rose by over 5% from its lowest; or the base's is
    unknown and two points differ by over 5%; or most may have been learned before the log begins
    (`_learned_before_the_log`). Silent too if the loss starts under 0.1, as nothing was left to
    learn. Source: practice; runs at a learning rate 200 times too low, measured. Minimum data: 10
    finite losses; 6 for the 5%, if the base's eval loss is known. NaN: those steps are left out;
    with a NaN eval loss: silent.
    """
    losses, evals = finite_losses(e), [loss for _, loss in e.eval_curve]
    is_exact = len(evals) >= 2 and e.untrained_loss > 0
    if len(losses) < (6 if is_exact else 10) or not eval_is_finite(e):
        return None
    window = window_size(losses)
    head, tail = fmean(losses[:window]), fmean(losses[-window:])
    # After its lowest point the eval loss may have risen again: then the model did change.
    if head < 0.1 or span(evals[evals.index(min(evals)) :] if is_exact else evals) > LEARNED_SHARE:
        return None
    train_fall = 1 - tail / head
    error = batch_noise(losses) * math.sqrt(2 / window) / head
    figures: Figures = {
        "train_first": head,
        "train_last": tail,
        "train_fall": train_fall,
        "steps": e.steps[-1].step,
    }
    if is_exact:
        eval_fall = 1 - min(evals[1:]) / evals[0]
        # A run that has only just begun to learn may have fallen further, and still needs more.
        most = 0.15 if len(losses) >= 10 and _has_just_begun(e) else LEARNED_SHARE
        if not (eval_fall < most and train_fall < most + error):
            return None
        figures |= {"eval_first": evals[0], "eval_fall": eval_fall}
    elif abs(train_fall) + error >= LEARNED_SHARE or _learned_before_the_log(e, losses):
        return None
    return Finding(
        kind="not-learning",
        severity="warning",
        message=(
            f"The model hardly learned: the train loss went from {nats(head)} to {nats(tail)} "
            f"({_percent(-train_fall)}) in {e.steps[-1].step} steps."
        ),
        evidence=figures,
        remedy=_what_would_teach(e, tail, is_exact=is_exact),
    )


def underfit(e: Evidence) -> Finding | None:
    """The run is healthy, and its eval loss was still falling at the end.

    Signal: over the last quarter of the steps the eval loss fell by more than 2% and 0.05 nats, the
    last point is the best one, the train loss did not rise, and eval - train is under 0.1 nats or
    25% of the train loss (as for `overfitting`). Eval points are interpolated. If none but the last
    is in the second half, the train loss must have fallen as much, and by two standard errors. The
    2% are low because the last quarter of a decaying schedule understates what is left; the 0.05
    nats spare a run that nearly reached zero loss. Source: practice, and measured runs at too low a
    learning rate. Minimum data: two points (the untrained base counts as one); the train loss is
    used from 8 steps on. NaN eval loss: silent; NaN gap: taken as small.
    """
    curve, losses = e.eval_curve, finite_losses(e)
    if len(curve) < 2 or not eval_is_finite(e) or curve[-1][1] > min(loss for _, loss in curve):
        return None
    last = curve[-1][1]
    before = at(curve, 0.75 * curve[-1][0])
    fall = before - last
    train_loss, gap = e.metrics.get("train_loss", math.nan), e.metrics.get("overfit_gap", math.nan)
    if fall < 0.05 or fall < 0.02 * before or gap > max(0.1, 0.25 * train_loss):
        return None
    if len(losses) >= 8:
        third, fourth = last_quarters(losses)
        error = 2 * quarter_error(losses)
        # Between two distant points the eval loss is a guess: then the train loss has to agree.
        coarse = curve[-2][0] < 0.5 * curve[-1][0]
        if fourth > third + error or (coarse and third - fourth < max(0.05, 0.02 * third, error)):
            return None
    since, loss = measured_before(curve, 0.75 * curve[-1][0])
    fall_since = 1 - last / loss if loss else 0.0
    return Finding(
        kind="underfit",
        severity="info",
        message=(
            f"The run ended while still improving: from step {since} to {curve[-1][0]} the eval "
            f"loss fell from {nats(loss)} to {nats(last)} ({_percent(-fall_since)})."
        ),
        evidence={
            "eval_first": curve[0][1],
            "eval_last": last,
            "eval_fall": 1 - last / curve[0][1] if curve[0][1] else 0.0,
            "since_step": since,
            "last_step": curve[-1][0],
            "eval_fall_since": fall_since,
        },
        remedy="Raise the learning rate by a factor of 3 to 5, or train for more epochs.",
    )


def converged(e: Evidence) -> Finding | None:
    """The run converged: more of the same brings nothing.

    Signal: over the last quarter of the steps the eval loss moved by less than 1%, or 0.1% of the
    untrained base's, and the train loss fell by less than 5%, 0.005 nats or two standard errors.
    The run must be at the end of its schedule, as a learning rate that still decays lets the loss
    fall again; or else at its highest rate, with four points of the last half that differ by as
    little. If nothing is memorised (the train loss in eval mode is over 0.2 nats, and the gap at
    most a tenth of it) the remedy is a higher learning rate: the quickstart's first iteration,
    measured, learned only which labels exist. Source: practice ("plateau, train flat"), and replays
    of logs (benchmarks/refute.py). Minimum data: 12 steps, and an evaluation point in the second
    half before the last. NaN: silent; a NaN gap changes no remedy.
    """
    losses, curve = finite_losses(e), e.eval_curve
    if len(losses) < 12 or len(e.evals) < 2 or not eval_is_finite(e):
        return None
    last, step = curve[-1][1], curve[-1][0]
    # Between two distant points the eval loss before the last quarter would be a guess.
    if curve[-2][0] < 0.5 * step:
        return None
    before = at(curve, 0.75 * step)
    still = 0.01 * before
    if math.isfinite(e.untrained_loss):
        still = max(still, 0.001 * e.untrained_loss)
    third, fourth = last_quarters(losses)
    train_still = max(0.05 * third, 0.005, 2 * quarter_error(losses))
    if abs(before - last) > still or third - fourth > train_still:
        return None
    if not (_is_over(e) or _is_level(e, still)):
        return None
    since, loss = measured_before(curve, 0.75 * step)
    return Finding(
        kind="converged",
        severity="info",
        message=f"The run converged: from step {since} to {step} the eval loss stayed at "
        f"{nats(last)}.",
        evidence={
            "since_step": since,
            "eval_before": loss,
            "eval_last": last,
            "train_last": fourth,
        },
        remedy=(
            "More epochs at this learning rate will bring little. Nothing is memorised yet, so a "
            "learning rate 3 times as high may learn more; if not, look at the failing examples "
            "or the data."
            if _nothing_is_memorised(e)
            else "More epochs will bring nothing: look at the failing examples or the data."
        ),
    )


def _is_over(e: Evidence) -> bool:
    """Whether the run took its planned steps: the log may end up to one entry before."""
    return e.evals[-1].step >= e.planned_steps - stride(e)


def _is_level(e: Evidence, still: float) -> bool:
    """Whether the rate is at its highest and the points of the last half differ by so little."""
    rates = [step.learning_rate for step in e.steps]
    last = [point.eval_loss for point in e.evals if point.step > 0.5 * e.evals[-1].step]
    return rates[-1] >= 0.99 * max(rates) and len(last) >= 4 and max(last) - min(last) <= still


def _what_would_teach(e: Evidence, tail: float, *, is_exact: bool) -> str:
    if _only_warmed_up(e):
        return "Shorten the warmup, which is longer than the run."
    if tail > GUESSING_LOSS and not is_exact and e.steps[0].step > 1:
        return (
            "If the model was pretrained, it lost all it knew before the log begins: lower the "
            "learning rate by a factor of 3 to 10. If it is trained from scratch, it learned "
            "nothing: raise the learning rate by as much."
        )
    return (
        "Raise the learning rate by a factor of 3 to 10. If that is not enough: more epochs, "
        "lora.target_modules all-linear, a higher rank."
    )


def _learned_before_the_log(e: Evidence, losses: list[float]) -> bool:
    """Whether most may have been learned before the first logged entry, or within its mean.

    So if that entry is after step 20 (an earlier part of the run is missing, or a mean over so many
    steps hides what they learned), or if the second entry is lower by 1% and 5 standard deviations.
    Not if the learning rate only rises, as learning is then still to come.
    """
    first = e.steps[0].step
    if first <= 1 or _only_warmed_up(e):
        return False
    at_once = losses[0] - losses[1]
    return first > FIRST_STEPS or at_once > max(0.01 * losses[0], 5 * batch_noise(losses[1:]))


def _nothing_is_memorised(e: Evidence) -> bool:
    train_loss, gap = (e.metrics.get(name, math.nan) for name in ("train_loss", "overfit_gap"))
    return train_loss > 0.2 and abs(gap) <= 0.1 * train_loss


def _has_just_begun(e: Evidence) -> bool:
    """Whether the eval loss fell in the second half of the run by 2/3 of its fall in the first.

    A run that learns much slows down. The halves are those of the summed learning rates, because a
    decaying schedule slows any run down, and a warmup delays it.
    """
    curve, rates = e.eval_curve, list(accumulate(step.learning_rate for step in e.steps))
    if not rates or not rates[-1] > 0:
        return False
    half = next(s.step for s, sum_ in zip(e.steps, rates, strict=True) if sum_ >= rates[-1] / 2)
    first, middle, last = curve[0][1], at(curve, half), curve[-1][1]
    return last < first and middle - last >= 2 / 3 * (first - middle)


def _only_warmed_up(e: Evidence) -> bool:
    """Whether the learning rate rose from the first step to the last."""
    rates = [step.learning_rate for step in e.steps]
    return all(old < new for old, new in pairwise(rates))


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"
