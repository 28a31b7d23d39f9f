"""Find the baseline and the anchor in a log's judgements.

Judgements form a graph, as commits do: each passing one names, in `over`, the judgements that it
replaces. Those that none replaced are the current ones. A line of development has one, two merged
branches have two: then the better iteration is the baseline, whichever branch was merged into the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.records import Iteration, Judgement
from pytest_ftloop.gate.verdict import ENVIRONMENT_CHANGED

IsHere = Callable[[Iteration], bool]
"""Whether an iteration has a run in the candidate's environment."""

RAISES_ANCHOR = frozenset({"improved", "first"})
"""Kinds of judgement that can make an iteration the anchor. A passing `unchanged` does not: of many
candidates that chance made look slightly better, the anchor would be the luckiest."""

RESETS_ANCHOR = frozenset({"first", "not comparable"})
"""Kinds of judgement with nothing comparable before them, so that no earlier iteration can be the
anchor."""


RETIRED = "retired"
"""The kind of the judgement by hand that gives a loop up: nothing has to judge it from then on."""


def current_judgements(judgements: Sequence[Judgement]) -> tuple[Judgement, ...]:
    """The passing judgements that no other passing one replaced, by name."""
    passing = [judgement for judgement in judgements if judgement.passed]
    replaced = {name for judgement in passing for name in judgement.over}
    current = (judgement for judgement in passing if judgement.name not in replaced)
    return tuple(sorted(current, key=lambda judgement: judgement.name))


def baseline_of(
    iterations: Sequence[Iteration],
    judgements: Sequence[Judgement],
    metric: str | None,
    is_here: IsHere | None = None,
) -> Iteration | None:
    """The version that the next candidate is compared with: the best one judged and passed last.

    Of those with a run in the candidate's environment, if `is_here` tells which have one and there
    are any. If none of the accepted iterations is in the log, or nothing was ever judged, it is the
    best of all iterations that were not rejected. None for an empty log.
    """
    accepted = _accepted_here(iterations, judgements, is_here) if is_here else ()
    current = [judgement.candidate for judgement in accepted or current_judgements(judgements)]
    candidates = _named(iterations, current)
    if not candidates:
        candidates = _not_rejected(iterations, judgements)
        candidates = tuple(filter(is_here, candidates)) or candidates
    return best_of(candidates, metric) if candidates else None


def anchor_of(
    iterations: Sequence[Iteration],
    judgements: Sequence[Judgement],
    metric: str | None,
    is_here: IsHere | None = None,
) -> Iteration | None:
    """The best iteration ever accepted for a proven improvement, behind the baseline.

    An iteration that was accepted by hand, or had nothing comparable before it, resets the anchor:
    iterations before it no longer count. One that was not comparable for its environment alone
    resets nothing: it is the first of that environment. With `is_here`, only iterations with a run
    in the candidate's environment count. None if nothing was accepted in one of these ways.
    """
    by_name = _passing(judgements)
    start = _accepted_here(iterations, judgements, is_here) if is_here else ()
    accepted: list[str] = []

    def goes_on(judgement: Judgement) -> bool:
        resets = judgement.by == "hand" or judgement.kind in RESETS_ANCHOR
        if resets or judgement.kind in RAISES_ANCHOR:
            accepted.append(judgement.candidate)
        return not resets or judgement.because.startswith(ENVIRONMENT_CHANGED)

    _walk_back(start or current_judgements(judgements), by_name, goes_on)
    found = _named(iterations, accepted)
    found = tuple(filter(is_here, found)) if is_here else found
    return best_of(found, metric) if found else None


def covered_by(judgement: Judgement) -> frozenset[str]:
    """The ids of the baselines that an acceptance by hand counts against; empty for all.

    These are the baseline that it was given for, and what the log accepted before.
    """
    replaced = {name.partition("-")[0] for name in judgement.over}
    return frozenset(replaced | {judgement.baseline} if judgement.baseline else replaced)


def _accepted_here(
    iterations: Sequence[Iteration], judgements: Sequence[Judgement], is_here: IsHere
) -> tuple[Judgement, ...]:
    """The latest passing judgements of iterations that have a run in this environment.

    Found by walking back from the current ones. One that is behind another of them does not count.
    """
    by_name = _passing(judgements)
    here = {iteration.id for iteration in iterations if is_here(iteration)}
    found: dict[str, Judgement] = {}

    def goes_on(judgement: Judgement) -> bool:
        if judgement.candidate in here:
            found[judgement.name] = judgement
        return judgement.candidate not in here

    _walk_back(current_judgements(judgements), by_name, goes_on)
    behind: set[str] = set()

    def note(judgement: Judgement) -> bool:
        behind.update(judgement.over)
        return True

    _walk_back(found.values(), by_name, note)
    return tuple(found[name] for name in sorted(found) if name not in behind)


def _walk_back(
    start: Iterable[Judgement],
    by_name: Mapping[str, Judgement],
    goes_on: Callable[[Judgement], bool],
) -> None:
    """Visit judgements, and behind each those that it replaced where `goes_on` says so.

    Each is visited once, so a damaged log with a cycle ends the walk too.
    """
    waiting, seen = [judgement.name for judgement in start], set[str]()
    while waiting:
        judgement = by_name.get(name := waiting.pop())
        if judgement is not None and name not in seen:
            seen.add(name)
            if goes_on(judgement):
                waiting += judgement.over


def _passing(judgements: Sequence[Judgement]) -> Mapping[str, Judgement]:
    return {judgement.name: judgement for judgement in judgements if judgement.passed}


def _not_rejected(
    iterations: Sequence[Iteration], judgements: Sequence[Judgement]
) -> tuple[Iteration, ...]:
    """The iterations without those that every judgement failed; all of them if none is left."""
    passed = {judgement.candidate for judgement in judgements if judgement.passed}
    rejected = {judgement.candidate for judgement in judgements} - passed
    kept = tuple(iteration for iteration in iterations if iteration.id not in rejected)
    return kept or tuple(iterations)


def _named(iterations: Sequence[Iteration], ids: Sequence[str]) -> tuple[Iteration, ...]:
    wanted = frozenset(ids)
    return tuple(iteration for iteration in iterations if iteration.id in wanted)
