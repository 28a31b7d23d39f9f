"""Rules over the curves of one iteration.

Common to all. Of the train loss means of windows of steps are compared, see `windows`. The eval
loss is an exact mean over the same examples each time: small changes of it count. Where a figure
is NaN or missing, `non_finite` speaks or the rule stays silent: no other rule fires on a NaN.
"Practice" is published LoRA practice, "measured" are runs recorded for tests/diagnose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from statistics import fmean, median

from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.noise import noise
from pytest_ftloop.diagnose.windows import (
    at,
    batch_noise,
    eval_is_finite,
    finite_losses,
    last_quarters,
    quarter_error,
    relative_noise,
    tail_mean,
    window_means,
    window_size,
)
from pytest_ftloop.records import EvalPoint, Finding

Rule = Callable[[Evidence], Finding | None]
Evidences = dict[str, float | int | str]


def non_finite(e: Evidence) -> Finding | None:
    """A NaN or infinite loss or gradient.

    Signal: a non-finite train or eval loss, a run ended for it, or a non-finite gradient norm in
    half of the last 10 steps or more (single ones are fp16 loss scaling at work: those steps are
    skipped and the run is healthy). Source: what the trainer logs for such runs, measured. Minimum
    data: one step or one evaluation point; three for the gradient norm. NaN: this rule's matter.
    """
    losses = [step.step for step in e.steps if not math.isfinite(step.loss)]
    norms = [s.step for s in e.steps if s.grad_norm is not None and not math.isfinite(s.grad_norm)]
    evals = [point.step for point in e.evals if not math.isfinite(point.eval_loss)]
    last = [s.step for s in e.steps[-10:]]
    norms_stay = len(last) >= 3 and sum(step in last for step in norms) >= max(3, len(last) / 2)
    ended = e.ended_early.startswith(("loss is", "gradient norm is"))
    if not (losses or evals or norms_stay or ended):
        return None
    # A filter that hides NaN losses (the trainer's default) leaves the gradient norm to tell first.
    stay = norms if norms_stay or ended else []
    told = {"train loss": losses, "eval loss": evals, "gradient norm": stay}
    what, where = min(
        ((name, steps[0]) for name, steps in told.items() if steps),
        key=lambda first: first[1],
        default=("gradient norm", e.steps[-1].step if e.steps else 0),
    )
    return Finding(
        kind="non-finite",
        severity="error",
        message=f"The {what} became NaN or infinite at step {where} of {e.planned_steps}.",
        evidence={
            "first_step": where,
            "losses": len(losses),
            "grad_norms": len(norms),
            "eval_losses": len(evals),
        },
        remedy=(
            "Lower the learning rate 10 times and warm up over the first 5 to 10% of the steps; "
            "keep max_grad_norm at 1.0, and train in bf16 or fp32 rather than fp16."
        ),
    )


def diverged(e: Evidence) -> Finding | None:
    """The loss went up and stayed up.

    Signal, any of: the run was ended for it; the mean train loss of the last window is over 1.5
    times the lowest window's, by more than 0.25 nats and 5 standard errors (so neither batch noise
    nor the wobble of a memorised, tiny loss counts); train and eval both end over 1.1 times the
    untrained base's eval loss; the last 5 losses within 1% of ln(vocabulary) with gradient exactly
    0. A gradient norm over 10 times its median is given as evidence only: healthy runs spike too.
    Windows: a tenth of the run, 3 to 10 steps. Source: runs with absurd learning rates, measured.
    Minimum data: 6 finite losses. NaN: those steps are left out, `non_finite` tells of them.
    """
    losses = finite_losses(e)
    if e.ended_early.startswith(("diverged", "the loss froze")):
        lowest = min(window_means(losses, window_size(losses)), default=math.nan)
        return _diverged(e, e.ended_early, lowest, tail_mean(losses))
    if len(losses) < 6:
        return None
    window = window_size(losses)
    means = window_means(losses, window)
    lowest, last = min(means), means[-1]
    error = relative_noise(losses) * math.sqrt(2 / window)
    if last - lowest > 0.25 and math.log(last / lowest) > max(math.log(1.5), 5 * error):
        reason = f"the train loss ended at {last:.2f}, {last / lowest:.1f} times its lowest, "
        return _diverged(e, f"{reason}{lowest:.2f}", lowest, last)
    base, final = e.base_eval_loss, _last_eval(e)
    if base > 0.25 and last > 1.1 * base and final > 1.1 * base and last > fmean(losses[:2]):
        reason = f"training made the model worse: eval loss {final:.2f}, untrained {base:.2f}"
        return _diverged(e, reason, min(lowest, base), last)
    if _frozen(e):
        reason = f"the loss froze at {losses[-1]:.2f}, ln(vocabulary), with zero gradient"
        return _diverged(e, reason, lowest, last)
    return None


def no_signal(e: Evidence) -> Finding | None:
    """Nothing to learn from, or nothing that could learn: a data or wiring fault, never tuned.

    Signal, any of: no labelled token; no trainable parameter; a learning rate of 0 at every step;
    loss exactly 0 at every step; gradient exactly 0 at every step; the adapter never moved. "Every"
    step, because a memorised set logs losses of 0.0 late in a healthy run. The last three need 2
    steps, and finite losses and gradients (a NaN run moves nothing either, and is `non_finite`).
    Source: faults of wiring, measured. Unknown numbers (None): silent.
    """
    if e.labelled_tokens == 0:
        return _no_signal(
            "no row of the train set has a labelled token",
            "Check that completions are not empty, and that max_length does not cut them off.",
            {"labelled_tokens": 0},
        )
    if e.trainable_parameters == 0:
        return _no_signal(
            "no parameter of the adapter is trainable",
            "Check lora.target_modules: its names must match modules of this model.",
            {"trainable_parameters": 0},
        )
    norms = [step.grad_norm for step in e.steps]
    if len(e.steps) < 2 or not all(math.isfinite(s.loss) for s in e.steps):
        return None
    if not all(norm is None or math.isfinite(norm) for norm in norms):
        return None
    figures: Evidences = {"steps": e.steps[-1].step}
    if all(step.learning_rate == 0 for step in e.steps):
        return _no_signal(
            "the learning rate was 0 at every step",
            "Check training.learning_rate, and that warmup is shorter than the run.",
            figures,
        )
    if all(step.loss == 0 for step in e.steps):
        return _no_signal(
            "the train loss was exactly 0 at every step",
            "Check that the labels are the completion's tokens.",
            figures,
        )
    if all(norm == 0 for norm in norms):
        return _no_signal(
            "the gradient was exactly 0 at every step",
            "Check that the adapter lies between the loss and the data (lora.target_modules).",
            figures,
        )
    if not e.adapter_moved:
        return _no_signal(
            f"no weight of the adapter moved in {e.steps[-1].step} steps",
            "Check lora.target_modules, and that nothing freezes the adapter.",
            figures,
        )
    return None


def not_learning(e: Evidence) -> Finding | None:
    """The run had its steps and hardly changed anything.

    Signal: train loss fell less than 5% from the first to the last tenth of the steps (3 to 10
    steps each), and the best eval loss is less than 5% below the untrained base's; or less than 15%
    both, and the eval loss fell about as fast at the end as at first, see `_has_just_begun`. Eval
    is exact, so with it train only must not contradict (by its standard error); without an eval
    loss from before the first step train decides alone, and must then fall short by a standard
    error. Silent where the loss starts under 0.1: nothing was left to learn. Source: practice; runs
    at a learning rate 200 times too low, measured. Minimum data: 10 finite losses. NaN: those steps
    are left out; with a NaN eval loss: silent.
    """
    losses = finite_losses(e)
    if len(losses) < 10:
        return None
    window = window_size(losses)
    head, tail = fmean(losses[:window]), fmean(losses[-window:])
    if head < 0.1:
        return None
    train_fall = 1 - tail / head
    error = batch_noise(losses) * math.sqrt(2 / window) / head
    curve = e.eval_curve
    figures: Evidences = {
        "train_first": head,
        "train_last": tail,
        "train_fall": train_fall,
        "steps": e.steps[-1].step,
    }
    if not eval_is_finite(e):
        return None
    if len(curve) >= 2 and curve[0][0] == 0 and curve[0][1]:
        eval_fall = 1 - min(loss for _, loss in curve[1:]) / curve[0][1]
        most = 0.15 if _has_just_begun(e) else 0.05
        if not (eval_fall < most and train_fall < most + error):
            return None
        figures |= {"eval_first": curve[0][1], "eval_fall": eval_fall}
    elif train_fall + error >= 0.05:
        return None
    return Finding(
        kind="not-learning",
        severity="warning",
        message=(
            f"The model hardly learned: the train loss went from {head:.3f} to {tail:.3f} "
            f"({_percent(-train_fall)}) in {e.steps[-1].step} steps."
        ),
        evidence=figures,
        remedy=(
            "Shorten the warmup, which is longer than the run."
            if _only_warmed_up(e)
            else "Raise the learning rate 3 to 10 times; then more epochs, lora.target_modules "
            "all-linear, a higher rank."
        ),
    )


def underfit(e: Evidence) -> Finding | None:
    """Healthy, and still falling at the end: a higher learning rate or more epochs gain more.

    Signal: over the last quarter of the steps the eval loss fell by more than 2% and 0.05 nats, the
    last point is the best one, train didn't rise, and eval - train is under 0.1 nats or 25% (as for
    `overfitting`). Eval points are interpolated; where none lies in the second half
    before the last, the train loss must have fallen so and by two standard errors too. A quarter
    of a decaying schedule understates what is left, hence the low bound; 0.05 nats keep a run that
    nearly reached zero loss from being called unfinished. Minimum data: two points (the untrained
    base counts as one); the train loss is only consulted from 8 steps on. Source: practice, and
    measured runs at too low a learning rate. NaN eval loss: silent; NaN gap: taken as small.
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
        coarse = curve[-2][0] < 0.5 * curve[-1][0]
        if fourth > third + error or (coarse and third - fourth < max(0.05, 0.02 * third, error)):
            return None
    return Finding(
        kind="underfit",
        severity="info",
        message=(
            f"The run ended while still improving: in its last quarter the eval loss fell from "
            f"{before:.3f} to {last:.3f} ({_percent(-fall / before)})."
        ),
        evidence={
            "eval_first": curve[0][1],
            "eval_last": last,
            "eval_fall": 1 - last / curve[0][1] if curve[0][1] else 0.0,
            "eval_fall_last_quarter": fall / before,
        },
        remedy="Raise the learning rate 3 to 5 times, or train for more epochs.",
    )


