"""The course of one run: turn the cycle until nothing is planned."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_ftloop import adjust
from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.chain import chain_from, next_number
from pytest_ftloop.core.records import ID_LENGTH, Iteration, is_unscored, name_of
from pytest_ftloop.loop.ahead import Ahead, Begin, are_reported, workers_of, working_ahead
from pytest_ftloop.loop.cycle import (
    Cycle,
    Turn,
    check_before_training,
    find_in_data,
    pace,
    point_metric,
    turn,
)
from pytest_ftloop.loop.planner import Plan

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Settings


AHEAD = 2
"""Trainings begun ahead per worker: one under way and one queued, so that no worker is idle."""

WORTH_S = 10.0
"""Seconds that the last training must have taken for one to be begun on a guess: a worker needs
about as long to load torch and the model."""


@dataclass(frozen=True)
class Course:
    """The loop's chain, and the ids of the iterations that this run made.

    It trained them, restored them from its store, or evaluated them again.
    """

    chain: tuple[Iteration, ...]
    trained: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    evaluated: tuple[str, ...] = ()


def turn_until_it_stops(cycle: Cycle, *, afresh: bool) -> Course:
    """Turn the cycle until nothing is planned. With `afresh`, train logged iterations again."""
    with working_ahead(cycle.backend) as begin:
        return _turns(cycle, begin, afresh=afresh)


def _turns(cycle: Cycle, begin: Begin, *, afresh: bool) -> Course:
    log, planner = cycle.improvement_log, cycle.planner
    before = log.read()
    _ = planner.policy  # made now, so that a mistake in it shows before an hour of training
    logged = () if afresh else before
    trained: list[str] = []
    restored: list[str] = []
    evaluated: list[str] = []
    data_findings = None
    while True:
        chain, plan = planner.walk(logged)
        if plan is None:
            return Course(chain, tuple(trained), tuple(restored), tuple(evaluated))
        number, plan = _numbered(plan, before, logged)
        if kept := _kept(cycle, plan):
            cycle.take_in(kept, plan.settings)
            written = log.put(replace(kept, number=number))
            restored.append(written.id)
        else:
            if data_findings is None:  # once, and not at all if every iteration can be restored
                data_findings = find_in_data(cycle)
            known_weights = None if afresh else cycle.again.evaluable(plan.settings)
            current = Turn(number, plan, chain, logged, data_findings, known_weights)
            if known_weights is None:
                begin(_next_trainings(cycle, current, afresh=afresh))
            written = turn(cycle, current)
            (evaluated if known_weights else trained).append(written.id)
        logged = (*logged, written)
        if afresh:
            _drop_replaced(cycle, before, logged)


def upcoming(cycle: Cycle, *, afresh: bool) -> list[Ahead]:
    """The trainings that a run would begin first, without guesses. Writes nothing."""
    check_before_training(cycle)
    before = cycle.improvement_log.read()
    _ = cycle.planner.policy  # a mistake in it is told before the first training
    logged = () if afresh else before
    chain, plan = cycle.planner.walk(logged)
    if plan is None:
        return []
    number, plan = _numbered(plan, before, logged)
    first = Turn(number, plan, chain, logged, ())
    return [a for a in _next_trainings(cycle, first, afresh=afresh) if not a.guess]


def _numbered(
    plan: Plan, before: Sequence[Iteration], logged: Sequence[Iteration]
) -> tuple[int, Plan]:
    """The number of the planned iteration, and the plan as an accepted start makes it.

    A retrained iteration keeps its number, so that its diff shows what changed.
    """
    known = next((i for i in before if i.fingerprint == plan.fingerprint), None)
    number = known.number if known else next_number((*before, *logged))
    return number, _as_accepted(plan, known, before)


def _next_trainings(cycle: Cycle, current: Turn, *, afresh: bool) -> list[Ahead]:
    """The training of this turn, and those after it that no result can change; or else guesses.

    Without those that need not be trained. None if runs are reported to trackers: one that is
    begun in vain, since the loop stops before it, would stay there.
    """
    count = workers_of(cycle.backend)
    if count == 1 or are_reported(current.plan.settings):
        return []
    chain, plan, logged = current.chain, current.plan, current.logged
    ends = adjust.fault_in(current.data_findings) is not None
    later = () if ends else cycle.planner.foreseen(chain, plan, logged, AHEAD * count)
    trainings = [
        # Beside the first of all, which may show a fault, the others are begun on a guess too.
        _training(cycle, current, settings, later=n, guess=n > 0 and not chain)
        for n, settings in enumerate((plan.settings, *later))
    ]
    if not later and chain and chain[-1].cost.seconds >= WORTH_S:
        # As many as there are idle workers: when another one has room, more is known.
        guessed = cycle.planner.guessed(chain, plan, logged, count - 1)
        trainings += [_training(cycle, current, s, later=1, guess=True) for s in guessed]
    made = {i.fingerprint for i in logged if not is_unscored(i)}
    return [t for t in trainings if _is_to_be_made(cycle, t.settings, made, afresh=afresh)]


def _is_to_be_made(cycle: Cycle, settings: Settings, made: Set[str], *, afresh: bool) -> bool:
    fingerprint = cycle.inputs.fingerprint(cycle.config, settings)
    if fingerprint in made or cycle.store.may_have(fingerprint):
        return False
    return afresh or not cycle.again.known(settings)


def _training(
    cycle: Cycle, current: Turn, settings: Settings, *, later: int, guess: bool = False
) -> Ahead:
    """The training of an iteration with these settings, so many after the current one."""
    base = cycle.base_keeper.seen(settings)
    fingerprint = cycle.inputs.fingerprint(cycle.config, settings)
    place = f"iteration {len(current.chain) + 1 + later}"
    return Ahead(
        settings,
        name=name_of(current.number + later, fingerprint[:ID_LENGTH]),
        adapter=adapter_folder(cycle.inputs.weights(settings)),
        metric=point_metric(cycle, current.chain),
        pace=pace(cycle, current.chain),
        label=f"{place} (a guess)" if guess else place,
        base_eval_loss=base.metrics.get("eval_loss") if base else None,
        guess=guess,
    )


def _as_accepted(plan: Plan, known: Iteration | None, before: Sequence[Iteration]) -> Plan:
    """The plan, with the parent of an accepted start that is retrained: the loop stays finished."""
    if plan.parent is not None or known is None or known.parent is None:
        return plan
    parent = next((i for i in before if i.id == known.parent), None)
    return replace(plan, parent=parent, adjustments=known.adjustments if parent else ())


def _kept(cycle: Cycle, plan: Plan) -> Iteration | None:
    """The planned iteration, if an earlier run trained it and the store still has it."""
    parent = plan.parent.id if plan.parent else None
    return cycle.store.iteration(
        plan.fingerprint, plan.settings, cycle.config.name, parent, plan.adjustments
    )


def _drop_replaced(
    cycle: Cycle, before: Sequence[Iteration], retrained: Sequence[Iteration]
) -> None:
    """Remove the old chain's remaining iterations once retraining plans different settings.

    Otherwise iterations of two trainings, perhaps from two machines, would be read as one chain.
    Version control keeps the removed ones. Called after every iteration, so that an interrupted
    retraining does not leave a mixture either.
    """
    start = cycle.inputs.fingerprint(cycle.config, cycle.config.settings)
    old = chain_from(before, start)
    _, plan = cycle.planner.walk(retrained)
    if plan is not None and plan.fingerprint in {iteration.fingerprint for iteration in old}:
        return  # the old chain is still being followed: its next iteration is retrained next
    kept = {iteration.id for iteration in retrained}
    for iteration in old:
        if iteration.id not in kept:
            cycle.improvement_log.remove(iteration)
