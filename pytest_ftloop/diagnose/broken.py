"""Rules on runs that broke: non-finite losses, divergence, nothing to learn from."""

from __future__ import annotations

import math
from itertools import takewhile
from statistics import fmean, median

from pytest_ftloop.core.records import Finding, StepLog
from pytest_ftloop.diagnose.eval_nan import broken_eval_set, eval_set_is_at_fault
from pytest_ftloop.diagnose.evidence import Evidence, Figures
from pytest_ftloop.diagnose.overshot import overshot
from pytest_ftloop.diagnose.rates import lower_rate
from pytest_ftloop.diagnose.windows import (
    finite_losses,
    moved,
    relative_noise,
    tail_mean,
    window_means,
    window_of_steps,
    window_size,
)

GUESSING_LOSS = 8.0
"""Loss per token, in nats, above which a model knows no more than one that guesses: ln(3,000), and
usual vocabularies have more than 3,000 tokens."""

LARGEST_VOCABULARY = 300_000
"""Number of tokens that hardly any vocabulary exceeds."""

SHORT_LOG = 30
"""Number of losses below which the lowest one is stated, and not the lowest mean of a window."""


def non_finite(e: Evidence) -> Finding | None:
    """A loss or gradient became NaN or infinite.

    Signal, any of:

    - a train or eval loss that is not finite;
    - a train loss of 0 that is a NaN hidden by the trainer's filter: the gradient norm beside it is
      NaN, or, if none is logged, the loss fell at once from over 0.1 to exactly 0 and stayed there
      for at least 3 entries, to the end;
    - a run that was ended for a non-finite value;
    - a non-finite gradient norm in at least half of the last 10 steps. A single one is normal with
      fp16: loss scaling skips such steps, and the run is healthy.

    If no eval loss is finite but all that is known of the training is, the eval set is at fault:
    then it is not tunable.

    Source: what the trainer logs for such runs, measured. Minimum data: one step or one evaluation
    point; three steps for the gradient norm. NaN: is what this rule reports.
    """
    losses = [step.step for step in e.steps if not math.isfinite(step.loss)]
    norms = [s.step for s in e.steps if s.grad_norm is not None and not math.isfinite(s.grad_norm)]
    evals = [point.step for point in e.evals if not math.isfinite(point.eval_loss)]
    last = [s.step for s in e.steps[-10:]]
    norms_stay = len(last) >= 3 and sum(step in last for step in norms) >= max(3, len(last) / 2)
    ended = e.ended_early.startswith(("loss is", "gradient norm is"))
    # By default the trainer's filter hides NaN losses, so the gradient norm shows them first.
    stay = norms if norms_stay or ended else [s.step for s in e.steps if _is_filtered(s)]
    zeros = [step.step for step in _zeros_to_the_end(e)]
    if not (losses or evals or stay or zeros or ended):
        return None
    # Name what happened first: the rest follows from it.
    signs = {"train loss": losses, "eval loss": evals, "gradient norm": stay, "zeros": zeros}
    if evals and not (losses or stay or zeros or ended) and eval_set_is_at_fault(e):
        return broken_eval_set(e)
    what, where = min(
        ((name, steps[0]) for name, steps in signs.items() if steps),
        key=lambda first: first[1],
        default=("gradient norm", e.steps[-1].step if e.steps else 0),
    )
    return Finding(
        kind="non-finite",
        severity="error",
        message=(
            f"The train loss fell to exactly 0 at step {where} of {e.planned_steps} and stayed "
            "there, which is how a trainer's filter logs NaN."
            if what == "zeros"
            else f"The {what} became NaN or infinite at step {where} of {e.planned_steps}."
        ),
        evidence={
            "first_step": where,
            "losses": len(losses),
            "grad_norms": len(norms),
            "eval_losses": len(evals),
        },
        remedy=(
            lower_rate(e, "10", " and warm up over the first 5 to 10% of the steps")
            + " Keep max_grad_norm at 1.0, and train in bf16 or fp32 rather than fp16."
        ),
    )


