"""Rules over the chain of iterations: what one run alone can't show.

Common to all. Figures of two iterations differ by chance too, so only a difference beyond the noise
of their metric counts (`least_change`: by the log's seed runs, else believed). A figure that is
NaN or missing is no progress, and no rule fires on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.metrics import format_figure
from pytest_ftloop.core.noise import SeedNoise, better_beyond_noise, least_change
from pytest_ftloop.core.records import HOPELESS, ExampleResult, Finding, HoldoutUse, Iteration
from pytest_ftloop.core.runs import (
    EXAMPLE_METRICS,
    Differences,
    ExampleMetric,
    differences,
    is_figure,
)
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.windows import finite_losses, last_quarters, quarter_error, window_size

Rule = Callable[[Evidence], Finding | None]

HIGH_RATE = 1e-2
"""LoRA's best learning rates lie below: above, a loss may stay high because no step lands."""

WORN_Z = 2.0
"""Standard errors by which the gains on eval set and holdout must differ, as for its report."""


def plateau(e: Evidence) -> Finding | None:
    """No more progress over the last iterations.

    Signal: the best of the loop's metric moved by no more than noise in the last 2 of at least 3
    iterations. Threshold: `least_change`. Source: practice, whose remedy differs with the train
    loss. Minimum data: a finite figure before the last 2. NaN: such an iteration brings no
    progress.
    """
    figures = [*(i.metrics for i in e.history), e.metrics]
    values = [of.get(e.metric, math.nan) for of in figures]
    earlier = e.history[:-1]
    before = best_of(earlier, e.metric).metrics.get(e.metric, math.nan) if earlier else math.nan
    if not math.isfinite(before):
        return None
    if any(better_beyond_noise(e.metric, value, before, e.seed_noise) for value in values[-2:]):
        return None
    return Finding(
        kind="plateau",
        severity="info",
        message=(
            f"The best {e.metric}, {format_figure(e.metric, before)}, moved by no more than noise "
            "in the last 2 iterations."
        ),
        evidence={
            "best": before,
            "iterations": len(values),
            "least_change": least_change(e.metric, before, e.seed_noise),
            **({"seed_noise": e.seed_noise[e.metric].sd} if e.metric in e.seed_noise else {}),
        },
        remedy=(
            "The train loss still falls: more data, or more regularisation."
            if _train_falls(e, [of.get("train_loss", math.nan) for of in figures])
            else "Settings have little left to give: look at the failing examples, add data, or "
            "relax the gate."
        ),
    )


def capacity(e: Evidence) -> Finding | None:
    """The adapter is too small for what it is to hold.

    Signal, all of: fewer trainable parameters than labelled tokens in the train set; two epochs or
    more; the train loss learned something (a fifth of its start), then went flat (from the second
    quarter of the steps to the last it fell by less than a fifth of its whole fall, or two standard
    errors: at too low a learning rate it is over a third) and stays high (the train loss over a
    fifth of the untrained base's, and over 0.2 nats). Not where another cause explains it: a
    learning rate over 1e-2, or an iteration of the chain that did better with as few parameters, or
    no better with more. Source: practice ("no fewer parameters than completion tokens to absorb"),
    thresholds by runs measured. Minimum data: 12 steps, a train loss in eval mode. Unknown or NaN:
    silent.
    """
    losses, train_loss = finite_losses(e), e.metrics.get("train_loss", math.nan)
    parameters, tokens = e.trainable_parameters, e.labelled_tokens
    if not parameters or not tokens or parameters >= tokens or len(losses) < 12:
        return None
    epochs = e.steps[-1].step / max(e.steps_per_epoch, 1)
    floor = max(0.2, 0.2 * (e.base_eval_loss if math.isfinite(e.base_eval_loss) else losses[0]))
    too_fast = any(step.learning_rate > HIGH_RATE for step in e.steps)
    if epochs < 2 or not train_loss > floor or too_fast or not _flat_after_a_fall(losses):
        return None
    if any(_explains(other, parameters, train_loss, e.seed_noise) for other in e.history):
        return None
    return Finding(
        kind="capacity",
        severity="info",
        message=(
            f"The train loss went flat at {train_loss:.3f}: the adapter has {parameters} "
            f"parameters for {tokens} labelled tokens."
        ),
        evidence={
            "trainable_parameters": parameters,
            "labelled_tokens": tokens,
            "train_loss": train_loss,
            "train_last": last_quarters(losses)[1],
        },
        remedy="Double lora.r (with lora.lora_alpha), and adapt all-linear target modules.",
    )


def eval_worn_out(e: Evidence) -> Finding | None:
    """The eval set is worn out: choosing by it improves it alone, not the model.

    Signal: since the holdout last improved beyond noise, the loop's metric improved on the eval set
    beyond noise, and by over 2 standard errors (of the examples, which both sides share) more than
    on the holdout. Threshold: `least_change`, and the z of the holdout's own report. Source:
    practice; an adaptively chosen best is biased (Dwork et al. 2015, "The reusable holdout").
    Minimum data: two openings of one holdout for iterations with one eval set, two common examples
    in each. NaN: such an opening is left out.
    """
    openings = _openings(e)
    if len(openings) < 2:
        return None
    metric, last = openings[-1].metric, openings[-1]
    peak = openings[0]
    for opening in openings[1:]:
        if better_beyond_noise(metric, opening.on_holdout, peak.on_holdout, e.seed_noise):
            peak = opening
    z = _gains_apart(peak, last)
    if not better_beyond_noise(metric, last.on_eval, peak.on_eval, e.seed_noise) or z <= WORN_Z:
        return None

    def course(old: float, new: float) -> str:
        return f"from {format_figure(metric, old)} to {format_figure(metric, new)}"

    return Finding(
        kind="eval-worn-out",
        severity="warning",
        message=(
            f"From iteration {peak.iteration.name} to {last.iteration.name} {metric} went "
            f"{course(peak.on_eval, last.on_eval)} on the eval set, and "
            f"{course(peak.on_holdout, last.on_holdout)} on the holdout."
        ),
        evidence={
            "eval_before": peak.on_eval,
            "eval_after": last.on_eval,
            "holdout_before": peak.on_holdout,
            "holdout_after": last.on_holdout,
            "z": z,
            "openings": len(openings),
        },
        remedy="Choose by a new eval set: this one has been fitted by choosing among iterations.",
        tunable=False,
    )


