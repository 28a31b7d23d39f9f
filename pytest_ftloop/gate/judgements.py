"""Find the baseline and the anchor in a log's judgements.

Judgements form a graph, as commits do: each passing one names, in `over`, the judgements that it
replaces. Those that none replaced are the current ones. A line of development has one, two merged
branches have two: then the better iteration is the baseline, whichever branch was merged into the
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.records import Iteration, Judgement

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
    iterations: Sequence[Iteration], judgements: Sequence[Judgement], metric: str
) -> Iteration | None:
    """The version that the next candidate is compared with: the best one judged and passed last.

    If none of those iterations is in the log, or nothing was ever judged, it is the best of all
    iterations that were not rejected. None for an empty log.
    """
    current = [judgement.candidate for judgement in current_judgements(judgements)]
    candidates = _named(iterations, current) or _not_rejected(iterations, judgements)
    return best_of(candidates, metric) if candidates else None


def anchor_of(
    iterations: Sequence[Iteration], judgements: Sequence[Judgement], metric: str
) -> Iteration | None:
    """The best iteration ever accepted for a proven improvement, behind the current judgements.

    An iteration that was accepted by hand, or had nothing comparable before it, resets the anchor:
    iterations before it no longer count. None if nothing was accepted in one of these ways.
    """
    by_name: Mapping[str, Judgement] = {j.name: j for j in judgements if j.passed}
    # Walk back from the current judgements. `seen` ends the walk even if a damaged log has a cycle.
    waiting, seen = [judgement.name for judgement in current_judgements(judgements)], set[str]()
    accepted: list[str] = []
    while waiting:
        name = waiting.pop()
        judgement = by_name.get(name)
        if judgement is None or name in seen:
            continue
        seen.add(name)
        resets = judgement.by == "hand" or judgement.kind in RESETS_ANCHOR
        if resets or judgement.kind in RAISES_ANCHOR:
            accepted.append(judgement.candidate)
        if not resets:
            waiting += judgement.over
    found = _named(iterations, accepted)
    return best_of(found, metric) if found else None


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
