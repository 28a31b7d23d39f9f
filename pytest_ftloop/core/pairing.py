"""Pairing the rows of two versions of a table, by one key after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Row = TypeVar("Row")

Key = Callable[[Row], Hashable]
"""What two rows must have in common to be one; a row whose key is None stays alone."""


def paired(
    old: Sequence[Row], new: Sequence[Row], key: Key[Row]
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Pairs of an old and a new row with equal keys, and what is left of both sides, in order.

    Rows with one key are paired in their order.
    """
    waiting: dict[Hashable, list[int]] = {}
    for place in range(len(old) - 1, -1, -1):
        waiting.setdefault(key(old[place]), []).append(place)
    pairs, alone, taken = [], [], set[int]()
    for row in new:
        wanted = key(row)
        if wanted is not None and (places := waiting.get(wanted)):
            taken.add(place := places.pop())
            pairs.append((old[place], row))
        else:
            alone.append(row)
    return pairs, [row for place, row in enumerate(old) if place not in taken], alone
