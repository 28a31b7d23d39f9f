"""Rules on the chain of iterations: what a single run can't show.

Common to all: figures of two iterations also differ by chance, so only a difference beyond the
noise of their metric counts (`least_change`: measured by the log's seed runs, else assumed). A
figure that is NaN or missing counts as no progress, and no rule fires on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.metrics import figure_of, format_figure
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

OVERSHOOTING_RATE = 1e-2
"""Learning rate above which a high loss is not put down to a small adapter: the best rates for LoRA
are lower, and above it the loss may stay high because every step overshoots."""

WORN_Z = 2.0
"""Standard errors by which the gain on the eval set must exceed that on the holdout, as for the
alarm of the holdout's report."""


def plateau(e: Evidence) -> Finding | None:
    """The last iterations brought no progress.

    Signal: the best value of the loop's metric moved by no more than noise in the last 2 of at
    least 3 iterations. The message names the settings that these changed: another may still
    help. Threshold: `least_change`. Source: practice, and replays of made-up chains; the
    remedy depends on whether the train loss still falls. Minimum data: a finite figure before the
    last 2. NaN: counts as no progress.
    """
    figures = [*(i.metrics for i in e.history), e.metrics]
    values = [of.get(e.metric, math.nan) for of in figures]
    earlier = e.history[:-1]
    before = figure_of(best_of(earlier, e.metric).metrics, e.metric) if earlier else math.nan
    if not math.isfinite(before):
        return None
    if any(better_beyond_noise(e.metric, value, before, e.seed_noise) for value in values[-2:]):
        return None
    tried = settings_tried(e)
    return Finding(
        kind="plateau",
        severity="info",
        message=(
            f"The best {e.metric}, {format_figure(e.metric, before)}, moved by no more than noise "
            "in the last 2 iterations" + (f", which changed {tried}." if tried else ".")
        ),
        evidence={
            "best": before,
            "iterations": len(values),
            **({"changed": tried} if tried else {}),
            "least_change": least_change(e.metric, before, e.seed_noise),
            **({"seed_noise": e.seed_noise[e.metric].sd} if e.metric in e.seed_noise else {}),
        },
        remedy=(
            "The train loss still falls: add data, or regularise more."
            if _train_falls(e, [of.get("train_loss", math.nan) for of in figures])
            else "More of the same will gain little, another setting still may: look at the "
            "failing examples, add data, or relax the gate."
        ),
    )


def settings_tried(e: Evidence) -> str:
    """The settings that the last 2 iterations changed, as a list; empty if that is unknown."""
    last = (*(e.history[-1].adjustments if e.history else ()), *e.adjustments)
    return ", ".join(dict.fromkeys(adjustment.setting for adjustment in last))


def capacity(e: Evidence) -> Finding | None:
    """The adapter is too small for its train set.

    Signal, all of:

    - fewer trainable parameters than labelled tokens in the train set, and at least two epochs;
    - the train loss fell by a fifth of its start, then levelled off: from the second quarter of the
      steps to the last it fell by less than a fifth of its whole fall, or two standard errors (at
      too low a learning rate that is over a third);
    - it stays high: over a fifth of the untrained base's, and over 0.2 nats;
    - nothing else explains it, such as a learning rate over 1e-2, or an iteration of the chain that
      did better with as few parameters, or no better with more.

    Source: practice ("no fewer parameters than completion tokens to absorb"); thresholds from
    measured runs. Minimum data: 12 steps, a train loss in eval mode. Unknown or NaN: silent.
    """
    losses, train_loss = finite_losses(e), e.metrics.get("train_loss", math.nan)
    parameters, tokens = e.trainable_parameters, e.labelled_tokens
    if not parameters or not tokens or parameters >= tokens or len(losses) < 12:
        return None
    # In the first epoch all rows are new, so the loss does not show what the adapter can hold.
    epochs = e.steps[-1].step / max(e.steps_per_epoch, 1)
    floor = max(0.2, 0.2 * (e.base_eval_loss if math.isfinite(e.base_eval_loss) else losses[0]))
    too_fast = any(step.learning_rate > OVERSHOOTING_RATE for step in e.steps)
    if epochs < 2 or not train_loss > floor or too_fast or not _flat_after_a_fall(losses):
        return None
    if any(_explains(other, parameters, train_loss, e.seed_noise) for other in e.history):
        return None
    return Finding(
        kind="capacity",
        severity="info",
        message=(
            f"The train loss levelled off at {train_loss:.3f}: the adapter has {parameters} "
            f"parameters for {tokens} labelled tokens."
        ),
        evidence={
            "trainable_parameters": parameters,
            "labelled_tokens": tokens,
            "train_loss": train_loss,
            "train_last": last_quarters(losses)[1],
        },
        remedy="Double lora.r and lora.lora_alpha, and set lora.target_modules to all-linear.",
    )