def diverged(e: Evidence) -> Finding | None:
    """The loss rose and stayed high.

    Signal, any of (a window is a tenth of the run, 3 to 10 steps, or two entries of a coarse log):

    - the run was ended for it;
    - the mean train loss of the last window is over 1.5 times the lowest window's, by more than
      0.25 nats and 5 standard errors: neither batch noise nor the variation of a tiny, memorised
      loss counts;
    - train and eval loss both end over 1.1 times the untrained base's eval loss, and the train loss
      is above its first values, or both are over twice the base's;
    - the last window is over twice the first loss, by 2 nats and 5 standard errors, and over 1.1
      times the untrained base's: the very first update can destroy the model;
    - the last 5 losses are within 1% of ln(vocabulary), with a gradient of exactly 0;
    - the log begins after the first step, and throughout the loss is over 8 nats and the gradient
      exactly 0;
    - at a learning rate of 0.1 or more the run oscillates and learns little (see `overshot`).

    A gradient norm far above its median is only evidence, as healthy runs have spikes too. Source:
    runs with absurd learning rates, measured. Minimum data: 6 finite losses; 3 if the untrained
    base's loss is known; 2 if the log begins late. NaN: those steps are left out, and `non_finite`
    reports them.
    """
    losses = finite_losses(e)
    if e.ended_early.startswith(("diverged", "the loss froze")):
        lowest = min(window_means(losses, window_size(losses)), default=math.nan)
        return _diverged(e, e.ended_early, lowest, tail_mean(losses))
    return (
        _rose_again(e, losses)
        or _worse_than_untrained(e, losses)
        or _destroyed_at_once(e, losses)
        or _froze(e, losses)
        or overshot(e)
    )


def no_signal(e: Evidence) -> Finding | None:
    """There is nothing to learn from, or nothing that could learn. Not tunable.

    Signal, any of: no labelled token; no trainable parameter; at every step a learning rate of 0, a
    loss of exactly 0, or a gradient of exactly 0; no weight of the adapter moved. It must be every
    step, because a healthy run logs losses of 0.0 late if it memorises its set. The last four need
    2 steps, and finite losses and gradients: a NaN run moves nothing either, and is `non_finite`.
    If the loss `moved`, a learning rate or gradient of 0 is only what was logged: layerwise
    optimizers log that gradient, Adafactor with relative steps that learning rate. Source: faults
    of wiring, measured. Unknown numbers (None): silent.
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
    # A single step proves nothing, and a NaN run moves no weight either: `non_finite` reports that.
    norms = [step.grad_norm for step in e.steps]
    if len(e.steps) < 2 or not all(math.isfinite(s.loss) for s in e.steps):
        return None
    if not all(norm is None or math.isfinite(norm) for norm in norms):
        return None
    figures: Figures = {"steps": e.steps[-1].step}
    if all(step.learning_rate == 0 for step in e.steps) and not moved(e):
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
    # A run that diverged before the log begins has no gradient either: that is `diverged`.
    if all(norm == 0 for norm in norms) and not moved(e) and not _lost_before_the_log(e):
        return _no_signal(
            "the gradient was exactly 0 at every step",
            "Check that the forward pass uses the modules of the adapter (lora.target_modules).",
            figures,
        )
    if not e.adapter_moved:
        return _no_signal(
            f"no weight of the adapter moved in {e.steps[-1].step} steps",
            "Check lora.target_modules, and that nothing freezes the adapter.",
            figures,
        )
    return None


def _is_filtered(step: StepLog) -> bool:
    """Whether a loss of 0 is a NaN hidden by the trainer's filter: the gradient is NaN too."""
    return step.loss == 0 and step.grad_norm is not None and math.isnan(step.grad_norm)


def _zeros_to_the_end(e: Evidence) -> list[StepLog]:
    """The last steps, if their loss is 0 without a gradient norm and it fell to that at once."""
    zeros = list(takewhile(lambda s: s.loss == 0 and s.grad_norm is None, reversed(e.steps)))
    before = e.steps[-len(zeros) - 1].loss if len(zeros) < len(e.steps) else 0.0
    return zeros[::-1] if len(zeros) >= 3 and before > 0.1 else []


def _rose_again(e: Evidence, losses: list[float]) -> Finding | None:
    if len(losses) < 6:
        return None
    window = max(2, window_of_steps(e)) if len(losses) < SHORT_LOG else window_size(losses)
    means = window_means(losses, window)
    lowest, last = min(means), means[-1]
    error = relative_noise(losses) * math.sqrt(2 / window)
    if not last - lowest > 0.25:
        return None
    if not math.log(_times(last, lowest)) > max(math.log(1.5), 5 * error):
        return None
    what = f"its lowest mean of {window} entries"
    if len(losses) < SHORT_LOG:
        # A window would span most of what happened, and its mean stand nowhere in the curve.
        lowest, last, what = min(losses), losses[-1], "its lowest"
    times = f"{_times(last, lowest):.1f} times" if lowest > 0 else "above"
    reason = f"the train loss ended at {last:.2f}, {times} {what}, {lowest:.2f}"
    return _diverged(e, reason, lowest, last)