def oscillation(e: Evidence) -> Finding | None:
    """The learning rate is too high to settle, though the run did not diverge.

    Signal, any of: the mean train loss of some 5 steps was over 1.25 times that at the start (and
    0.5 nats and 5 standard errors above it), so the run first destroyed and then relearned; or over
    20% of the evaluation points, two at least, lie more than 5% and 0.05 nats above both their
    neighbours (a steady rise is `overfitting`). The start is the mean of the first 3 steps, but no
    more than the untrained base's loss or the first step's: the first update may destroy already.
    Source: practice for the share of points; runs that
    first destroyed, measured. Minimum data: 10 steps, or 5 evaluation points (two swings, and one
    in five). NaN: those steps are left out; no swing has a NaN in it.
    """
    losses = finite_losses(e)
    curve = [loss for _, loss in e.eval_curve]
    inner = list(zip(curve, curve[1:], curve[2:], strict=False))
    swings = sum(top - max(old, new) > max(0.05, 0.05 * top) for old, top, new in inner)
    start, peak, error = math.nan, math.nan, math.inf
    if len(losses) >= 10:
        start, peak = window_means(losses, 3)[0], max(window_means(losses, 5))
        if math.isfinite(e.base_eval_loss):
            start = min(start, max(e.base_eval_loss, losses[0]))
        error = relative_noise(losses) * math.sqrt(1 / 3 + 1 / 5)
    if peak - start > 0.5 and math.log(peak / start) > max(math.log(1.25), 5 * error):
        message = f"The train loss first rose from {start:.2f} to {peak:.2f} before it fell."
    elif swings >= 2 and swings > 0.2 * len(inner):
        message = f"The eval loss swung up and down by over 5% at {swings} of {len(inner)} points."
    else:
        return None
    evidence: Evidences = {"swings": swings, "points": len(inner)}
    if math.isfinite(peak):
        evidence |= {"train_first": start, "train_peak": peak}
    return Finding(
        kind="oscillation",
        severity="warning",
        message=message,
        evidence=evidence,
        remedy="Lower the learning rate 2 to 5 times, warm up, or use a larger effective batch.",
    )