def eval_worn_out(e: Evidence) -> Finding | None:
    """The eval set is worn out: choosing by it improves its own figure, not the model.

    Signal: since the holdout last improved beyond noise, the loop's metric improved on the eval set
    beyond noise, and by over 2 standard errors (of the examples, which both iterations share) more
    than on the holdout. Threshold: `least_change`, and the z of the holdout's report. Source:
    practice; a best that was chosen adaptively is biased (Dwork et al. 2015, "The reusable
    holdout"). Minimum data: two openings of one holdout, for iterations with one eval set, with two
    common examples each. NaN: such an opening is left out.
    """
    openings = _openings(e)
    if len(openings) < 2:
        return None
    metric, last = openings[-1].metric, openings[-1]
    # Compare with the last real progress: before it the gains on the eval set were not in vain.
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
        remedy="Use a new eval set: choosing among iterations has fitted them to this one.",
        tunable=False,
    )


def hopeless(e: Evidence) -> Finding | None:
    """The run was ended early because it could no longer become the best iteration.

    Signal, thresholds and minimum data are those of `Pace.hopeless`, which ended it. NaN: does not
    end a run.
    """
    if not e.ended_early.startswith(HOPELESS):
        return None
    done = e.steps[-1].step if e.steps else 0
    return Finding(
        kind="hopeless",
        severity="info",
        message=f"The run was ended early: {e.ended_early.removeprefix(HOPELESS + ': ')}.",
        evidence={"steps": done, "planned_steps": e.planned_steps, "saved": e.planned_steps - done},
        remedy="None: its settings count as tried, and the best iteration stays the best.",
    )


RULES: tuple[Rule, ...] = (plateau, capacity, eval_worn_out, hopeless)


def _train_falls(e: Evidence, losses: Sequence[float]) -> bool:
    """Whether the train loss of one of the last 2 iterations is a new low, beyond noise."""
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
    """Whether another iteration shows that the number of parameters is not what keeps it high."""
    its, its_loss = other.facts.get("trainable_parameters"), other.metrics.get("train_loss")
    if not isinstance(its, int) or its_loss is None or math.isnan(its_loss):
        return False
    lower = better_beyond_noise("train_loss", its_loss, train_loss, measured)
    return lower if its <= parameters else not lower


@dataclass(frozen=True)
class _Opening:
    """One opening of the holdout for an iteration, with both figures of the loop's metric."""

    iteration: Iteration
    use: HoldoutUse
    metric: str

    @property
    def on_eval(self) -> float:
        return figure_of(self.iteration.metrics, self.metric)

    @property
    def on_holdout(self) -> float:
        return figure_of(self.use.metrics, self.metric)


def _openings(e: Evidence) -> list[_Opening]:
    """The openings that are comparable with the last one, in the order of the iterations."""
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
    """The standard errors by which the gain on the eval set exceeds that on the holdout."""
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
    """How much worse the common examples became; None for fewer than two, or if one is NaN."""
    old, new = ({row.id: row for row in rows} for rows in (before, after))
    ids = [i for i in sorted(old.keys() & new.keys()) if old[i].content == new[i].content]
    if len(ids) < 2:
        return None
    values = [metric.values([table[i] for i in ids]) for table in (old, new)]
    worse = [b - a for a, b in zip(*values, strict=True)]
    if not all(map(is_figure, worse)):
        return None
    found = differences(worse)
    # That none of n examples flipped does not prove that none can: assume one, as the gate does.
    least = 1 / found.n if metric.unit == "rate" else 0.0
    return replace(found, variance=max(found.variance, least))
