"""What stands: of all judgements in a log, which iteration is the baseline, and which the anchor.

A passing judgement takes the place of those named in its `over`; those whose place no other one
took are the heads, as with commits. A line of development has one head, two merged branches have
two: then the better iteration is the baseline, whichever branch was merged into the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.records import Iteration, Judgement

RAISING = frozenset({"improved", "first"})
"""Judgements that make an iteration the best ever accepted; a passing `unchanged` does not: of many
candidates that chance made look a little better, the best would be a lucky one."""

STARTING_ANEW = frozenset({"first", "not comparable"})
"""Judgements with nothing comparable before them: what came before is no anchor any more."""


def heads(judgements: Sequence[Judgement]) -> tuple[Judgement, ...]:
    """The passing judgements whose place no other passing one took, by name."""
    passing = [judgement for judgement in judgements if judgement.passed]
    replaced = {name for judgement in passing for name in judgement.over}
    standing = (judgement for judgement in passing if judgement.name not in replaced)
    return tuple(sorted(standing, key=lambda judgement: judgement.name))


def baseline_of(
    iterations: Sequence[Iteration], judgements: Sequence[Judgement], metric: str
) -> Iteration | None:
    """The iteration that a log stands for: the best of the heads' candidates.

    Where none of those is in the log, or nothing was ever judged, the best of all iterations that
    were not rejected. None for an empty log.
    """
    standing = _named(iterations, [head.candidate for head in heads(judgements)])
    candidates = standing or _not_rejected(iterations, judgements)
    return best_of(candidates, metric) if candidates else None


def anchor_of(
    iterations: Sequence[Iteration], judgements: Sequence[Judgement], metric: str
) -> Iteration | None:
    """The best iteration ever accepted for a proven improvement, on the way to the heads.

    An iteration accepted by hand, or that nothing before it could be compared with, starts anew:
    what came before it is no anchor any more. None where nothing was ever accepted so.
    """
    by_name: Mapping[str, Judgement] = {j.name: j for j in judgements if j.passed}
    waiting, seen = [head.name for head in heads(judgements)], set[str]()
    accepted: list[str] = []
    while waiting:
        name = waiting.pop()
        judgement = by_name.get(name)
        if judgement is None or name in seen:
            continue
        seen.add(name)
        anew = judgement.by == "hand" or judgement.kind in STARTING_ANEW
        if anew or judgement.kind in RAISING:
            accepted.append(judgement.candidate)
        if not anew:
            waiting += judgement.over
    found = _named(iterations, accepted)
    return best_of(found, metric) if found else None


def _not_rejected(
    iterations: Sequence[Iteration], judgements: Sequence[Judgement]
) -> tuple[Iteration, ...]:
    """The iterations without those that only ever failed; all of them where none is left."""
    passed = {judgement.candidate for judgement in judgements if judgement.passed}
    rejected = {judgement.candidate for judgement in judgements} - passed
    kept = tuple(iteration for iteration in iterations if iteration.id not in rejected)
    return kept or tuple(iterations)


def _named(iterations: Sequence[Iteration], ids: Sequence[str]) -> tuple[Iteration, ...]:
    wanted = frozenset(ids)
    return tuple(iteration for iteration in iterations if iteration.id in wanted)
