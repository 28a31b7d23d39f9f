"""The default policy: the moves for each finding, the most promising first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pytest_ftloop.adjust import moves
from pytest_ftloop.adjust.policy import Proposal
from pytest_ftloop.adjust.state import (
    NOTHING,
    RATE,
    TOO_HIGH,
    Adjustments,
    Known,
    State,
    gained,
    parent_of_next,
)
from pytest_ftloop.core.records import Adjustment, Iteration

Move = Callable[[State], Adjustments]


@dataclass(frozen=True)
class Rules:
    """Moves for the findings of the best iteration so far."""

    exhaustive: bool = False

    def propose(self, chain: Sequence[Iteration], metric: str, known: Known = NOTHING) -> Proposal:
        """The first move that is possible and new; moves without a gain so far come last."""
        parent = parent_of_next(chain, metric)
        state = State(tuple(chain), parent, metric, known)
        possible = [made for move in _moves(state) if (made := move(state)) and state.allows(made)]
        fresh = [made for made in possible if not _brought_nothing(state, made)]
        because = "Every adjustment that the findings suggest was tried or is known to fail."
        return Proposal(parent, next(iter(fresh or possible), ()), because)


def _moves(state: State) -> Iterator[Move]:
    """The moves for the parent's first finding, the most promising first."""
    if state.finding(*TOO_HIGH, "oscillation"):
        yield from (moves.calm, moves.warm_up)
    elif state.finding("not-learning"):
        yield from (moves.to_usual_rate, moves.climb, moves.more_epochs, moves.higher_rank)
    elif state.finding("overfitting") or _too_sure(state):
        yield from _against_overfitting(state)
    elif _unfinished(state):
        yield moves.within_practice
        # If the rate is about right for the width, the run needs more time.
        first = (moves.to_usual_rate, moves.more_epochs, moves.climb)
        yield from (first if state.usual else (moves.climb, moves.more_epochs))
        yield from (moves.search_rate, moves.higher_rank)
    else:
        yield from (moves.search_rate, moves.more_epochs, moves.higher_rank)


def _against_overfitting(state: State) -> Iterator[Move]:
    first = (moves.halve_rate, moves.more_dropout, moves.more_decay)
    if not _eval_rose(state):  # a wide gap without a turning point: regularise first
        first = (moves.more_dropout, moves.more_decay, moves.halve_rate)
    yield from (*first, moves.lower_rank, moves.fewer_epochs)


def _too_sure(state: State) -> bool:
    """Whether the model is overconfident, which does no harm if the pass rate decides."""
    return state.metric == "eval_loss" and state.finding("overconfidence") is not None


def _unfinished(state: State) -> bool:
    """Whether a longer or faster run may learn more: the loss fell, or was lowest, at the end.

    Being lowest counts only if the width is known and its usual rate was reached; otherwise the
    rate is searched first. The loss may fall again after a flat stretch, and overfitting in a
    longer run costs only its steps, since the best evaluation point is kept.
    """
    return bool(state.finding("underfit")) or (state.usual > 0 and state.best_share > 0.9)


def _brought_nothing(state: State, adjustments: Adjustments) -> bool:
    """Whether the last move of the same setting in the same direction brought no gain.

    Such moves come last. Moves of the learning rate narrow in on the best one, so they count only
    against overfitting, where another step repeats the same remedy.
    """
    if adjustments[0].setting == RATE and not state.finding("overfitting"):
        return False
    for number in range(len(state.chain) - 1, 0, -1):
        made = state.chain[number].adjustments
        if made and _direction(made[0]) == _direction(adjustments[0]):
            before = state.chain[:number]
            return not gained(state.chain[number], before, state.metric, state.known)
    return False


def _direction(adjustment: Adjustment) -> tuple[str, bool]:
    return adjustment.setting, adjustment.after > adjustment.before


def _eval_rose(state: State) -> bool:
    losses = [point.eval_loss for point in state.parent.evals]
    return bool(losses) and losses[-1] > 1.03 * min(losses)
