"""Stop, or go on with what: the order of the stop reasons, and of the moves for each finding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_ftloop.adjust import moves
from pytest_ftloop.adjust.state import (
    PROMISING,
    RATE,
    TOO_HIGH,
    Adjustments,
    State,
    figure,
    gained,
    has,
    parent_of_next,
    times,
)
from pytest_ftloop.metrics import format_figure
from pytest_ftloop.records import Adjustment, Decision, Iteration

Move = Callable[[State], Adjustments]


@dataclass(frozen=True)
class Limits:
    """What bounds the loop: how many iterations, how many without gain, by which metric."""

    iterations: int
    patience: int
    metric: str = "eval_loss"
    seconds_left: float | None = None


def decide(chain: Sequence[Iteration], gates_hold: bool, limits: Limits) -> Decision:
    """What follows the last iteration of the chain."""
    last, best = chain[-1], parent_of_next(chain, limits.metric)
    if fault := next((f for f in last.findings if f.severity == "error" and not f.tunable), None):
        return Decision("stop", "fault", f"No setting cures this: {fault.message}")
    following = propose(chain, limits.metric)
    if gates_hold and not (following and _expects_more(chain, best, limits.metric)):
        return Decision(
            "stop", "gates", "The gates hold and nothing better is expected.", following
        )
    if _flat(chain, limits):
        value = format_figure(limits.metric, figure(best, limits.metric))
        because = (
            f"The best {limits.metric}, {value} of iteration {best.number}, did not improve by "
            f"more than noise in {times(limits.patience, 'iteration')}."
        )
        return Decision("stop", "plateau", because, following)
    if len(chain) >= limits.iterations:
        because = f"The loop is limited to {times(limits.iterations, 'iteration')}."
        return Decision("stop", "iterations", because, following)
    if limits.seconds_left is not None and limits.seconds_left < last.cost.seconds:
        because = (
            f"{max(limits.seconds_left, 0):.0f} s are left; the last iteration took "
            f"{last.cost.seconds:.0f} s."
        )
        return Decision("stop", "time", because, following)
    if not following:
        because = "Every adjustment that the findings suggest was tried or is known to fail."
        return Decision("stop", "exhausted", because)
    return Decision("adjust", "adjust", following[0].because, following)


def propose(chain: Sequence[Iteration], metric: str = "eval_loss") -> Adjustments:
    """The next adjustments, relative to `parent_of_next`; none when no move is left."""
    state = State(tuple(chain), parent_of_next(chain, metric), metric)
    possible = [made for move in _moves(state) if (made := move(state)) and state.allows(made)]
    fresh = [made for made in possible if not _brought_nothing(state, made)]
    return next(iter(fresh or possible), ())


def _moves(state: State) -> Iterator[Move]:
    """The moves for the parent's first finding, the most promising first."""
    if state.finding(*TOO_HIGH, "oscillation"):
        yield from (moves.calm, moves.warm_up)
    elif state.finding("not-learning"):
        yield from (moves.climb, moves.more_epochs, moves.higher_rank)
    elif state.finding("overfitting"):
        remedies = (
            moves.halve_rate,
            moves.more_dropout,
            moves.more_decay,
            moves.lower_rank,
            moves.fewer_epochs,
        )
        if not _eval_rose(state):  # a wide gap, and no turning point: regularise first
            remedies = (
                moves.more_dropout,
                moves.more_decay,
                moves.halve_rate,
                moves.lower_rank,
                moves.fewer_epochs,
            )
        yield from remedies
    elif state.finding("underfit"):
        yield from (moves.climb, moves.more_epochs, moves.search_rate, moves.higher_rank)
    else:
        yield from (moves.search_rate, moves.more_epochs, moves.higher_rank)


def _expects_more(chain: Sequence[Iteration], best: Iteration, metric: str) -> bool:
    """Whether a finding of the best promises gain, and the last adjustment brought some."""
    if not has(best, PROMISING):
        return False
    return len(chain) == 1 or gained(chain[-1], chain[:-1], metric)


def _flat(chain: Sequence[Iteration], limits: Limits) -> bool:
    """No gain for `patience` iterations; only from the first run on that learned anything."""
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
    return not gained(recent, chain[:start], limits.metric)


def _brought_nothing(state: State, adjustments: Adjustments) -> bool:
    """Whether the same setting was last moved in the same direction without gain.

    Such moves come last. A search for the learning rate is narrowing in: only against overfitting
    is its next step the same remedy again.
    """
    if adjustments[0].setting == RATE and not state.finding("overfitting"):
        return False
    for number in range(len(state.chain) - 1, 0, -1):
        made = state.chain[number].adjustments
        if made and _direction(made[0]) == _direction(adjustments[0]):
            return not gained(state.chain[number], state.chain[:number], state.metric)
    return False


def _direction(adjustment: Adjustment) -> tuple[str, bool]:
    return adjustment.setting, adjustment.after > adjustment.before


def _eval_rose(state: State) -> bool:
    losses = [point.eval_loss for point in state.parent.evals]
    return bool(losses) and losses[-1] > 1.03 * min(losses)
