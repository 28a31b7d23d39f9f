"""An eval loss that is NaN though the training is healthy: the eval set is at fault."""

from __future__ import annotations

import math

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.evidence import Evidence


def eval_set_is_at_fault(e: Evidence) -> bool:
    """Whether no eval loss is finite though the losses of the training are."""
    trained = len(e.steps) > 0 and all(math.isfinite(step.loss) for step in e.steps)
    return trained and not any(math.isfinite(point.eval_loss) for point in e.evals)


def broken_eval_set(e: Evidence) -> Finding:
    """The finding `non-finite` of a run whose eval set is at fault."""
    evals = [point.step for point in e.evals]
    points = "at all evaluations" if len(evals) > 1 else f"at step {evals[0]}"
    norms = any(step.grad_norm is not None for step in e.steps)
    finite = "train losses and gradient norms are" if norms else "train losses are"
    return Finding(
        kind="non-finite",
        severity="error",
        message=(
            f"The eval loss is NaN or infinite {points}, while the {finite} finite: the eval set "
            "is at fault, not the training."
        ),
        evidence={"first_step": evals[0], "losses": 0, "grad_norms": 0, "eval_losses": len(evals)},
        remedy=(
            "Look for eval rows without a labelled token: completions that are empty, or cut off "
            "by max_length. If there are none, evaluate in bf16 or fp32 rather than fp16."
        ),
        tunable=False,
    )