def _times(last: float, lowest: float) -> float:
    """How many times `lowest` a loss above it is; infinitely many if `lowest` is 0 or below."""
    return last / lowest if lowest > 0 else math.inf


def _worse_than_untrained(e: Evidence, losses: list[float]) -> Finding | None:
    base, final = e.untrained_loss, e.evals[-1].eval_loss if e.evals else math.nan
    if len(losses) < 3 or not base > 0.25:
        return None
    last = tail_mean(losses)
    both = min(last, final) if math.isfinite(final) else math.nan
    # A train set may be harder than the eval set, so a train loss above the base's eval loss is
    # no sign by itself: it must have risen, unless both losses are far off.
    error = relative_noise(losses) * math.sqrt(1 + 1 / window_size(losses))
    over_first = math.log(max(last, 1e-6) / max(losses[0], 1e-6)) > max(math.log(1.1), 2 * error)
    rose = over_first or last > fmean(losses[:2]) or both > max(2 * base, base + 1)
    if not (both > 1.1 * base and rose):
        return None
    reason = f"training made the model worse: eval loss {final:.2f}, {base:.2f} before training"
    lowest = min(window_means(losses, window_size(losses)))
    return _diverged(e, reason, min(lowest, base), last)


def _destroyed_at_once(e: Evidence, losses: list[float]) -> Finding | None:
    if len(losses) < 6:
        return None
    first, last = max(losses[0], 1e-6), tail_mean(losses)
    error = relative_noise(losses) * math.sqrt(1 + 1 / window_size(losses))
    if last - first <= 2 or math.log(last / first) <= max(math.log(2), 5 * error):
        return None
    if last <= 1.1 * e.untrained_loss:
        return None
    reason = f"the train loss began at {first:.2f} and ended at {last:.2f}"
    return _diverged(e, reason, first, last)


def _froze(e: Evidence, losses: list[float]) -> Finding | None:
    last = e.steps[-5:]
    uniform = math.log(e.vocabulary) if e.vocabulary > 1 else math.nan
    if (
        len(losses) >= 6
        and all(s.grad_norm == 0 and abs(s.loss - uniform) <= 0.01 * uniform for s in last)
        and any(s.grad_norm for s in e.steps)
    ):
        reason = f"the loss froze at ln(vocabulary), {losses[-1]:.2f}, with zero gradient"
    elif _lost_before_the_log(e):
        reason = (
            f"the loss is {losses[-1]:.2f} with zero gradient from the log's first entry on, step "
            f"{e.steps[0].step}: the run diverged before it"
        )
    else:
        return None
    lowest = min(window_means(losses, window_size(losses)))
    return _diverged(e, reason, lowest, tail_mean(losses))


def _lost_before_the_log(e: Evidence) -> bool:
    """Whether the log begins after the first step, and the model had diverged by then."""
    losses = finite_losses(e)
    return (
        len(losses) >= 2
        and e.steps[0].step > 1
        and all(step.grad_norm == 0 for step in e.steps)
        and min(losses) > GUESSING_LOSS
        and not min(losses) <= 1.1 * e.untrained_loss
    )


def _diverged(e: Evidence, reason: str, lowest: float, last: float) -> Finding:
    norms = [s.grad_norm for s in e.steps if s.grad_norm is not None and math.isfinite(s.grad_norm)]
    evidence: Figures = {"lowest": lowest, "last": last, "ratio": last / max(lowest, 1e-9)}
    if norms and median(norms):
        evidence["grad_norm_times_median"] = max(norms) / median(norms)
    return Finding(
        kind="diverged",
        severity="error",
        message=f"{reason[:1].upper()}{reason[1:]}{_guesses(finite_losses(e)[-3:])}.",
        evidence=evidence,
        remedy=lower_rate(e, "3 to 10", ", or add warmup"),
    )


def _guesses(last: list[float]) -> str:
    """What a loss that stays above 8 nats is, if it does: that of a model which only guesses."""
    if len(last) < 3 or not min(last) > GUESSING_LOSS or max(last) > 1.005 * min(last):
        return ""
    if max(last) > math.log(LARGEST_VOCABULARY):
        return ""
    return f": it only guesses, as among {float(f'{math.exp(last[-1]):.2g}'):,.0f} tokens"


def _no_signal(reason: str, remedy: str, evidence: Figures) -> Finding:
    return Finding(
        kind="no-signal",
        severity="error",
        message=f"Nothing can be learned: {reason}.",
        evidence=evidence,
        remedy=remedy,
        tunable=False,
    )
