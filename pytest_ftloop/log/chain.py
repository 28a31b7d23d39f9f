"""The order of iterations: which of them are one loop's chain, and the next one's number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_ftloop.records import Iteration


def chain_from(iterations: Sequence[Iteration], fingerprint: str) -> tuple[Iteration, ...]:
    """The iterations that start from the one with this fingerprint: itself and its descendants.

    A parent comes before its children, else the lower number first. Where a merge brought the same
    iteration twice, the lower number stands for both.
    """
    waiting = sorted(iterations, key=lambda i: (i.number, i.id))
    following = next((i for i in waiting if i.fingerprint == fingerprint), None)
    chain: list[Iteration] = []
    ids: set[str] = set()
    while following is not None:
        chain.append(following)
        ids.add(following.id)
        waiting = [i for i in waiting if i.id not in ids]
        following = next((i for i in waiting if i.parent in ids), None)
    return tuple(chain)


def next_number(iterations: Iterable[Iteration]) -> int:
    """One more than the highest number in the log."""
    return max((i.number for i in iterations), default=0) + 1
