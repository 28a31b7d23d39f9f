"""What the rules will propose if a training comes to what trainings mostly come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.state import (
    EPOCHS,
    MAX_STEPS,
    NOTHING,
    Known,
    canonical,
    figure,
    parent_of_next,
    value_of,
)
from pytest_ftloop.core.metrics import metric_of
from pytest_ftloop.core.records import EvalPoint, Finding, Iteration, Settings


@dataclass(frozen=True)
class Outcome:
    """What a training may come to.

    `gain` is the share of the best figure that it gains; `lowest_at` the share of its steps after
    which its eval loss is lowest. It `falls` if that loss still falls at the end.
    """

    gain: float
    lowest_at: float = 1.0
    falls: bool = False


OUTCOMES = (
    Outcome(gain=0.1),
    Outcome(gain=0.1, falls=True),
    Outcome(gain=0.1, lowest_at=0.8),
    Outcome(gain=-0.05),
)
"""What trainings come to, the most common first. The rules ask no more than these questions of
most, so the sizes hardly matter; `make bench-ahead` counts how often each is right."""

GAP = 0.3
"""The gap between train and eval loss of a training that is longer than the best one, in nats."""


def guess(
    policy: Policy,
    chain: Sequence[Iteration],
    first: Settings,
    metric: str,
    most: int,
    known: Known = NOTHING,
) -> tuple[Settings, ...]:
    """Up to `most` settings, one of which may come after the next iteration, of `first`.

    Of the rules alone: a sampler's next point is another one after any other result.
    """
    best = parent_of_next(chain, metric)
    if not isinstance(policy, Rules) or not math.isfinite(figure(best, metric)):
        return ()
    guessed: dict[str, Settings] = {}
    for outcome in OUTCOMES:
        pretended = _pretended(best, chain, first, metric, outcome)
        proposal = policy.propose((*chain, pretended), metric, known)
        if proposal.adjustments:
            settings = proposal.parent.settings.adjusted(proposal.adjustments)
            guessed.setdefault(canonical(settings), settings)
    return tuple(guessed.values())[: max(most, 0)]


def _pretended(
    best: Iteration, chain: Sequence[Iteration], settings: Settings, metric: str, outcome: Outcome
) -> Iteration:
    """An iteration with these settings and this outcome; all else is as of the best one."""
    names = dict.fromkeys(("eval_loss", metric))
    metrics = {**best.metrics, **{name: _after(best, name, outcome.gain) for name in names}}
    made = replace(
        best,
        number=chain[-1].number + 1,
        id=f"{len(chain):08x}",
        settings=settings,
        evals=_curve(best.evals, outcome.lowest_at),
        findings=(Finding("underfit", "warning", "", {}, ""),) if outcome.falls else (),
    )
    is_longer = any(value_of(made, name) > value_of(best, name) for name in (EPOCHS, MAX_STEPS))
    if is_longer and not outcome.falls:
        metrics |= {"overfit_gap": GAP, "train_loss": metrics["eval_loss"] - GAP}
    return replace(made, metrics=metrics)


def _after(best: Iteration, name: str, gain: float) -> float:
    value = figure(best, name)
    sign = -1 if metric_of(name).better == "lower" else 1
    return value + sign * gain * max(abs(value), 0.1)  # a pass rate of 0 gains something too


def _curve(evals: Sequence[EvalPoint], lowest_at: float) -> tuple[EvalPoint, ...]:
    """A curve with its lowest point after this share of the steps."""
    last = max((point.step for point in evals), default=0)
    if not last:
        return ()
    return tuple(
        replace(point, eval_loss=1.0 + abs(point.step / last - lowest_at)) for point in evals
    )
