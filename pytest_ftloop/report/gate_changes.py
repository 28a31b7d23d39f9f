"""What a change did to its own gates, as terminal text, Markdown and plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ftloop.report.escape import visible
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.markdown import inert_line, markdown_table
from pytest_ftloop.report.text import WIDTH

if TYPE_CHECKING:
    from pytest_ftloop.gate.gate_changes import GateChanges
    from pytest_ftloop.gate.thresholds import GateResult

MOST = 20
"""Changes shown in a terminal; the others are counted. One screen has room for so many."""


def change_lines(found: GateChanges | None, width: int = WIDTH) -> list[str]:
    """One line per change, those that loosen a gate first; empty if nothing changed."""
    if not found:
        return []
    since = f" since {visible(found.against)}" if found.against else ""
    head = f"{gates_word(len(found.changes), found.unknown)} changed{since}:"
    if found.unknown:
        lines = paragraph(f"{head} not known: {visible(found.unknown)}", width, "", "  ")
    else:
        lines = [head]
    ordered = sorted(found.changes, key=lambda change: not change.loosened)
    for change in ordered[:MOST]:
        text = f"{visible(change.name)}: {visible(change.before)} -> {visible(change.after)}"
        old = by_the_old(change.held, change.figure)
        text += f"; {visible(old)}" if old else ""
        lines += paragraph(text, width, f"  {_word(change.loosened)} ", "    ")
    left = len(ordered) - MOST
    return [*lines, *([f"  ... and {left} more"] if left > 0 else [])]


def change_markdown(found: GateChanges | None) -> list[str]:
    """The changes as a table; text of users is inert in it."""
    if not found:
        return []
    since = f" since {inert_line(found.against)}" if found.against else ""
    gates = gates_word(len(found.changes), found.unknown).capitalize()
    lines = [
        f"**{gates} changed**{since}"
        + (f": not known: {inert_line(found.unknown)}" * bool(found.unknown))
    ]
    if found.changes:
        rows = [
            [
                _word(each.loosened),
                *map(visible, (each.name, each.before, each.after)),
                visible(by_the_old(each.held, each.figure)),
            ]
            for each in sorted(found.changes, key=lambda change: not change.loosened)
        ]
        head, rows = with_the_old(["", "gate", "before", "now"], rows)
        lines += ["", markdown_table(head, rows)]
    return [*lines, ""]


def change_record(found: GateChanges | None) -> dict[str, Any]:
    """The changes as plain values for JSON."""
    if found is None:
        return {"against": "", "changes": [], "unknown": ""}
    changes = [
        {key: value for key, value in vars(change).items() if key != "figure"}
        for change in found.changes
    ]
    return {"against": found.against, "changes": changes, "unknown": found.unknown}


def gates_word(count: int, unknown: str = "") -> str:
    """`gate` where one thing changed, else `gates`."""
    return "gate" if count == 1 and not unknown else "gates"


def by_the_old(held: bool | None, figure: str) -> str:
    """`0.3844 fails the old bound`; empty where that is not known."""
    if held is None:
        return ""
    return f"{figure or 'a missing figure'} {'holds by' if held else 'fails'} the old bound"


def with_the_old(head: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """A table whose last cells are of `by_the_old`: without them where none is known."""
    if any(row[-1] for row in rows):
        return [*head, "figure"], rows
    return head, [row[:-1] for row in rows]


def loosened_text(found: GateChanges | None, gate: str) -> str:
    """What the tick of a gate does not say: that this change loosened it, and what that did.

    Empty where nothing loosened it, or where it holds by the old bound as well.
    """
    changes = [c for c in (found.loosened_at(gate) if found else ()) if not c.held]
    own = next((change for change in changes if change.name == gate), None)
    if own is not None and own.held is False:
        return f"holds at the new bound only, fails the old {own.before}"
    if own is not None:
        return f"loosened in this change, from {own.before}"
    said = [f"{c.name.rpartition('.')[2]} {c.before} -> {c.after}" for c in changes]
    return f"loosened in this change: {', '.join(said)}" if said else ""


def loosened_advice(found: GateChanges | None, width: int) -> list[str]:
    """What a reviewer is to do about gates that were loosened; empty if none was."""
    changes = [change for change in found.changes if change.loosened] if found else []
    if not changes:
        return []
    named = [f"{visible(c.name)} {visible(c.before)} -> {visible(c.after)}" for c in changes[:3]]
    more = [f"{len(changes) - 3} more"] if len(changes) > 3 else []
    gates, them = ("gate is", "it") if len(changes) == 1 else ("gates are", "them")
    text = f"approve only if the loosened {gates} intended ({'; '.join([*named, *more])}); else put"
    return paragraph(f"{text} {them} back", width, "", "  ")


def gate_text(gate: GateResult, found: GateChanges | None) -> str:
    """The message of a gate, and what its tick does not say."""
    but = loosened_text(found, gate.gate.name) if gate.passed else ""
    return f"{gate.message}; {but}" if but else gate.message


def _word(loosened: bool) -> str:
    return "loosened" if loosened else "changed"
