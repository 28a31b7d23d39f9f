"""Rules on losses that rise again: too high a learning rate, or a train set learned by heart."""

from __future__ import annotations

import math
from statistics import fmean

from pytest_ftloop.core.noise import least_change
from pytest_ftloop.core.records import EvalPoint, Finding
from pytest_ftloop.diagnose.answers import better_answers
from pytest_ftloop.diagnose.evidence import Evidence, Figures
from pytest_ftloop.diagnose.gaps import gap_at_start, is_flat, is_wide
from pytest_ftloop.diagnose.rates import FAR_TOO_HIGH, highest_rate, lower_rate
from pytest_ftloop.diagnose.rises import rise_of, train_rose
from pytest_ftloop.diagnose.windows import (
    at,
    eval_is_finite,
    finite_losses,
    nats,
    relative_noise,
    stride,
    swings,
    tail_mean,
    train_since,
    window_means,
)

CALMER = ", warm up, or use a larger effective batch"


def oscillation(e: Evidence) -> Finding | None:
    """The learning rate is too high to settle, though the run did not diverge.

    Signal, any of:

    - the mean train loss of some 5 steps was over 1.25 times that at the start, and 0.5 nats and 5
      standard errors above it: the run first destroyed the model and then relearned. The start is
      the mean of the first 3 steps, but at most the untrained base's loss or the first step's, as
      the very first update can destroy it;
    - a quarter of the evaluation points, at least two, are peaks, more than 5% and 0.05 nats above
      the lows on both sides. A peak may last some points; a steady rise is `overfitting`;
    - the eval loss rose to the end (`rise_of`), and the train loss rose with it, by two standard
      errors, or the run is still in its first epoch;
    - the learning rate was 0.05 or more, and the lowest eval loss is over a fifth of the untrained
      base's and falls by at most a tenth in the last quarter: every step overshoots.

    Source: for the share of points, practice and a measured run that learns although a fifth of its
    points are peaks; for the rest, measured runs. Minimum data: 10 steps, or 5 evaluation points,
    or three that rise. NaN: those steps are left out; with a NaN eval loss there is no peak and no
    rise.
    """
    return _destroyed_first(e) or _swung(e) or _both_rose(e) or _never_landed(e)


def overfitting(e: Evidence) -> Finding | None:
    """The model learns its train set by heart.

    Signal, any of:

    - the eval loss rose to the end (see `rise_of`) while the train loss did not rise. If that rose
      too, or the run is in its first epoch, in which no row is seen twice, it is `oscillation`; if
      the log is too coarse to tell, it is neither;
    - at the best point eval - train is over 0.1 nats, 25% of the train loss and its measured noise,
      and the eval loss hardly falls any more (see `is_flat`). A gap that was there at the start is
      subtracted, see `gap_at_start`.

    If accuracy went on rising, it is `overconfidence` instead. Source: practice, whose gap / train
    over 0.1 alone raises false alarms: a converged run with 0.08 and 0.10 has 0.25; and replays of
    logs (benchmarks/refute.py). Minimum data: three evaluation points; for the gap a train loss.
    NaN: silent.
    """
    if not e.evals or not eval_is_finite(e) or overconfidence(e):
        return None
    best, last, rise = _lowest(e), e.evals[-1], rise_of(e)
    train_loss, gap = e.metrics.get("train_loss", math.nan), e.metrics.get("overfit_gap", math.nan)
    at_start = gap_at_start(e)
    if rise and not rise.is_of_new_rows and _train_did_not_rise(e, best.step):
        message = (
            f"The eval loss rose from {nats(best.eval_loss)} (step {best.step}) to "
            f"{nats(last.eval_loss)}{_what_train_did(e, best.step)}."
        )
    elif is_wide(e, gap - at_start, train_loss) and is_flat(e, gap - at_start):
        of_epoch = "" if e.measured_train else "last epoch's mean "
        from_the_start = f", {nats(at_start)} of it from the start" if at_start else ""
        message = (
            f"The eval loss is {nats(gap)} above the {of_epoch}train loss of {nats(train_loss)}"
            f"{from_the_start}, and hardly falls any more."
        )
    else:
        return None
    fewer = "" if best is last else "train fewer epochs, "
    lora = "halve the rank, " if e.of_lora else ""
    dropout = "lora.lora_dropout" if e.of_lora else "the model's dropout"
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
            **({"jitter": rise.jitter} if rise else {}),
        },
        remedy=f"Halve the learning rate, {_regularise(e, dropout)}{lora}{fewer}or add data.",
    )


def overconfidence(e: Evidence) -> Finding | None:
    """More answers are right, and the wrong ones are more certain.

    Signal: the eval loss rose to the end (see `rise_of`), while the accuracy (of tokens, or a
    classifier's own) rose from the point of the lowest loss to the end, by more than half a point,
    its measured noise and, if the number of tokens is known, one standard error of an accuracy over
    so many; and its mean since that point by half as much. `overfitting` is silent then, because
    the model's answers still get better. Source: practice ("eval loss up while accuracy rises:
    warn, don't fail"), and measured runs. Minimum data: three evaluation points with accuracy. NaN:
    silent.
    """
    if rise_of(e) is None:
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
            f"The eval loss rose from {nats(best.eval_loss)} (step {best.step}) to "
            f"{nats(last.eval_loss)} while accuracy rose from {best.token_accuracy:.1%} to "
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


