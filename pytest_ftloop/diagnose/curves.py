"""Rules over the curves of one iteration, and over the iterations of its chain.

Common to all. Train losses are means of one noisy batch each, so only means of windows of steps
are compared, and a window's standard error is judged by the step-to-step jumps (their median, so a
trend or a spike doesn't inflate it). The eval loss is an exact mean over the same examples each
time: small changes of it count. Where a figure is NaN or missing, `non_finite` speaks or the rule
stays silent: no other rule fires on a NaN. Sources: FIELD.md, "LoRA practice".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import fmean, median

from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.noise import better_beyond_noise, noise
from pytest_ftloop.metrics import METRICS, format_figure, split_name
from pytest_ftloop.records import Finding

Rule = Callable[[Evidence], Finding | None]
Evidences = dict[str, float | int | str]


def non_finite(e: Evidence) -> Finding | None:
    """A NaN or infinite loss or gradient.

    Signal: a non-finite train or eval loss, a run ended for it, or a non-finite gradient norm in
    half of the last 10 steps or more (single ones are fp16 loss scaling at work: those steps are
    skipped and the run is healthy). Minimum data: one step or one evaluation point.
    """
    losses = [step.step for step in e.steps if not math.isfinite(step.loss)]
    norms = [s.step for s in e.steps if s.grad_norm is not None and not math.isfinite(s.grad_norm)]
    evals = [point.step for point in e.evals if not math.isfinite(point.eval_loss)]
    last = [s.step for s in e.steps[-10:]]
    norms_stay = len(last) >= 3 and sum(step in last for step in norms) >= max(3, len(last) / 2)
    ended = e.ended_early.startswith(("loss is", "gradient norm is"))
    if not (losses or evals or norms_stay or ended):
        return None
    what, where = next(
        (name, steps[0])
        for name, steps in (
            ("train loss", losses),
            ("eval loss", evals),
            ("gradient norm", norms or [len(e.steps)]),
        )
        if steps
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
    Windows: a tenth of the run, 3 to 10 steps. Minimum data: 6 finite losses. NaN: not this rule.
    """
    losses = _finite_losses(e)
    if e.ended_early.startswith(("diverged", "the loss froze")):
        lowest = min(_window_means(losses, _window(losses)), default=math.nan)
        return _diverged(e, e.ended_early, lowest, _tail(losses))
    if len(losses) < 6:
        return None
    window = _window(losses)
    means = _window_means(losses, window)
    lowest, last = min(means), means[-1]
    error = _relative_noise(losses) * math.sqrt(2 / window)
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
    figures: Evidences = {"steps": len(e.steps)}
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
            f"no weight of the adapter moved in {len(e.steps)} steps",
            "Check lora.target_modules, and that nothing freezes the adapter.",
            figures,
        )
    return None


def not_learning(e: Evidence) -> Finding | None:
    """The run had its steps and hardly changed anything.

    Signal: train loss fell less than 5% from the first to the last tenth of the steps (3 to 10
    steps each), and the best eval loss is less than 5% below the untrained base's. Eval is exact,
    so with it train only must not contradict (by its standard error); without an eval loss from
    before the first step train decides alone, and must then fall short by a standard error. Silent
    below 10 steps, and where the loss starts under 0.1: nothing was left to learn.
    """
    losses = _finite_losses(e)
    if len(losses) < 10:
        return None
    window = _window(losses)
    head, tail = fmean(losses[:window]), fmean(losses[-window:])
    if head < 0.1:
        return None
    train_fall = 1 - tail / head
    error = _noise(losses) * math.sqrt(2 / window) / head
    curve = e.eval_curve
    figures: Evidences = {
        "train_first": head,
        "train_last": tail,
        "train_fall": train_fall,
        "steps": len(losses),
    }
    if len(curve) >= 2 and curve[0][0] == 0 and curve[0][1]:
        eval_fall = 1 - min(loss for _, loss in curve[1:]) / curve[0][1]
        if not (eval_fall < 0.05 and train_fall < 0.05 + error):
            return None
        figures |= {"eval_first": curve[0][1], "eval_fall": eval_fall}
    elif train_fall + error >= 0.05:
        return None
    return Finding(
        kind="not-learning",
        severity="warning",
        message=(
            f"The model hardly learned: the train loss went from {head:.3f} to {tail:.3f} "
            f"({_percent(-train_fall)}) in {len(losses)} steps."
        ),
        evidence=figures,
        remedy=(
            "Raise the learning rate 3 to 10 times; then more epochs, lora.target_modules "
            "all-linear, a higher rank."
        ),
    )


