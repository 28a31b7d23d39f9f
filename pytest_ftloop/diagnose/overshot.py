"""A learning rate so high that the run is of no use, whichever shape its curve has."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ftloop.diagnose.rising import oscillation

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding
    from pytest_ftloop.diagnose.evidence import Evidence

ABSURD_RATE = 0.1
"""Learning rate from which on a run that oscillates and learns little has failed: ten times the
highest rate that is good for LoRA."""

USELESS_SHARE, USELESS_LOSS = 0.2, 0.2
"""The lowest eval loss of a failed run, as a share of the untrained base's and in nats: runs of
planted tasks at usual rates end below a tenth of the base's."""


def overshot(e: Evidence) -> Finding | None:
    """The signs of `oscillation` at an absurd learning rate, in a run that learned little.

    `diverged` reports it, because no later step would mend it. Signal: a learning rate of 0.1
    or more, `oscillation`, and a lowest eval loss over a fifth of the untrained base's and 0.2
    nats. A run that learned the task keeps the warning, whatever its rate. Source: trainings at
    0.3 (benchmark `faults.py`), which end in `diverged`, `oscillation` or NaN by chance. Minimum
    data: that of `oscillation`, and the untrained base's eval loss. NaN: silent.
    """
    base = e.untrained_loss
    rate = max((step.learning_rate for step in e.steps), default=0.0)
    lowest = min((point.eval_loss for point in e.evals), default=math.nan)
    if not (rate >= ABSURD_RATE and lowest > max(USELESS_LOSS, USELESS_SHARE * base)):
        return None
    if math.isnan(base) or (found := oscillation(e)) is None:
        return None
    return replace(
        found,
        kind="diverged",
        severity="error",
        message=f"A learning rate of {rate:g} is far too high. {found.message}",
        evidence={**found.evidence, "learning_rate": rate, "eval_lowest": lowest, "base": base},
        remedy="Lower the learning rate by a factor of 10 or more: the best ones for LoRA are "
        "below 1e-2.",
    )
