"""Words on a learning rate that is too high: they name it where it is far from any usual one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.diagnose.evidence import Evidence

FAR_TOO_HIGH = 0.05
"""Learning rate from which on a bad run is blamed on it: five times the highest that is good for
LoRA, and that on small models."""

USUAL_LORA, USUAL_FULL = 5e-4, 5e-5
"""The highest usual learning rates with AdamW: of LoRA, and where the whole model is trained."""


def highest_rate(e: Evidence) -> float:
    """The highest learning rate that was logged; NaN if none was."""
    rates = (step.learning_rate for step in e.steps)
    return max((rate for rate in rates if math.isfinite(rate)), default=math.nan)


def lower_rate(e: Evidence, factor: str, then: str = "") -> str:
    """What to do about too high a rate: lower it by a factor, or to a usual one if it is far off.

    `factor` is such as "3 to 10". `then` is what else helps, from its comma or conjunction on.
    """
    rate = highest_rate(e)
    if not rate >= FAR_TOO_HIGH:
        return f"Lower the learning rate by a factor of {factor}{then}."
    of_lora = f"{USUAL_LORA:g} for LoRA ({_times(rate / USUAL_LORA)} times lower)"
    of_all = f"{USUAL_FULL:g} for full fine-tuning ({_times(rate / USUAL_FULL)} times lower)"
    kinds = {True: of_lora, False: of_all, None: f"{of_lora} and {of_all}"}
    return (
        f"Lower the learning rate of {rate:g}{then}: with AdamW usual ones are up to "
        f"{kinds[e.of_lora]}."
    )


def _times(ratio: float) -> str:
    """A ratio, rounded to one digit: 10,000."""
    power = 10 ** math.floor(math.log10(ratio))
    return f"{round(ratio / power) * power:,.0f}"
