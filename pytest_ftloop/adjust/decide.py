"""Decide whether the loop stops, and otherwise with which settings it continues."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.state import (
    NOTHING,
    PROMISING,
    TOO_HIGH,
    Known,
    figure,
    gained,
    has,
    parent_of_next,
    times,
)
from pytest_ftloop.core.metrics import format_figure
from pytest_ftloop.core.records import Decision, Finding, Iteration


@dataclass(frozen=True)
class Limits:
    """The limits of a loop: iterations, iterations without gain by the metric, and time."""

    iterations: int
    patience: int
    metric: str = "eval_loss"
    seconds_left: float | None = None


def fault_in(findings: Iterable[Finding]) -> Finding | None:
    """The first finding that no setting can cure; None if there is none."""
    return next((f for f in findings if f.severity == "error" and not f.tunable), None)


def decide(
    chain: Sequence[Iteration],
    gates_hold: bool,
    limits: Limits,
    policy: Policy | None = None,
    known: Known = NOTHING,
) -> Decision:
    """What follows the last iteration of the chain; the stop reasons are checked in this order."""
    policy = policy or Rules()
    last, best = chain[-1], parent_of_next(chain, limits.metric)
    if fault := fault_in(last.findings):
        return Decision(
            "stop", "fault", f"Fix this first, since no setting can cure it: {fault.message}"
        )
    proposal = policy.propose(chain, limits.metric, known)
    following = proposal.adjustments
    # Only a parent that is not the best iteration is recorded.
    parent = "" if proposal.parent is best else proposal.parent.id
    if (
        gates_hold
        and not policy.exhaustive
        and not (following and _expects_more(chain, best, limits.metric, known))
    ):
        return Decision(
            "stop",
            "gates",
            "The thresholds hold and nothing better is expected.",
            following,
            parent,
        )
    if not policy.exhaustive and _flat(chain, limits, known):
        value = format_figure(limits.metric, figure(best, limits.metric))
        because = (
            f"The best {limits.metric}, {value} of iteration {best.number}, did not improve by "
            f"more than noise in {times(limits.patience, 'iteration')}."
        )
        return Decision("stop", "plateau", because, following, parent)
    if len(chain) >= limits.iterations:
        because = f"The loop is limited to {times(limits.iterations, 'iteration')}."
        return Decision("stop", "iterations", because, following, parent)
    if limits.seconds_left is not None and limits.seconds_left < last.cost.seconds:
        because = (
            f"{max(limits.seconds_left, 0):.0f} s are left; the last iteration took "
            f"{last.cost.seconds:.0f} s."
        )
        return Decision("stop", "time", because, following, parent)
    if not following:
        return Decision("stop", "exhausted", proposal.because)
    return Decision("adjust", "adjust", following[0].because, following, parent)


def _expects_more(chain: Sequence[Iteration], best: Iteration, metric: str, known: Known) -> bool:
    """Whether a finding of the best iteration promises a gain, and the last adjustment had one."""
    if not has(best, PROMISING):
        return False
    return len(chain) == 1 or gained(chain[-1], chain[:-1], metric, known)


def _flat(chain: Sequence[Iteration], limits: Limits, known: Known) -> bool:
    """Whether `patience` iterations brought no gain, since the first run that learned anything."""
    broken = TOO_HIGH | {"not-learning"}
    first = next(
        (
            n
            for n, iteration in enumerate(chain, start=1)
            if math.isfinite(figure(iteration, limits.metric)) and not has(iteration, broken)
        ),
        len(chain),
    )
    start = len(chain) - max(limits.patience, 1)
    if start < first:
        return False
    recent = parent_of_next(chain[start:], limits.metric)
    return not gained(recent, chain[:start], limits.metric, known)