def underfit(e: Evidence) -> Finding | None:
    """Healthy, and still falling at the end: a higher learning rate or more epochs gain more.

    Signal: over the last quarter of the steps the eval loss fell by more than 2% and 0.05 nats, the
    last point is the best one, train didn't rise, and eval - train is under 0.1 nats or 10% (else
    `overfitting` may be near). Eval points are interpolated; where none lies in the second half
    before the last, the train loss must have fallen so and by two standard errors too. A quarter
    of a decaying schedule understates what is left, hence the low bound; 0.05 nats keep a run that
    nearly reached zero loss from being called unfinished. Minimum data: two points (the untrained
    base counts as one); the train loss is only consulted from 8 steps on. NaN gap: taken as small.
    """
    curve, losses = e.eval_curve, _finite_losses(e)
    if len(curve) < 2 or not _eval_is_finite(e) or curve[-1][1] > min(loss for _, loss in curve):
        return None
    last = curve[-1][1]
    before = _at(curve, 0.75 * curve[-1][0])
    fall = before - last
    train_loss, gap = e.metrics.get("train_loss", math.nan), e.metrics.get("overfit_gap", math.nan)
    if fall < 0.05 or fall < 0.02 * before or gap > max(0.1, 0.1 * train_loss):
        return None
    if len(losses) >= 8:
        quarter = len(losses) // 4
        third, fourth = fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])
        error = 2 * _noise(losses) * math.sqrt(2 / quarter)
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
            "eval_fall": 1 - last / curve[0][1],
            "eval_fall_last_quarter": fall / before,
        },
        remedy="Raise the learning rate 3 to 5 times, or train for more epochs.",
    )


def oscillation(e: Evidence) -> Finding | None:
    """The learning rate is too high to settle, though the run did not diverge.

    Signal, any of: the mean train loss of some 5 steps was over 1.25 times that of the first 3 (and
    0.5 nats and 5 standard errors above it), so the run first destroyed and then relearned; or over
    20% of the evaluation points, two at least, lie more than 5% and 0.05 nats above both their
    neighbours (a steady rise is `overfitting`). Minimum data: 10 steps, or 5 evaluation points.
    """
    losses = _finite_losses(e)
    curve = [loss for _, loss in e.eval_curve]
    inner = list(zip(curve, curve[1:], curve[2:], strict=False))
    swings = sum(top - max(old, new) > max(0.05, 0.05 * top) for old, top, new in inner)
    start, peak, error = math.nan, math.nan, math.inf
    if len(losses) >= 10:
        start, peak = _window_means(losses, 3)[0], max(_window_means(losses, 5))
        error = _relative_noise(losses) * math.sqrt(1 / 3 + 1 / 5)
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

    Signal, any of: the eval loss ends above its lowest by more than 3% and 0.01 nats (its mean
    since the lowest point half of that, so one odd last point does not count) while train did not
    rise since; or at the best point eval - train is over 0.1 nats and over 25% of the train loss,
    and eval is not still falling. FIELD.md's gap / train > 0.1 alone would cry wolf: a converged
    run with train 0.08 and eval 0.10 has 0.25. Minimum data: two evaluation points for the rise; a
    train loss in eval mode for the gap. NaN: silent.
    """
    if not e.evals or not _eval_is_finite(e):
        return None
    points = [point.eval_loss for point in e.evals]
    lowest = min(points)
    after = points[points.index(lowest) + 1 :]
    best = e.evals[points.index(lowest)]
    train_loss, gap = e.metrics.get("train_loss", math.nan), e.metrics.get("overfit_gap", math.nan)
    evidence: Evidences = {
        "eval_lowest": lowest,
        "eval_last": points[-1],
        "best_step": best.step,
        "best_epoch": best.epoch,
        "last_step": e.evals[-1].step,
        "train_loss": train_loss,
        "overfit_gap": gap,
    }
    limit = max(0.03 * lowest, 0.01)
    if (
        after
        and after[-1] - lowest > limit
        and fmean(after) - lowest > limit / 2
        and not _train_rose_since(e, best.step)
    ):
        message = (
            f"The eval loss rose from {lowest:.3f} (step {best.step}) to {after[-1]:.3f} while the "
            "train loss went on falling."
        )
    elif gap > max(0.1, 0.25 * train_loss) and not _eval_still_falls(e):
        message = (
            f"The eval loss is {gap:.3f} above the train loss of {train_loss:.3f}, "
            "and no longer falls."
        )
    else:
        return None
    return Finding(
        kind="overfitting",
        severity="warning",
        message=message,
        evidence=evidence,
        remedy=(
            "Halve the learning rate, set lora.lora_dropout to 0.05-0.1 or weight decay to "
            "0.01-0.1, halve the rank, train fewer epochs, or add data."
        ),
    )


def plateau(e: Evidence) -> Finding | None:
    """No more progress: over the last iterations, or at the end of this one.

    Signal over iterations: the best of the loop's metric moved by no more than noise (1% of a
    loss, half a point of a rate) in the last 2 of at least 3 iterations. Signal in the run: over
    the last quarter the eval loss moved less than 1% or 0.005 nats, and train fell less than 5% or
    two standard errors: converged. Minimum data: 12 steps and a point in the second half before
    the last. NaN: such an iteration brings no progress.
    """
    return _plateau_of_iterations(e) or _plateau_of_curve(e)


def out_of_memory(e: Evidence) -> Finding | None:
    """Out of memory was met and survived.

    Signal: the training names a recovery. The result is unaffected but for rounding.
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
    underfit,
    plateau,
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


