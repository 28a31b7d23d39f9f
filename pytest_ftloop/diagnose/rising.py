"""Rules on losses that rise again: too high a learning rate, or a train set learned by heart."""

from __future__ import annotations

import math
from statistics import fmean

from pytest_ftloop.core.noise import least_change
from pytest_ftloop.core.records import EvalPoint, Finding
from pytest_ftloop.diagnose.answers import better_answers
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
"""Learning rate from which on a high, flat eval loss is blamed on it: five times the highest rate
that is good for LoRA."""

CALMER = "Lower the learning rate by a factor of 2 to 5, warm up, or use a larger effective batch."


def oscillation(e: Evidence) -> Finding | None:
    """The learning rate is too high to settle, though the run did not diverge.

    Signal, any of:

    - the mean train loss of some 5 steps was over 1.25 times that at the start, and 0.5 nats and 5
      standard errors above it: the run first destroyed the model and then relearned. The start is
      the mean of the first 3 steps, but at most the untrained base's loss or the first step's, as
      the very first update can destroy it;
    - a quarter of the evaluation points, at least two, are peaks, more than 5% and 0.05 nats above
      the lows on both sides. A peak may last some points; a steady rise is `overfitting`;
    - the eval loss rose to the end (see `_rise`), and the train loss rose with it, by two standard
      errors;
    - the learning rate was 0.05 or more, and the lowest eval loss is over a fifth of the untrained
      base's and falls by at most a tenth in the last quarter: every step overshoots.

    Source: for the share of points, practice and a measured run that learns although a fifth of its
    points are peaks; for the rest, measured runs. Minimum data: 10 steps, or 5 evaluation points,
    or two that rise. NaN: those steps are left out; with a NaN eval loss there is no peak and no
    rise.
    """
    return _destroyed_first(e) or _swung(e) or _both_rose(e) or _never_landed(e)


def overfitting(e: Evidence) -> Finding | None:
    """The model learns its train set by heart.

    Signal, any of:

    - the eval loss rose to the end (see `_rise`) while the train loss did not rise. If that rose
      too, by two standard errors, it is `oscillation`;
    - at the best point eval - train is over 0.1 nats, 25% of the train loss and its measured noise,
      and the eval loss hardly falls any more (in the last quarter by at most 2%, 0.01 nats or a
      tenth of that gap). A gap that was there at the start is subtracted, see `_gap_at_start`.

    If accuracy went on rising, it is `overconfidence` instead. Source: practice, whose gap / train
    over 0.1 alone raises false alarms: a converged run with 0.08 and 0.10 has 0.25. Minimum data:
    two evaluation points after the first step; for the gap, a train loss in eval mode. NaN: silent.
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
    """More answers are right, and the wrong ones are more certain.

    Signal: the eval loss rose to the end (see `_rise`), while the accuracy (of tokens, or a
    classifier's own) rose from the point of the lowest loss to the end, by more than half a point,
    its measured noise and, if the number of tokens is known, one standard error of an accuracy over
    so many; and its mean since that point by half as much. `overfitting` is silent then, because
    the model's answers still get better. Source: practice ("eval loss up while accuracy rises:
    warn, don't fail"), and measured runs. Minimum data: two evaluation points with accuracy. NaN:
    silent.
    """
    if not e.evals or not eval_is_finite(e) or not _rise(e):
        return None
    best, last = _lowest(e), e.evals[-1]
    since = [point.token_accuracy for point in e.evals if point.step > best.step]
    tokens = sum(row.tokens for row in e.results)
    error = math.sqrt(best.token_accuracy * (1 - best.token_accuracy) / tokens) if tokens else 0.0
    limit = max(0.005, least_change("token_accuracy", best.token_accuracy, e.seed_noise), error)
    rise = last.token_accuracy - best.token_accuracy
    # Negated as a whole, so that a NaN on either side is silent.
    if not (rise > limit and fmean(since) - best.token_accuracy > limit / 2):
        return better_answers(e, best, last)
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
            "If answers matter rather than probabilities, choose by loop.metric pass_rate and go "
            "on; else take the best point, or train fewer epochs or at a lower learning rate."
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
        f"Both losses have risen since step {best.step}: the eval loss from {best.eval_loss:.3f} "
        f"to {last.eval_loss:.3f}, the train loss from {before:.3f} to {since:.3f}.",
        {
            "best_step": best.step,
            "eval_lowest": best.eval_loss,
            "eval_last": last.eval_loss,
            "train_before": before,
            "train_last": since,
        },
        "Lower the learning rate by a factor of 2 to 5, or let it decay "
        "(training.lr_scheduler_type).",
    )


def _never_landed(e: Evidence) -> Finding | None:
    curve, rate = e.eval_curve, max((step.learning_rate for step in e.steps), default=0.0)
    if rate < FAR_TOO_HIGH or len(curve) < 3 or not eval_is_finite(e):
        return None
    lowest, before = min(loss for _, loss in curve), at(curve, 0.75 * curve[-1][0])
    if not lowest > max(0.2, 0.2 * e.untrained_loss) or curve[-1][1] < 0.9 * before:
        return None
    return _too_fast(
        f"The eval loss stays at {lowest:.2f}: a learning rate of {rate:g} overshoots at each "
        "step.",
        {"learning_rate": rate, "eval_lowest": lowest, "eval_last": curve[-1][1]},
        "Lower the learning rate by a factor of 10: the best ones for LoRA are below 1e-2.",
    )


def _too_fast(message: str, evidence: Figures, remedy: str = CALMER) -> Finding:
    return Finding(
        kind="oscillation", severity="warning", message=message, evidence=evidence, remedy=remedy
    )


def _lowest(e: Evidence) -> EvalPoint:
    return min(e.evals, key=lambda point: point.eval_loss)


def _rise(e: Evidence) -> bool:
    """Whether the eval loss ends above its lowest by more than 3%, 0.01 nats and measured noise.

    Its mean since the lowest point must be above by half of that, so that one odd last point does
    not count.
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
    """Whether the train loss rose after `step`, by two standard errors."""
    train = train_since(e, step)
    return train is not None and train[1] > train[0] + 2 * train[2]


def _what_train_did(e: Evidence, step: int) -> str:
    train = train_since(e, step)
    if train is None:
        return ""
    fell = train[1] < train[0]
    return " while the train loss " + ("went on falling" if fell else "did not rise")


def _is_wide(e: Evidence, gap: float, train_loss: float) -> bool:
    """Whether a gap is too wide while the eval loss hardly falls any more."""
    limit = max(0.1, 0.25 * train_loss, least_change("overfit_gap", gap, e.seed_noise))
    points = [point for point in e.evals if point.step > 0]
    return len(points) >= 2 and gap > limit and not _eval_still_falls(e, gap)


def _gap_at_start(e: Evidence) -> float:
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


def _eval_still_falls(e: Evidence, gap: float) -> bool:
    curve = e.eval_curve
    before = at(curve, 0.75 * curve[-1][0])
    return len(curve) >= 2 and before - curve[-1][1] > max(0.02 * before, 0.01, 0.1 * gap)
