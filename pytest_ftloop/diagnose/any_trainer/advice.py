"""Which checkpoint to use, where a run went on past its best point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.scores import direction

if TYPE_CHECKING:
    from pytest_ftloop.core.records import EvalPoint
    from pytest_ftloop.diagnose.any_trainer.series import Choice
    from pytest_ftloop.diagnose.scores import Score

PAST_THE_BEST = frozenset(
    {"overfitting", "overconfidence", "oscillation", "worse-answers", "diverged"}
    | {"memorised-preferences"}
)
"""The findings of which an earlier checkpoint is part of the remedy."""


@dataclass(frozen=True)
class Points:
    """What is known of the evaluation points of a run and of its checkpoints.

    `saved` are the steps of the checkpoints that are on disk, empty if none is. `epochs` are those
    of the run.
    """

    evals: tuple[EvalPoint, ...]
    scores: tuple[Score, ...]
    choice: Choice | None
    saved: frozenset[int]
    epochs: float


def with_checkpoint(findings: Sequence[Finding], points: Points) -> tuple[Finding, ...]:
    """The findings, with the best checkpoint in the remedies that an earlier one is part of."""
    return tuple(_advised(finding, points) for finding in findings)


def wrong_best(choice: Choice | None) -> Finding | None:
    """The trainer kept the worst checkpoint: it went by the wrong direction.

    Signal: the metric that the trainer's state chose by improves downwards by its name (WER, MAE),
    and the chosen value is the highest of its points; or the other way round. Source: transformers
    takes greater_is_better as true for each metric whose name does not end in `loss`. Minimum data:
    two points that differ.
    """
    if choice is None or not choice.better:
        return None
    better = direction(choice.key)
    if better in (None, choice.better):
        return None
    return Finding(
        kind="wrong-best",
        severity="warning",
        message=(
            f"best_model_checkpoint is the worst by {choice.key}, of which {better} is better: "
            f"checkpoint-{choice.step} with {choice.value:.4g}."
        ),
        evidence={"best_metric": choice.value, "best_model_step": choice.step},
        remedy=f"Set greater_is_better to {better == 'higher'}, and don't use that checkpoint.",
        tunable=False,
    )


def _advised(finding: Finding, of: Points) -> Finding:
    if finding.kind not in PAST_THE_BEST:
        return finding
    found = _best(finding, of)
    if found is None:
        return finding
    step, why = found
    epoch = next((point.epoch for point in of.evals if point.step == step), 0.0)
    at = f" (epoch {epoch:.3g} of {of.epochs:.3g})" if epoch and of.epochs else ""
    chosen = of.choice is not None and of.choice.step == step
    if chosen or step in of.saved:
        use = f"Use checkpoint-{step}{at}"
    elif of.saved:
        use = f"checkpoint-{step}{at} is not on disk: train again up to there"
    else:
        use = f"Use checkpoint-{step}{at}, if it was saved"
    evidence = {**finding.evidence, "checkpoint": step}
    return replace(finding, remedy=f"{use}: {why}. {finding.remedy}", evidence=evidence)


def _best(finding: Finding, of: Points) -> tuple[int, str] | None:
    """The step of the best point before the last, and why it is the best; None if the last is."""
    by_loss = of.choice is not None and of.choice.key.endswith("loss")
    if of.scores and (not by_loss or finding.kind == "overconfidence"):
        score = of.scores[0]
        step, best = score.best
        figures = f"{score.text(best)} against {score.text(score.last[1])} at the end"
        why = f"by {score.name} ({score.better} is better) it is the best, {figures}"
        return (step, why) if step < score.last[0] else None
    finite = [point for point in of.evals if math.isfinite(point.eval_loss)]
    if not finite or finding.kind == "overconfidence":
        return None
    lowest, last = min(finite, key=lambda point: point.eval_loss), of.evals[-1]
    figures = f"{lowest.eval_loss:.3f} against {last.eval_loss:.3f} at the end"
    why = f"its eval loss is the lowest, {figures}"
    return (lowest.step, why) if 0 < lowest.step < last.step else None