def _plateau_of_iterations(e: Evidence) -> Finding | None:
    past = [iteration.metrics.get(e.metric, math.nan) for iteration in e.history]
    values = [*past, e.metrics.get(e.metric, math.nan)]
    direction = METRICS[split_name(e.metric)[0]]
    finite = [value for value in values[:-2] if math.isfinite(value)]
    if not finite:
        return None
    before = min(finite) if direction.better == "lower" else max(finite)
    if any(better_beyond_noise(e.metric, value, before) for value in values[-2:]):
        return None
    return Finding(
        kind="plateau",
        severity="info",
        message=(
            f"The best {e.metric}, {format_figure(e.metric, before)}, moved by no more than noise "
            "in the last 2 iterations."
        ),
        evidence={"best": before, "iterations": len(values), "noise": noise(e.metric, before)},
        remedy=(
            "Settings have little left to give: look at the failing examples, add data, or relax "
            "the gate."
        ),
    )


def _plateau_of_curve(e: Evidence) -> Finding | None:
    losses, curve = _finite_losses(e), e.eval_curve
    if len(losses) < 12 or len(e.evals) < 2 or not _eval_is_finite(e):
        return None
    last, step = curve[-1][1], curve[-1][0]
    if curve[-2][0] < 0.5 * step:
        return None
    before = _at(curve, 0.75 * step)
    quarter = len(losses) // 4
    third, fourth = fmean(losses[-2 * quarter : -quarter]), fmean(losses[-quarter:])
    error = 2 * _noise(losses) * math.sqrt(2 / quarter)
    if abs(before - last) > max(0.01 * before, 0.005) or third - fourth > max(0.05 * third, error):
        return None
    return Finding(
        kind="plateau",
        severity="info",
        message=f"The run converged: in its last quarter the eval loss stayed at {last:.3f}.",
        evidence={"eval_before": before, "eval_last": last, "train_last": fourth},
        remedy="More epochs bring nothing: look at the failing examples, or at the data.",
    )


def _finite_losses(e: Evidence) -> list[float]:
    return [step.loss for step in e.steps if math.isfinite(step.loss)]


def _eval_is_finite(e: Evidence) -> bool:
    return all(math.isfinite(point.eval_loss) for point in e.evals)


def _last_eval(e: Evidence) -> float:
    return e.evals[-1].eval_loss if e.evals else math.nan


def _window(losses: Sequence[float]) -> int:
    return max(3, min(10, len(losses) // 10))


def _window_means(losses: Sequence[float], window: int) -> list[float]:
    """Mean of each run of `window` steps, of the logs: one odd batch does not lift it far."""
    logs = [math.log(max(loss, 1e-6)) for loss in losses]
    count = max(1, len(logs) - window + 1)
    return [math.exp(fmean(logs[i : i + window])) for i in range(count)] if logs else []


def _tail(losses: Sequence[float]) -> float:
    return fmean(losses[-_window(losses) :]) if losses else math.nan


def _noise(losses: Sequence[float]) -> float:
    """Standard deviation of one batch's loss, from the median jump between neighbours."""
    if len(losses) < 2:
        return math.inf
    return 1.4826 * median(abs(new - old) for old, new in pairwise(losses)) / math.sqrt(2)


def _relative_noise(losses: Sequence[float]) -> float:
    """The same of the loss's log: batch noise grows with the loss."""
    return _noise([math.log(max(loss, 1e-6)) for loss in losses])


def _at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """The eval loss at `step`, interpolated; that of the first point for earlier steps."""
    earlier = curve[0]
    for point in curve:
        if point[0] >= step:
            span = point[0] - earlier[0]
            share = (step - earlier[0]) / span if span else 1.0
            return earlier[1] + max(share, 0.0) * (point[1] - earlier[1])
        earlier = point
    return earlier[1]


def _eval_still_falls(e: Evidence) -> bool:
    curve = e.eval_curve
    before = _at(curve, 0.75 * curve[-1][0])
    return len(curve) >= 2 and before - curve[-1][1] > max(0.02 * before, 0.01)


def _train_rose_since(e: Evidence, step: int) -> bool:
    """Whether the train loss after `step` is above that around it: then it is not overfitting."""
    losses = _finite_losses(e)
    around = [s.loss for s in e.steps if s.step <= step and math.isfinite(s.loss)]
    since = [s.loss for s in e.steps if s.step > step and math.isfinite(s.loss)]
    if not around or not since:
        return False
    window = min(_window(losses), len(around), len(since))
    error = _noise(losses) * math.sqrt(2 / window)
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
