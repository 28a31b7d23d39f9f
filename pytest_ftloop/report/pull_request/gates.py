"""The gates of a loop in the report: what the change did to them, and a line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.report.escape import one_line
from pytest_ftloop.report.gate_changes import by_the_old, gates_word, with_the_old
from pytest_ftloop.report.pull_request.model import NAME, TEXT
from pytest_ftloop.report.pull_request.writing import say, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_ftloop.report.pull_request.model import LoopSection

_CELL = 200
MARKS = FAILS, BEWARE, HOLDS = "\u274c", "\u26a0\ufe0f", "\u2705"
_DOUBTFUL = frozenset({"inconclusive"})
"""Verdicts that pass without showing that nothing got worse."""


def loosened_gates(loops: Iterable[LoopSection]) -> str:
    """`gate` or `gates`, by how much the change loosened; empty if it loosened nothing."""
    found = [loop.gate_changes for loop in loops if loop.gate_changes.loosened]
    loosened = [change for row in found for change in row.changes if change.loosened]
    unknown = "".join(row.unknown for row in found)
    return gates_word(len(loosened), unknown) if found else ""


def icon(loop: LoopSection) -> str:
    """The mark of a loop: that of its gates, and a warning where nothing is proven."""
    if not loop.ok:
        return FAILS
    if loop.gate_changes.loosened:
        return BEWARE
    if loop.outcome == "not comparable" and not any(v.baseline for v in loop.verdicts):
        return HOLDS  # the first version: nothing can be worse
    return HOLDS if loop.outcome in {"unchanged", "improved"} else BEWARE


def changed_gates(loop: LoopSection, most: Mapping[str, int]) -> str:
    """What the change did to its own gates, before and after; what loosens one comes first."""
    found = loop.gate_changes
    if not found.changes and not found.unknown:
        return ""
    since = f" since {say(found.against, NAME)}" if found.against else ""
    unknown = f" Not known of the loop file: {say(found.unknown, TEXT)}" if found.unknown else ""
    rows = [
        [
            "loosened" if change.loosened else "",
            one_line(change.name, NAME),
            one_line(change.before, _CELL),
            one_line(change.after, _CELL),
            one_line(by_the_old(change.held, change.figure), _CELL),
        ]
        for change in sorted(found.changes, key=lambda change: not change.loosened)
    ]
    gates = gates_word(len(found.changes), found.unknown).capitalize()
    title = f"**{gates} changed**{since}.{unknown}"
    kept = rows[: most["changes of gates"]]
    return (
        f"{title}\n\n{table(*with_the_old(['', 'gate', 'before', 'now'], kept))}" if kept else title
    )


def gate_lines(loop: LoopSection, most: Mapping[str, int]) -> str:
    """One line per gate: the failing ones first, then those whose tick is in doubt."""
    width = max(most["reasons"], 20)
    lines = [
        (
            _mark(v.ok, v.loosened or v.kind in _DOUBTFUL),
            f"{say(v.gate, NAME)}: {v.kind}: {say(v.because, width)}{_but(v.loosened)}",
        )
        for v in loop.verdicts
    ]
    holding = most["gates that hold"]
    for each in loop.thresholds:
        if not each.passed or each.loosened or holding > 0:
            holding -= each.passed
            mark = _mark(each.passed, each.loosened)
            lines.append((mark, f"{say(each.message, TEXT)}{_but(each.loosened)}"))
    kept = sorted(lines, key=lambda line: MARKS.index(line[0]))[: most["gates"]]
    return "\n".join(f"- {mark} {text}" for mark, text in kept)


def _mark(passed: bool, doubt: str | bool) -> str:
    return (BEWARE if doubt else HOLDS) if passed else FAILS


def _but(loosened: str) -> str:
    return f"; {say(loosened, TEXT)}" if loosened else ""
