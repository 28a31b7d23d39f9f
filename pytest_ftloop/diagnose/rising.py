"""Rules over losses that rise again: too high a learning rate, or a train set learned by heart."""

from __future__ import annotations

import math
from statistics import fmean

from pytest_ftloop.core.noise import least_change
from pytest_ftloop.core.records import EvalPoint, Finding
from pytest_ftloop.diagnose.evidence import Evidence, Figures
from pytest_ftloop.diagnose.windows import (
    FIRST_STEPS,
    at,
    eval_is_finite,
    finite_losses,
    relative_noise,
    swings,
    tail_mean,
    train_since,
    window_means,
)

FAR_TOO_HIGH = 0.05
"""A learning rate five times above the highest that LoRA is trained well with."""

CALMER = "Lower the learning rate 2 to 5 times, warm up, or use a larger effective batch."


def oscillation(e: Evidence) -> Finding | None:
    """The learning rate is too high to settle, though the run did not diverge.

    Signal, any of: the mean train loss of some 5 steps was over 1.25 times that at the start (and
    0.5 nats and 5 standard errors above it), so the run first destroyed and then relearned; a
    quarter of the evaluation points, two at least, are peaks more than 5% and 0.05 nats above the
    lows on both sides (a peak may last some points; a steady rise is `overfitting`); the eval
    loss rose to the end (see `_rise`) and train rose with it, by two standard errors; or the rate
    was 0.05 or more, and the lowest eval loss is over a fifth of the untrained base's and falls by
    no more than a tenth in the last quarter: no step lands. The start is
    the mean of the first 3 steps, but no more than the untrained base's loss or the first step's:
    the first update may destroy already. Source: practice for the share of points, and a measured
    run that learns while its eval loss wobbles at a fifth of them; runs that first destroyed,
    measured. Minimum data: 10 steps, or 5 evaluation points, or two that rise. NaN: those steps are
    left out; with a NaN eval loss no peak and no rise.
    """
    return _destroyed_first(e) or _swung(e) or _both_rose(e) or _never_landed(e)


def overfitting(e: Evidence) -> Finding | None:
    """The model learns its train set by heart.

    Signal, any of: the eval loss rose to the end (see `_rise`) while train did not rise since (by
    two standard errors: then it is `oscillation`); or at the best point eval - train is over 0.1
    nats and over 25% of the train loss, and eval is not still falling (in the last quarter by over
    2%, 0.01 nats and a tenth of that gap). Of the gap only what came since the start counts, see
    `_gap_at_start`, and no less than the gap's measured noise. Practice's
    gap / train > 0.1 alone would cry wolf: a converged run with train 0.08 and eval 0.10 has 0.25.
    Where accuracy went on rising `overconfidence` speaks instead. Minimum data: two evaluation
    points after the first step; a train loss in eval mode for the gap. NaN: silent.
    """
    if not e.evals or not eval_is_finite(e) or overconfidence(e):
        return None
    best, last = _lowest(e), e.evals[-1]
    train_loss, gap = e.metrics.get("train_loss", math.nan), e.metrics.get("overfit_gap", math.nan)
    at_start = _gap_at_start(e)
    if _rise(e) and not _train_rose(e, best.step):
        message = (
            f"The eval loss rose from {best.eval_loss:.3f} (step {best.step}) to "
            f"{last.eval_loss:.3f}{_what_train_did(e, best.step)}."
        )
    elif _is_wide(e, gap - at_start, train_loss):
        from_the_start = f", {at_start:.3f} of it from the start" if at_start else ""
        message = (
            f"The eval loss is {gap:.3f} above the train loss of {train_loss:.3f}{from_the_start}, "
            "and hardly falls any more."
        )
    else:
        return None
    return Finding(
        kind="overfitting",
        severity="warning",
        message=message,
        evidence={
            "eval_lowest": best.eval_loss,
            "eval_last": last.eval_loss,
            "best_step": best.step,
            "best_epoch": best.epoch,
            "last_step": last.step,
            "train_loss": train_loss,
            "overfit_gap": gap,
        },
        remedy=(
            "Halve the learning rate, set lora.lora_dropout to 0.05-0.1 or weight decay to "
            "0.01-0.1, halve the rank, train fewer epochs, or add data."
        ),
    )


