"""What a change did, which every report begins with: settings, data, model, scoring, gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ftloop.report.escape import columns_of, one_line, quoted, quoted_pair, shorten, visible
from pytest_ftloop.report.gate_changes import change_lines
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.phrases import format_setting

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ftloop.core.data_changes import DataChange, RowEdit
    from pytest_ftloop.gate.difference import SettingChange
    from pytest_ftloop.gate.gate_changes import GateChanges

UNCHANGED = "settings, data, model and scoring"

_LEAST_TEXT = 20
"""Fewest columns for the text of a row: fewer show too little of it."""


def cause_lines(
    settings: Sequence[SettingChange],
    data: Sequence[DataChange],
    gates: GateChanges | None,
    against: str,
    width: int,
) -> list[str]:
    """What the change did, against the commit `against`; the first line is the heading."""
    since = f", against {visible(against)}" if against else ""
    if not settings and not data and not gates:
        return paragraph(f"unchanged{since}: {UNCHANGED}", width, "", "  ")
    lines = paragraph(f"what this change did{since}:", width, "", "  ")
    for change in without_data(settings, data):
        text = f"{visible(change.name)} {stated(change.before)} -> {stated(change.after)}"
        lines += paragraph(text, width, "  ", "    ")
    for changed in data:
        lines += paragraph(f"data.{changed.role} {visible(changed.text)}", width, "  ", "    ")
        lines += [shorten(f"    {edit_text(edit, width - 4)}", width) for edit in changed.edits]
    if not settings and not data:
        lines.append(f"  unchanged: {UNCHANGED}")
    return [*lines, *(f"  {line}" for line in change_lines(gates, width - 2))]


def without_data(
    settings: Iterable[SettingChange], data: Iterable[DataChange]
) -> list[SettingChange]:
    """The changes but those of data sets whose rows are known, which say more than two hashes."""
    known = {f"data.{changed.role}" for changed in data}
    return [change for change in settings if change.name not in known]


def edit_text(edit: RowEdit, width: int) -> str:
    """`t014 relabelled "negative" -> "positive", "rude courier"`: one row in one line."""
    head = f"{one_line(edit.id, 24)} {edit.kind}"
    room = max(width - columns_of(head) - 1, 2 * _LEAST_TEXT)
    if edit.kind in ("added", "removed"):
        text = quoted(edit.after or edit.before, room // 3)
        left = max(room - columns_of(text) - 2, _LEAST_TEXT)
        return f"{head} {text}, {quoted(edit.prompt, left, middle=True)}"
    if edit.kind == "edited" and edit.after == edit.prompt:
        before, after = quoted_pair(edit.before, edit.after, (room - 4) // 2)
        return f"{head} {before} -> {after}"
    before, after = quoted_pair(edit.before, edit.after, max(room // 3, _LEAST_TEXT))
    text = f"{before} -> {after}"
    left = max(room - columns_of(text) - 2, _LEAST_TEXT)
    return f"{head} {text}, {quoted(edit.prompt, left, middle=True)}"


def stated(value: Any) -> str:
    """A setting's value, or that it is not set."""
    return "not set" if value is None else format_setting(value)