def _regularise(e: Evidence, dropout: str) -> str:
    """The dropout and the weight decay to set, each above what is in force."""
    known = e.settings
    now = 0.0 if known is None else float(known.lora.get("lora_dropout") or 0.0)
    decay = 0.0 if known is None else float(known.training.get("weight_decay") or 0.0)
    parts = []
    if now < 0.1:
        parts.append(f"{'raise' if now else 'set'} {dropout} to {'0.1' if now else '0.05-0.1'}")
    if decay < 0.1:
        parts.append(
            f"{'raise' if decay else 'set'} weight decay to {'0.1' if decay else '0.01-0.1'}"
        )
    return f"{' or '.join(parts)}, " if parts else ""


def _destroyed_first(e: Evidence) -> Finding | None:
    losses = finite_losses(e)
    if len(losses) < 10:
        return None
    # An entry of a coarse log is a mean itself: several would span the peak and what is around it.
    few, more = (3, 5) if stride(e) < 10 else (1, 1)
    start, last = window_means(losses, few)[0], tail_mean(losses)
    peak = max(window_means(losses, more))
    if math.isfinite(e.untrained_loss):
        start = min(start, max(e.untrained_loss, losses[0]))
    error = relative_noise(losses) * math.sqrt(1 / few + 1 / more)
    if not (peak - start > 0.5 and math.log(peak / start) > max(math.log(1.25), 5 * error)):
        return None
    message = (
        f"The train loss first rose from {start:.2f} to {peak:.2f} before it fell."
        if last <= start
        else f"The train loss rose from {start:.2f} to {peak:.2f} and ended at {last:.2f}."
    )
    figures: Figures = {"train_first": start, "train_peak": peak, "train_last": last}
    return _too_fast(message, figures, lower_rate(e, "2 to 5", CALMER))


def _swung(e: Evidence) -> Finding | None:
    inner = max(len(e.eval_curve) - 2, 0)
    peaks = swings([loss for _, loss in e.eval_curve]) if eval_is_finite(e) else 0
    if peaks < 2 or peaks < 0.25 * inner:
        return None
    message = f"The eval loss swung up and down by over 5%, {peaks} times in {inner} points."
    figures: Figures = {"swings": peaks, "points": inner}
    return _too_fast(message, figures, lower_rate(e, "2 to 5", CALMER))


def _both_rose(e: Evidence) -> Finding | None:
    rise = rise_of(e)
    if rise is None or overconfidence(e):
        return None
    best, last = rise.lowest, rise.last
    evals = f"the eval loss from {nats(best.eval_loss)} to {nats(last.eval_loss)}"
    figures: Figures = {
        "best_step": best.step,
        "eval_lowest": best.eval_loss,
        "eval_last": last.eval_loss,
        "jitter": rise.jitter,
    }
    train = train_since(e, best.step)
    if train is not None and train_rose(e, best.step):
        before, since, _ = train
        message = (
            f"Both losses have risen since step {best.step}: {evals}, the train loss from "
            f"{nats(before)} to {nats(since)} on average."
        )
        figures |= {"train_before": before, "train_last": since}
    elif rise.is_of_new_rows:
        message = (
            f"The eval loss rose within the first epoch, in which no row is seen twice: since step "
            f"{best.step} {evals.removeprefix('the eval loss ')}."
        )
    else:
        return None
    then = ", or let it decay (training.lr_scheduler_type)"
    return _too_fast(message, figures, lower_rate(e, "2 to 5", then))


def _never_landed(e: Evidence) -> Finding | None:
    curve, rate = e.eval_curve, highest_rate(e)
    if not rate >= FAR_TOO_HIGH or len(curve) < 3 or not eval_is_finite(e):
        return None
    lowest, before = min(loss for _, loss in curve), at(curve, 0.75 * curve[-1][0])
    if not lowest > max(0.2, 0.2 * e.untrained_loss) or curve[-1][1] < 0.9 * before:
        return None
    return _too_fast(
        f"The eval loss stays at {lowest:.2f}: a learning rate of {rate:g} overshoots at each "
        "step.",
        {"learning_rate": rate, "eval_lowest": lowest, "eval_last": curve[-1][1]},
        lower_rate(e, "10"),
    )


def _too_fast(message: str, evidence: Figures, remedy: str) -> Finding:
    return Finding(
        kind="oscillation", severity="warning", message=message, evidence=evidence, remedy=remedy
    )


def _lowest(e: Evidence) -> EvalPoint:
    return min(e.evals, key=lambda point: point.eval_loss)


def _train_did_not_rise(e: Evidence, step: int) -> bool:
    """Whether the train loss since `step` is known not to be higher, or none is logged at all.

    In a log of less than a dozen entries hardly any rise is significant, so 5% is enough to doubt.
    """
    train = train_since(e, step)
    if train is None:
        return not e.steps
    before, since, _ = train
    return not train_rose(e, step) and (len(finite_losses(e)) >= 12 or since <= 1.05 * before)


def _what_train_did(e: Evidence, step: int) -> str:
    train = train_since(e, step)
    if train is None:
        return ""
    fell = train[1] < train[0]
    return " while the train loss " + ("went on falling" if fell else "did not rise")