def overfitting(e: Evidence) -> Finding | None:
    """The model learns its train set by heart.

    Signal, any of: the eval loss rose to the end (see `_rise`) while train did not rise since; or
    at the best point eval - train is over 0.1 nats and over 25% of the train loss, and eval is not
    still falling (in the last quarter by over 2%, 0.01 nats and a tenth of that gap). Practice's
    gap / train > 0.1 alone would cry wolf: a converged run with train 0.08 and eval 0.10 has 0.25.
    Where accuracy went on rising `overconfidence` speaks instead.
    Minimum data: two evaluation points for the rise; a train loss in eval mode for the gap. NaN:
    silent.
    """
    if not e.evals or not eval_is_finite(e) or overconfidence(e):
        return None
    best, last = _lowest(e), e.evals[-1]
    train_loss, gap = e.metrics.get("train_loss", math.nan), e.metrics.get("overfit_gap", math.nan)
    if _rise(e) and not _train_rose_since(e, best.step):
        message = (
            f"The eval loss rose from {best.eval_loss:.3f} (step {best.step}) to "
            f"{last.eval_loss:.3f} while the train loss went on falling."
        )
    elif gap > max(0.1, 0.25 * train_loss) and not _eval_still_falls(e, gap):
        message = (
            f"The eval loss is {gap:.3f} above the train loss of {train_loss:.3f}, "
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
    """More tokens are right, and those that are wrong are wrong with more certainty.

    Signal: the eval loss rose to the end (see `_rise`) while token accuracy rose since the loss was
    lowest by more than half a point and, where the tokens are known, by more than one standard
    error of an accuracy over as many; its mean since then by half of that. `overfitting` is silent
    then: by what the model answers it is still getting better. Source: practice ("eval loss up
    while accuracy rises: warn, don't fail"), and runs measured. Minimum data: two evaluation points
    with their token accuracy. NaN: silent.
    """
    if not e.evals or not eval_is_finite(e) or not _rise(e):
        return None
    best, last = _lowest(e), e.evals[-1]
    since = [point.token_accuracy for point in e.evals if point.step > best.step]
    tokens = sum(row.tokens for row in e.results)
    error = math.sqrt(best.token_accuracy * (1 - best.token_accuracy) / tokens) if tokens else 0.0
    limit = max(noise("token_accuracy", best.token_accuracy), error)
    rise = last.token_accuracy - best.token_accuracy
    # Written so that a NaN on either side is silent.
    if not (rise > limit and fmean(since) - best.token_accuracy > limit / 2):
        return None
    return Finding(
        kind="overconfidence",
        severity="warning",
        message=(
            f"The eval loss rose from {best.eval_loss:.3f} (step {best.step}) to "
            f"{last.eval_loss:.3f} while token accuracy rose from {best.token_accuracy:.1%} to "
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


def converged(e: Evidence) -> Finding | None:
    """The run came to its end: more of the same brings nothing.

    Signal: over the last quarter of the steps the eval loss moved less than 1% or 0.005 nats, and
    train fell less than 5%, 0.005 nats or two standard errors. Source: practice ("plateau, train
    flat"). Where nothing is memorised (the train loss in eval mode is over 0.2 nats, and the gap
    within a tenth of it) the remedy is a higher learning rate: measured, the quickstart's first
    iteration learned which labels there are and no more. Minimum data: 12 steps and an evaluation
    point in the second half before the last. NaN: silent; a NaN gap changes no remedy.
    """
    losses, curve = finite_losses(e), e.eval_curve
    if len(losses) < 12 or len(e.evals) < 2 or not eval_is_finite(e):
        return None
    last, step = curve[-1][1], curve[-1][0]
    if curve[-2][0] < 0.5 * step:
        return None
    before = at(curve, 0.75 * step)
    third, fourth = last_quarters(losses)
    still = max(0.05 * third, 0.005, 2 * quarter_error(losses))
    if abs(before - last) > max(0.01 * before, 0.005) or third - fourth > still:
        return None
    return Finding(
        kind="converged",
        severity="info",
        message=f"The run converged: in its last quarter the eval loss stayed at {last:.3f}.",
        evidence={"eval_before": before, "eval_last": last, "train_last": fourth},
        remedy=(
            "Nothing is memorised yet and the loss is not low: raise the learning rate 3 to 10 "
            "times; if that brings nothing either, look at the failing examples, or at the data."
            if _nothing_is_memorised(e)
            else "More epochs bring nothing: look at the failing examples, or at the data."
        ),
    )


def out_of_memory(e: Evidence) -> Finding | None:
    """Out of memory was met and survived.

    Signal: the training names a recovery. The result is unaffected but for rounding. Source: the
    run's own record, so there is no threshold, no minimum of data and no NaN.
    """
    if not e.recoveries:
        return None
    times = "once" if len(e.recoveries) == 1 else f"{len(e.recoveries)} times"
    return Finding(
        kind="out-of-memory",
        severity="info",
        message=f"The run met the memory limit {times}: {'; '.join(e.recoveries)}.",
        evidence={"recoveries": len(e.recoveries), "last": e.recoveries[-1]},
        remedy=(
            "State the smaller training.per_device_train_batch_size and the larger "
            "training.gradient_accumulation_steps, so that no run starts with the failure."
        ),
    )


RULES: tuple[Rule, ...] = (
    no_signal,
    non_finite,
    diverged,
    not_learning,
    oscillation,
    overfitting,
    overconfidence,
    underfit,
    converged,
    out_of_memory,
)


def _diverged(e: Evidence, reason: str, lowest: float, last: float) -> Finding:
    norms = [s.grad_norm for s in e.steps if s.grad_norm is not None and math.isfinite(s.grad_norm)]
    evidence: Evidences = {"lowest": lowest, "last": last, "ratio": last / max(lowest, 1e-9)}
    if norms and median(norms):
        evidence["grad_norm_times_median"] = max(norms) / median(norms)
    return Finding(
        kind="diverged",
        severity="error",
        message=f"{reason[:1].upper()}{reason[1:]}.",
        evidence=evidence,
        remedy="Lower the learning rate 3 to 10 times, or add warmup.",
    )


def _no_signal(reason: str, remedy: str, evidence: Evidences) -> Finding:
    return Finding(
        kind="no-signal",
        severity="error",
        message=f"Nothing can be learned: {reason}.",
        evidence=evidence,
        remedy=f"{remedy} No setting cures this.",
        tunable=False,
    )


def _last_eval(e: Evidence) -> float:
    return e.evals[-1].eval_loss if e.evals else math.nan


def _lowest(e: Evidence) -> EvalPoint:
    return min(e.evals, key=lambda point: point.eval_loss)


def _rise(e: Evidence) -> bool:
    """Whether the eval loss ends above its lowest by more than 3% and 0.01 nats.

    Its mean since the lowest point by half of that, so one odd last point does not count.
    """
    lowest = _lowest(e)
    after = [point.eval_loss for point in e.evals[e.evals.index(lowest) + 1 :]]
    limit = max(0.03 * lowest.eval_loss, 0.01)
    return (
        bool(after)
        and after[-1] - lowest.eval_loss > limit
        and fmean(after) - lowest.eval_loss > limit / 2
    )


def _eval_still_falls(e: Evidence, gap: float) -> bool:
    curve = e.eval_curve
    before = at(curve, 0.75 * curve[-1][0])
    return len(curve) >= 2 and before - curve[-1][1] > max(0.02 * before, 0.01, 0.1 * gap)


def _nothing_is_memorised(e: Evidence) -> bool:
    train_loss, gap = (e.metrics.get(name, math.nan) for name in ("train_loss", "overfit_gap"))
    return train_loss > 0.2 and abs(gap) <= 0.1 * train_loss


def _has_just_begun(e: Evidence) -> bool:
    """Whether the eval loss fell in the second half of the learning by 2/3 of that in the first.

    Learning that gets anywhere slows down. Halves of the sum of the learning rates: a decaying
    schedule slows any run down, and a warmup hurries it.
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


def _train_rose_since(e: Evidence, step: int) -> bool:
    """Whether the train loss after `step` is above that around it: then it is not overfitting."""
    losses = finite_losses(e)
    around = [s.loss for s in e.steps if s.step <= step and math.isfinite(s.loss)]
    since = [s.loss for s in e.steps if s.step > step and math.isfinite(s.loss)]
    if not around or not since:
        return False
    window = min(window_size(losses), len(around), len(since))
    error = batch_noise(losses) * math.sqrt(2 / window)
    return fmean(since[-window:]) > fmean(around[-window:]) + 2 * error


def _frozen(e: Evidence) -> bool:
    last = e.steps[-5:]
    uniform = math.log(e.vocabulary) if e.vocabulary > 1 else math.nan
    return (
        len(e.steps) >= 6
        and all(s.grad_norm == 0 and abs(s.loss - uniform) <= 0.01 * uniform for s in last)
        and any(s.grad_norm for s in e.steps)
    )


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"
