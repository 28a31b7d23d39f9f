"""Broken examples as one fact: how many broke, of how many, and what most of them answer now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.core.runs import named_alike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Iteration

ALIKE = 0.75
"""The share of the broken examples that makes a common answer worth naming: with two labels, one
of them is the answer of half of them by chance."""


@dataclass(frozen=True)
class Breakage:
    """`count` examples broke, of `passed` that the baseline passes.

    `alike` of them answer `output` now; 0 where too few answer the same.
    """

    count: int
    passed: int
    alike: int = 0
    output: str = ""


def breakage(
    before: Iteration, after: Iteration, ids: Sequence[str], tag: str | None = None
) -> Breakage | None:
    """What broke, of the examples with this tag or of all; None if nothing did, or no row is there.

    An example that only one of the two versions was measured on counts for nothing.
    """
    new = {row.id: row for row in after.examples}
    old = [row for row in named_alike(before.examples, after.examples) if row.id in new]
    found = [new[id_] for id_ in ids if id_ in new]
    if not found:
        return None
    passed = sum(row.passed is True for row in old if tag is None or tag in new[row.id].tags)
    broken = Breakage(len(found), passed)
    if not any(row.output for row in (*old, *new.values())):  # nothing was generated
        return broken
    output, alike = Counter(row.output for row in found).most_common(1)[0]
    if alike < 2 or alike < ALIKE * len(found):
        return broken
    return Breakage(broken.count, broken.passed, alike, output)
