"""Rules on metrics that disagree with the loss: answers get better or worse by another measure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.scores import JITTER_POINTS

if TYPE_CHECKING:
    from pytest_ftloop.core.records import EvalPoint
    from pytest_ftloop.diagnose.evidence import Evidence
    from pytest_ftloop.diagnose.scores import Score

FEWEST_POINTS = 3
"""Fewest evaluation points at which a metric that got worse is reported."""

CLEARLY = 3.0
"""How many times the smallest change that counts a metric must have lost before it is reported:
measured curves of WER and F1 often lose twice as much between two points and regain it."""


UNKNOWN_JITTER = 0.02
"""Jitter of a share that is assumed where there are too few points to measure it."""


def better_answers(e: Evidence, best: EvalPoint, last: EvalPoint) -> Finding | None:
    """The eval loss rose, and a metric of the answers improved: `overconfidence`.

    Signal: since the point of the lowest eval loss every metric that moved (`Score.limit`)
    improved, and at least one did, or the one that decides has its best value at the end. Minimum
    data: two points with a metric of known direction.
    """
    improved = [score for score in e.scores if score.improved(best.step)]
    if not improved and e.scores and e.scores[0].best[0] == last.step > e.scores[0].points[0][0]:
        improved = [e.scores[0]]
    if not improved or any(score.worsened(best.step) for score in e.scores):
        return None
    score = improved[0]
    at_best, at_last = dict(score.points).get(best.step, math.nan), score.last[1]
    top_step, top = score.best
    return Finding(
        kind="overconfidence",
        severity="warning",
        message=(
            f"The eval loss rose from {best.eval_loss:.3f} (step {best.step}) to "
            f"{last.eval_loss:.3f}, while {score.name} ({score.better} is better) went from "
            f"{score.text(at_best)} to {score.text(at_last)}, with its best, {score.text(top)}, "
            f"at step {top_step}: answers got better, and wrong ones more certain."
        ),
        evidence={
            "eval_lowest": best.eval_loss,
            "eval_last": last.eval_loss,
            "best_step": best.step,
            "best_epoch": best.epoch,
            "last_step": last.step,
            f"{score.name}_then": at_best,
            f"{score.name}_last": at_last,
            f"{score.name}_best": top,
            f"{score.name}_best_step": top_step,
        },
        remedy=(
            f"If {score.name} matters rather than probabilities, choose by it "
            "(metric_for_best_model); else take the point of the lowest eval loss, or train for "
            "fewer epochs or at a lower learning rate."
        ),
    )


def worse_answers(e: Evidence) -> Finding | None:
    """A metric of the answers got worse, though the eval loss does not show it.

    Signal: a metric of known direction ends worse than its best by over `CLEARLY` times the
    smallest change that counts (`Score.limit`: half a point, or the curve's jitter; with fewer than
    five points two points), and its mean since then by half as much. If the eval loss rose too,
    `overfitting` or `oscillation` has said so. Silent if another metric improved since. Source:
    speech and summarisation runs whose loss falls while the decoded text gets worse. Minimum data:
    three points. NaN: left out.
    """
    for score in e.scores:
        step, best = score.best
        if len(score.points) < FEWEST_POINTS or not _clearly_worse(score, step):
            continue
        if any(other.improved(step) for other in e.scores):
            return None
        return Finding(
            kind="worse-answers",
            severity="warning",
            message=(
                f"{score.name} ({score.better} is better) went from {score.text(best)} at step "
                f"{step} to {score.text(score.last[1])} at the end, which the eval loss does not "
                "show."
            ),
            evidence={
                f"{score.name}_best": best,
                f"{score.name}_last": score.last[1],
                "best_step": step,
                "last_step": score.last[0],
            },
            remedy=(
                f"Choose the checkpoint by {score.name} (metric_for_best_model); compare outputs "
                "of both points: generation may end too late, repeat itself, or have another "
                "format than the metric expects."
            ),
        )
    return None


def _clearly_worse(score: Score, step: int) -> bool:
    # Of fewer points the jitter is not known.
    unknown = UNKNOWN_JITTER * score.unit if len(score.points) < JITTER_POINTS else 0.0
    least = CLEARLY * max(score.limit, unknown)
    return -score.gain(step, score.last[0]) > least and -score.mean_gain(step) > least / 2
