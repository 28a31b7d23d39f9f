"""All rules on the curves of one iteration, in their order.

Common to all: train losses are compared as means over windows of steps, see `windows`. The eval
loss is an exact mean over the same examples each time, so small changes count. No rule but
`non_finite` fires on a figure that is NaN or missing. As a source, "practice" means published LoRA
practice, and "measured" means runs that were recorded for tests/diagnose.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.answers import worse_answers
from pytest_ftloop.diagnose.broken import diverged, no_signal, non_finite
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.impossible import impossible_loss, zero_loss
from pytest_ftloop.diagnose.learned import converged, not_learning, underfit
from pytest_ftloop.diagnose.memorising import memorising
from pytest_ftloop.diagnose.rising import oscillation, overconfidence, overfitting

Rule = Callable[[Evidence], Finding | None]


def out_of_memory(e: Evidence) -> Finding | None:
    """The run ran out of memory and recovered.

    Signal: the training recorded a recovery, which changes results by rounding only. Threshold,
    source, minimum data and NaN do not apply: it is a record of the run.
    """
    if not e.recoveries:
        return None
    times = "once" if len(e.recoveries) == 1 else f"{len(e.recoveries)} times"
    return Finding(
        kind="out-of-memory",
        severity="info",
        message=f"The run ran out of memory {times} and recovered: {'; '.join(e.recoveries)}.",
        evidence={"recoveries": len(e.recoveries), "last": e.recoveries[-1]},
        remedy=(
            "Set the smaller training.per_device_train_batch_size and the larger "
            "training.gradient_accumulation_steps in the loop file, so that no run begins with "
            "this failure."
        ),
    )


RULES: tuple[Rule, ...] = (
    out_of_memory,  # the first of the infos, as it is a fact and not a conclusion
    no_signal,
    non_finite,
    diverged,
    impossible_loss,
    not_learning,
    oscillation,
    overfitting,
    overconfidence,
    worse_answers,
    memorising,
    zero_loss,
    underfit,
    converged,
)
