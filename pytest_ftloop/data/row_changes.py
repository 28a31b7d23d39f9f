"""What changed between two versions of a data set, in rows: added, removed, edited, relabelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.core.pairing import Key, paired

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example, ExampleResult


@dataclass(frozen=True)
class Row:
    """What is known of a row; `prompt` is empty where only a log's table has it."""

    id: str
    content: str
    tags: tuple[str, ...]
    expected: str
    prompt: str = ""


def rows_of_examples(examples: Iterable[Example]) -> list[Row]:
    """The rows of a data set that was loaded."""
    return [
        Row(e.id, e.content, e.tags, (e.expected or "").strip(), e.prompt_text) for e in examples
    ]


def rows_of_results(results: Iterable[ExampleResult]) -> list[Row]:
    """The rows of a log's table."""
    return [Row(r.id, r.content, r.tags, r.expected) for r in results]


def row_changes(before: Sequence[Row], after: Sequence[Row]) -> str:
    """`200 -> 180 rows: 21 removed, 1 added, 3 relabelled`.

    Rows are paired by content; those left by id; those left by their prompt. A row with another
    expected text for the same prompt is relabelled, one that changed otherwise is edited.
    """
    counts = dict.fromkeys(
        ("added", "removed", "edited", "relabelled", "with other tags", "with another id"), 0
    )
    old, new = list(before), list(after)
    for key in _KEYS:
        pairs, old, new = paired(old, new, key)
        for one, other in pairs:
            if kind := _change(one, other):
                counts[kind] += 1
    counts["removed"], counts["added"] = len(old), len(new)
    found = [f"{count} {kind}" for kind, count in counts.items() if count]
    size = f"{len(after)} rows"
    size = size if len(before) == len(after) else f"{len(before)} -> {size}"
    return f"{size}: {', '.join(found) or 'their order changed'}"


_KEYS: Sequence[Key[Row]] = (
    lambda row: (row.content, row.id),
    lambda row: row.content,
    lambda row: row.id,
    lambda row: row.prompt or None,
)
"""By what rows are paired, in this order."""


def _change(one: Row, other: Row) -> str:
    if one.content != other.content:
        asks_the_same = one.prompt == other.prompt or not (one.prompt and other.prompt)
        relabelled = one.expected != other.expected and asks_the_same
        return "relabelled" if relabelled else "edited"
    if one.tags != other.tags:
        return "with other tags"
    return "with another id" if one.id != other.id else ""