def overconfidence(e: Evidence) -> Finding | None:
    """More answers are right, and those that are wrong are wrong with more certainty.

    Signal: the eval loss rose to the end (see `_rise`) while accuracy (of tokens, of a classifier
    its own) rose since the loss was lowest by more than half a point, its measured noise and, where
    the tokens are known, one standard error of an accuracy over as many; its mean since then by
    half of that. `overfitting` is silent then: by what the model answers it is still getting
    better. Source: practice ("eval loss up while accuracy rises: warn, don't fail"), and runs
    measured. Minimum data: two evaluation points with their accuracy. NaN: silent.
    """
    if not e.evals or not eval_is_finite(e) or not _rise(e):
        return None
    best, last = _lowest(e), e.evals[-1]
    since = [point.token_accuracy for point in e.evals if point.step > best.step]
    tokens = sum(row.tokens for row in e.results)
    error = math.sqrt(best.token_accuracy * (1 - best.token_accuracy) / tokens) if tokens else 0.0
    limit = max(0.005, least_change("token_accuracy", best.token_accuracy, e.seed_noise), error)
    rise = last.token_accuracy - best.token_accuracy
    # Written so that a NaN on either side is silent.
    if not (rise > limit and fmean(since) - best.token_accuracy > limit / 2):
        return None
    return Finding(
        kind="overconfidence",
        severity="warning",
        message=(
            f"The eval loss rose from {best.eval_loss:.3f} (step {best.step}) to "
            f"{last.eval_loss:.3f} while accuracy rose from {best.token_accuracy:.1%} to "
            f"{last.token_accuracy:.1%}: wrong answers are given with more certainty."
        ),
        evidence={
            "eval_lowest": best.eval_loss,
            "eval_last": last.eval_loss,
            "best_step": best.step,
            "best_epoch": best.epoch,
            "last_step": last.step,
            "accuracy_best": best.token_accuracy,
            "accuracy_last": last.token_accuracy,
        },
        remedy=(
            "Where answers count, not probabilities, choose by loop.metric pass_rate and go on; "
            "else take the best point, or train fewer epochs or at a lower learning rate."
        ),
    )


def _destroyed_first(e: Evidence) -> Finding | None:
    losses = finite_losses(e)
    if len(losses) < 10:
        return None
    start, peak, last = window_means(losses, 3)[0], max(window_means(losses, 5)), tail_mean(losses)
    if math.isfinite(e.untrained_loss):
        start = min(start, max(e.untrained_loss, losses[0]))
    error = relative_noise(losses) * math.sqrt(1 / 3 + 1 / 5)
    if not (peak - start > 0.5 and math.log(peak / start) > max(math.log(1.25), 5 * error)):
        return None
    message = (
        f"The train loss first rose from {start:.2f} to {peak:.2f} before it fell."
        if last <= start
        else f"The train loss rose from {start:.2f} to {peak:.2f} and ended at {last:.2f}."
    )
    return _too_fast(message, {"train_first": start, "train_peak": peak, "train_last": last})


def _swung(e: Evidence) -> Finding | None:
    inner = max(len(e.eval_curve) - 2, 0)
    peaks = swings([loss for _, loss in e.eval_curve]) if eval_is_finite(e) else 0
    if peaks < 2 or peaks < 0.25 * inner:
        return None
    message = f"The eval loss swung up and down by over 5%, {peaks} times in {inner} points."
    return _too_fast(message, {"swings": peaks, "points": inner})