def hopeless(e: Evidence) -> Finding | None:
    """The run was ended because it could not be of use any more; see `pace`.

    Signal, thresholds and minimum data are those of `Pace.hopeless`, which ended it. NaN: it ends
    nothing there.
    """
    if not e.ended_early.startswith(HOPELESS):
        return None
    done = e.steps[-1].step if e.steps else 0
    return Finding(
        kind="hopeless",
        severity="info",
        message=f"The run was ended early: {e.ended_early.removeprefix(HOPELESS + ': ')}.",
        evidence={"steps": done, "planned_steps": e.planned_steps, "saved": e.planned_steps - done},
        remedy="Nothing: its settings count as tried, and the best iteration stays the best.",
    )


RULES: tuple[Rule, ...] = (plateau, capacity, eval_worn_out, hopeless)


def _train_falls(e: Evidence, losses: Sequence[float]) -> bool:
    """Whether the train loss of one of the last 2 is lower than any before, beyond noise."""
    before = min((loss for loss in losses[:-2] if math.isfinite(loss)), default=math.nan)
    return not math.isnan(before) and any(
        better_beyond_noise("train_loss", loss, before, e.seed_noise) for loss in losses[-2:]
    )


def _flat_after_a_fall(losses: Sequence[float]) -> bool:
    quarter = len(losses) // 4
    head, last = fmean(losses[: window_size(losses)]), last_quarters(losses)[1]
    second = fmean(losses[quarter : 2 * quarter])
    fall = head - last
    return fall > 0.2 * head and second - last < max(0.2 * fall, 2 * quarter_error(losses))


def _explains(
    other: Iteration, parameters: int, train_loss: float, measured: Mapping[str, SeedNoise]
) -> bool:
    """Whether an iteration shows that it is not the number of parameters that keeps it so high."""
    its, its_loss = other.facts.get("trainable_parameters"), other.metrics.get("train_loss")
    if not isinstance(its, int) or its_loss is None or math.isnan(its_loss):
        return False
    lower = better_beyond_noise("train_loss", its_loss, train_loss, measured)
    return lower if its <= parameters else not lower


@dataclass(frozen=True)
class _Opening:
    """The holdout opened for an iteration, and the figures of the metric that is chosen by."""

    iteration: Iteration
    use: HoldoutUse
    metric: str

    @property
    def on_eval(self) -> float:
        return self.iteration.metrics.get(self.metric, math.nan)

    @property
    def on_holdout(self) -> float:
        return self.use.metrics.get(self.metric, math.nan)


def _openings(e: Evidence) -> list[_Opening]:
    """The openings that are comparable with the last one, in the order of their iterations."""
    metric = e.metric if e.metric in EXAMPLE_METRICS else "eval_loss"
    by_id = {iteration.id: iteration for iteration in e.opened}
    found = [_Opening(by_id[u.iteration], u, metric) for u in e.holdout if u.iteration in by_id]
    found = [o for o in found if is_figure(o.on_eval) and is_figure(o.on_holdout)]
    found.sort(key=lambda opening: (opening.iteration.number, opening.iteration.id))
    return [opening for opening in found if _measured_as(opening) == _measured_as(found[-1])]


def _measured_as(opening: _Opening) -> tuple[object, ...]:
    iteration, use = opening.iteration, opening.use
    eval_set = iteration.data.get("eval", {}).get("sha256")
    return eval_set, use.data.get("sha256"), dict(use.scoring)


def _gains_apart(before: _Opening, after: _Opening) -> float:
    """By how many standard errors the gain on the eval set is above that on the holdout."""
    metric = EXAMPLE_METRICS[after.metric]
    on_eval = _worse(metric, before.iteration.examples, after.iteration.examples)
    on_holdout = _worse(metric, before.use.examples, after.use.examples)
    if on_eval is None or on_holdout is None:
        return 0.0
    error = math.sqrt(on_eval.variance / on_eval.n + on_holdout.variance / on_holdout.n)
    return (on_holdout.mean - on_eval.mean) / error if error else 0.0


def _worse(
    metric: ExampleMetric, before: Sequence[ExampleResult], after: Sequence[ExampleResult]
) -> Differences | None:
    """How much worse each common example became; None for fewer than two, or without a figure."""
    old, new = ({row.id: row for row in rows} for rows in (before, after))
    ids = [i for i in sorted(old.keys() & new.keys()) if old[i].content == new[i].content]
    if len(ids) < 2:
        return None
    values = [metric.values([table[i] for i in ids]) for table in (old, new)]
    worse = [b - a for a, b in zip(*values, strict=True)]
    if not all(map(is_figure, worse)):
        return None
    told = differences(worse)
    # No flip among n examples is not proof that none can flip: one is supposed, as by the gate.
    return replace(told, variance=max(told.variance, 1 / told.n if metric.unit == "rate" else 0.0))
