"""The differences of two eval sets, as the tables of two iterations have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pytest_ftloop.core.pairing import paired
from pytest_ftloop.gate.rule_changes import GateChange

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult, Iteration

MOST_TAGS = 20
"""Most tags that are listed; the rest is counted."""


def row_changes(before: Iteration, after: Iteration) -> tuple[GateChange, ...]:
    """Eval rows that were removed, edited or added, and tags that rows lost or gained.

    Rows are paired by content, so a row under another id, or at another place, is the same. What
    is left is paired by id: such a row was edited. Nothing is read if the sets are equal.
    """
    was, now = (it.data.get("eval", {}).get("sha256") for it in (before, after))
    if was is not None and was == now:
        return ()
    old, new = tuple(before.examples), tuple(after.examples)
    # Of equal rows first those with the same tags, so that their order changes nothing.
    same, gone, come = paired(old, new, lambda row: (row.content, frozenset(row.tags)))
    tagged, gone, come = paired(gone, come, lambda row: row.content)
    edited, removed, added = paired(gone, come, lambda row: row.id)
    counts = {"removed": len(removed), "edited": len(edited), "added": len(added)}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    rows = GateChange(
        "eval rows",
        f"{len(old)}",
        f"{len(new)}: {said}",
        loosened=bool(gone),
    )
    return (*((rows,) if said else ()), *_tag_changes([*same, *tagged, *edited]))


Pair = tuple["ExampleResult", "ExampleResult"]


def _tag_changes(pairs: Iterable[Pair]) -> Iterator[GateChange]:
    """Per tag, on how many of the rows that both sets have it was dropped or added."""
    had: Counter[str] = Counter()
    has: Counter[str] = Counter()
    dropped: set[str] = set()
    moved: set[str] = set()
    for old, new in pairs:
        before, after = set(old.tags), set(new.tags)
        had.update(before)
        has.update(after)
        dropped |= before - after
        moved |= before ^ after
    # The dropped ones first: they are what weakens a gate.
    names = sorted(moved, key=lambda tag: (tag not in dropped, tag))
    for tag in names[:MOST_TAGS]:
        yield GateChange(
            f"tag {tag}", f"{had[tag]} rows", f"{has[tag]} rows", loosened=tag in dropped
        )
    if rest := names[MOST_TAGS:]:
        loosened = any(tag in dropped for tag in rest)
        yield GateChange(f"{len(rest)} more tags", "", "changed", loosened=loosened)
