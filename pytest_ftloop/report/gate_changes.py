"""What a change did to its own gates, as terminal text, Markdown and plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.markdown import inert_line, markdown_table
from pytest_ftloop.report.text import WIDTH

if TYPE_CHECKING:
    from pytest_ftloop.gate.gate_changes import GateChanges

MOST = 20
"""Changes shown in a terminal; the others are counted. One screen has room for so many."""


def change_lines(found: GateChanges | None, width: int = WIDTH) -> list[str]:
    """One line per change, those that loosen a gate first; empty if nothing changed."""
    if not found:
        return []
    since = f" since {visible(found.against)}" if found.against else ""
    if found.unknown:
        text = f"gates changed{since}: not known: {visible(found.unknown)}"
        lines = paragraph(text, width, "", "  ")
    else:
        lines = [f"gates changed{since}:"]
    ordered = sorted(found.changes, key=lambda change: not change.loosened)
    for change in ordered[:MOST]:
        text = f"{visible(change.name)}: {visible(change.before)} -> {visible(change.after)}"
        lines += paragraph(text, width, f"  {_word(change.loosened)} ", "    ")
    left = len(ordered) - MOST
    return [*lines, *([f"  ... and {left} more"] if left > 0 else [])]


def change_markdown(found: GateChanges | None) -> list[str]:
    """The changes as a table; text of users is inert in it."""
    if not found:
        return []
    since = f" since {inert_line(found.against)}" if found.against else ""
    lines = [
        f"**Gates changed**{since}"
        + (f": not known: {inert_line(found.unknown)}" * bool(found.unknown))
    ]
    if found.changes:
        rows = [
            (_word(each.loosened), visible(each.name), visible(each.before), visible(each.after))
            for each in sorted(found.changes, key=lambda change: not change.loosened)
        ]
        lines += ["", markdown_table(("", "gate", "before", "now"), rows)]
    return [*lines, ""]


def change_record(found: GateChanges | None) -> dict[str, Any]:
    """The changes as plain values for JSON."""
    if found is None:
        return {"against": "", "changes": [], "unknown": ""}
    changes = [vars(change) for change in found.changes]
    return {"against": found.against, "changes": changes, "unknown": found.unknown}


def _word(loosened: bool) -> str:
    return "loosened" if loosened else "changed"
