"""All rules over the curves of one iteration, in the order in which they are asked.

Common to all. Of the train loss means of windows of steps are compared, see `windows`. The eval
loss is an exact mean over the same examples each time: small changes of it count. Where a figure
is NaN or missing, `non_finite` speaks or the rule stays silent: no other rule fires on a NaN.
"Practice" is published LoRA practice, "measured" are runs recorded for tests/diagnose.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.broken import diverged, no_signal, non_finite
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.learned import converged, not_learning, underfit
from pytest_ftloop.diagnose.rising import oscillation, overconfidence, overfitting

Rule = Callable[[Evidence], Finding | None]


def out_of_memory(e: Evidence) -> Finding | None:
    """Out of memory was met and survived.

    Signal: the training names a recovery. The result is unaffected but for rounding. Source: the
    run's own record, so there is no threshold, no minimum of data and no NaN.
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
    out_of_memory,  # of all infos the one that was certainly met
    no_signal,
    non_finite,
    diverged,
    not_learning,
    oscillation,
    overfitting,
    overconfidence,
    underfit,
    converged,
)
