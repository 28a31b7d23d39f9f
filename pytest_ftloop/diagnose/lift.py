"""Rules on what training gained over the untrained base, and what it cost the guards.

The tests behind them are the gate's; their results are a part of the evidence.
"""

from __future__ import annotations

from pytest_ftloop.config.gates import ALPHA
from pytest_ftloop.core.chain import FORGETTING
from pytest_ftloop.core.metrics import format_figure, is_rate
from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.evidence import Evidence, Lifted
from pytest_ftloop.diagnose.naming import some

SMALL = 0.01
"""A gain below this is small: one point of a rate, or 1% of the base's loss. It is the least change
that fails the regression gate by default."""


def no_lift(e: Evidence) -> Finding | None:
    """Training did not help.

    Signal: of none of the tested metrics a gain over the untrained base is proven (p above 1%), and
    each estimate is small. Threshold: 1 point, or 1% of the base's loss. Source: the regression
    gate's default. Minimum data: a measured base with an example in common. NaN: not tested.
    """
    if not e.lifted or any(_is_gain(lifted) for lifted in e.lifted):
        return None
    shown = "; ".join(
        f"{lifted.metric} {format_figure(lifted.metric, lifted.before)} -> "
        f"{format_figure(lifted.metric, lifted.after)}"
        for lifted in e.lifted
    )
    return Finding(
        kind="no-lift",
        severity="warning",
        message=f"Training shows no gain over the untrained base: {shown}.",
        evidence={f"p {lifted.metric}": lifted.p for lifted in e.lifted},
        remedy=(
            "Train with a higher learning rate or for longer; if the base already does the task, "
            "a prompt may be all that it needs."
        ),
    )


def _is_gain(lifted: Lifted) -> bool:
    unit = 1.0 if is_rate(lifted.metric) else abs(lifted.before)
    return lifted.p <= ALPHA or lifted.lift >= SMALL * unit


def unlearned(e: Evidence) -> Finding | None:
    """Training broke answers that the untrained base had right.

    Signal: at least one eval example that passed with the base fails at the best point. It says
    which, and how many of the base's passes they are. Minimum data: a measured base with a pass.
    """
    if not e.broken_of_base:
        return None
    count, passed = len(e.broken_of_base), e.base_passes
    return Finding(
        kind="unlearned",
        severity="info",
        message=(
            f"{count} of the {passed} examples that the untrained base passes "
            f"{'fails' if count == 1 else 'fail'} now: {some(e.broken_of_base)}."
        ),
        evidence={"broken": count, "base_passes": passed},
        remedy=(
            "Add such examples to the train set, or lower training.learning_rate or the epochs."
        ),
    )


def forgetting(e: Evidence) -> Finding | None:
    """A guard got worse.

    Signal: the gate's paired test on a guard's rows proves them worse than the untrained base's or
    the parent's, by the loop's `forgetting` gate (else its defaults: alpha 1% over all guards, and
    at least 1% of the loss, or 1 point). The policy then continues from another iteration, and
    another one is the best, if there is one. Source: the gate. Minimum data: a guard measured on
    both sides.
    """
    if not e.forgotten:
        return None
    shown = "; ".join(
        f"{f.metric} {format_figure(f.metric, f.before)} -> {format_figure(f.metric, f.after)} "
        f"against the {f.against}"
        for f in e.forgotten
    )
    return Finding(
        kind=FORGETTING,
        severity="warning",
        message=f"Training made a guard worse: {shown}.",
        evidence={f"p {f.metric} against the {f.against}": f.p for f in e.forgotten},
        remedy=(
            "Lower training.learning_rate or the epochs, or mix rows of the guarded task into the "
            "train set."
        ),
    )


RULES = (no_lift, unlearned, forgetting)
