"""What changed between two versions of a data set, in rows: added, removed, edited, relabelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from pytest_ftloop.core.data_changes import DataChange, RowEdit
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


MOST_EDITS = 3
"""Rows that a change shows as examples: enough to see what was done, and few enough to be read."""


def row_changes(before: Sequence[Row], after: Sequence[Row]) -> str:
    """`200 -> 180 rows: 21 removed, 1 added, 3 relabelled`.

    Rows are paired by content; those left by id; those left by their prompt. A row with another
    expected text for the same prompt is relabelled, one that changed otherwise is edited.
    """
    return data_change("", before, after).text


def data_change(role: str, before: Sequence[Row], after: Sequence[Row]) -> DataChange:
    """The changes counted as by `row_changes`, with up to `MOST_EDITS` of the rows."""
    counts = dict.fromkeys(
        ("added", "removed", "edited", "relabelled", "with other tags", "with another id"), 0
    )
    edits: dict[str, list[RowEdit]] = {}
    old, new = list(before), list(after)
    for key in _KEYS:
        pairs, old, new = paired(old, new, key)
        for one, other in pairs:
            if kind := _change(one, other):
                counts[kind] += 1
            if edit := _edit(kind, one, other):
                edits.setdefault(kind, []).append(edit)
    counts["removed"], counts["added"] = len(old), len(new)
    edits["removed"] = [RowEdit("removed", r.id, r.prompt, r.expected, "") for r in old]
    edits["added"] = [RowEdit("added", r.id, r.prompt, "", r.expected) for r in new]
    found = [f"{count} {kind}" for kind, count in counts.items() if count]
    size = f"{len(after)} rows"
    size = size if len(before) == len(after) else f"{len(before)} -> {size}"
    text = f"{size}: {', '.join(found) or 'their order changed'}"
    return DataChange(role, text, tuple(_in_turn(edits)))


def _edit(kind: str, one: Row, other: Row) -> RowEdit | None:
    """The change of one row in its texts; None where they are the same."""
    if kind == "relabelled":
        return RowEdit("relabelled", other.id, other.prompt, one.expected, other.expected)
    if kind == "edited" and one.prompt != other.prompt:
        return RowEdit("edited", other.id, other.prompt, one.prompt, other.prompt)
    if kind == "edited":  # a part of the row that is neither prompt nor expected text
        return RowEdit("edited", other.id, other.prompt, one.expected, other.expected)
    return None


def _in_turn(edits: dict[str, list[RowEdit]]) -> list[RowEdit]:
    """One edit of each kind in turn, the relabelled first, as these are the hardest to see.

    Of the relabelled those with different labels come first: they may be of several mistakes.
    """
    kinds = [edits.get(kind, []) for kind in ("relabelled", "edited", "removed", "added")]
    kinds[0] = _different_first(kinds[0])
    turns = (kind[turn] for turn in range(MOST_EDITS) for kind in kinds if turn < len(kind))
    return list(islice(turns, MOST_EDITS))


def _different_first(edits: list[RowEdit]) -> list[RowEdit]:
    firsts = {(edit.before, edit.after): edit for edit in reversed(edits)}
    return sorted(edits, key=lambda edit: firsts[edit.before, edit.after] is not edit)


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