def _both_rose(e: Evidence) -> Finding | None:
    if not e.evals or not eval_is_finite(e) or not _rise(e) or overconfidence(e):
        return None
    best, last = _lowest(e), e.evals[-1]
    train = train_since(e, best.step)
    if train is None or not _train_rose(e, best.step):
        return None
    before, since, _ = train
    return _too_fast(
        f"Both losses rise since step {best.step}: the eval loss from {best.eval_loss:.3f} to "
        f"{last.eval_loss:.3f}, the train loss from {before:.3f} to {since:.3f}.",
        {
            "best_step": best.step,
            "eval_lowest": best.eval_loss,
            "eval_last": last.eval_loss,
            "train_before": before,
            "train_last": since,
        },
        "Lower the learning rate 2 to 5 times, or let it decay (training.lr_scheduler_type).",
    )


def _never_landed(e: Evidence) -> Finding | None:
    curve, rate = e.eval_curve, max((step.learning_rate for step in e.steps), default=0.0)
    if rate < FAR_TOO_HIGH or len(curve) < 3 or not eval_is_finite(e):
        return None
    lowest, before = min(loss for _, loss in curve), at(curve, 0.75 * curve[-1][0])
    if not lowest > max(0.2, 0.2 * e.untrained_loss) or curve[-1][1] < 0.9 * before:
        return None
    return _too_fast(
        f"The eval loss stays at {lowest:.2f}: with a learning rate of {rate:g} no step lands.",
        {"learning_rate": rate, "eval_lowest": lowest, "eval_last": curve[-1][1]},
        "Lower the learning rate 10 times: LoRA's best ones lie below 1e-2.",
    )


def _too_fast(message: str, evidence: Figures, remedy: str = CALMER) -> Finding:
    return Finding(
        kind="oscillation", severity="warning", message=message, evidence=evidence, remedy=remedy
    )


def _lowest(e: Evidence) -> EvalPoint:
    return min(e.evals, key=lambda point: point.eval_loss)


def _rise(e: Evidence) -> bool:
    """Whether the eval loss ends above its lowest by more than 3%, 0.01 nats and measured noise.

    Its mean since the lowest point by half of that, so one odd last point does not count.
    """
    lowest = _lowest(e)
    after = [point.eval_loss for point in e.evals[e.evals.index(lowest) + 1 :]]
    noise = least_change("eval_loss", lowest.eval_loss, e.seed_noise)
    limit = max(0.03 * lowest.eval_loss, 0.01, noise)
    return (
        bool(after)
        and after[-1] - lowest.eval_loss > limit
        and fmean(after) - lowest.eval_loss > limit / 2
    )


def _train_rose(e: Evidence, step: int) -> bool:
    """Whether the train loss after `step` is above that before it: then it is not overfitting."""
    train = train_since(e, step)
    return train is not None and train[1] > train[0] + 2 * train[2]


def _what_train_did(e: Evidence, step: int) -> str:
    train = train_since(e, step)
    if train is None:
        return ""
    fell = train[1] < train[0]
    return " while the train loss " + ("went on falling" if fell else "did not rise")


def _is_wide(e: Evidence, gap: float, train_loss: float) -> bool:
    """Whether a gap is too wide, and no longer that of an eval loss which is still falling."""
    limit = max(0.1, 0.25 * train_loss, least_change("overfit_gap", gap, e.seed_noise))
    points = [point for point in e.evals if point.step > 0]
    return len(points) >= 2 and gap > limit and not _eval_still_falls(e, gap)


def _gap_at_start(e: Evidence) -> float:
    """How far the untrained base's eval loss is above the first train losses: the sets differ.

    Beyond two standard errors of 3 losses. Their mean is lower than the start where a run learns
    at once, so the first counts where it is higher. 0 where either side is not known.
    """
    losses = finite_losses(e)
    if len(losses) < 3 or math.isnan(e.untrained_loss) or e.steps[0].step > FIRST_STEPS:
        return 0.0
    first = max(losses[0], fmean(losses[:3]))
    error = 2 * relative_noise(losses) * first / math.sqrt(3)
    return max(e.untrained_loss - first - error, 0.0)


def _eval_still_falls(e: Evidence, gap: float) -> bool:
    curve = e.eval_curve
    before = at(curve, 0.75 * curve[-1][0])
    return len(curve) >= 2 and before - curve[-1][1] > max(0.02 * before, 0.01, 0.1 * gap)
