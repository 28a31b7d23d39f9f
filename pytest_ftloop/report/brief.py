"""What one screen keeps of longer texts. What is left out is counted, or marked by dots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ftloop.gate.compare import EVAL_CHANGED
from pytest_ftloop.report import hints
from pytest_ftloop.report.escape import shorten, visible
from pytest_ftloop.report.gate_changes import change_lines
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.phrases import plural
from pytest_ftloop.report.verdict import result_cause_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.result import LoopResult

CAUSE_LINES = 9
"""Lines of what a change did, so that a failing loop stays on one screen."""

GATE_LINES = 3
"""Of these, lines kept for what was done to the gates: the heading and what loosens them."""


def compared_paragraphs(verdict: Verdict, width: int) -> list[list[str]]:
    """That the figures are of fewer examples than those of the thresholds beside them."""
    notes = [note for note in verdict.notes if note.startswith(EVAL_CHANGED)]
    return [paragraph(f"note: {visible(note)}", width, "  ", "    ") for note in notes]


def heads(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The verdicts, then what there is to say of them: once, if it is the same of several."""
    told = {tuple(lines): None for v in verdicts for lines in v["told"]}
    return [*(line for v in verdicts for line in v["head"]), *(x for lines in told for x in lines)]


def brief_cause(result: LoopResult, width: int) -> list[str]:
    """What changed since the baseline, in few lines; the gates keep some where all is too long."""
    lines = result_cause_lines(result, width)
    if len(lines) <= CAUSE_LINES:
        return lines
    gates = len(change_lines(result.gate_changes, width - 2))
    others, of_gates = lines[: len(lines) - gates], lines[len(lines) - gates :]
    room = CAUSE_LINES - 1
    kept = of_gates[: max(room - len(others), GATE_LINES)]
    kept = [*others[: room - len(kept)], *kept]
    left = plural(len(lines) - len(kept), "more line")
    return [*kept, shorten(f"  ... and {left}: {hints.diff(result)}", width)]


def cut(lines: Sequence[str], most: int, width: int) -> list[str]:
    """At most so many lines; dots at the end of the last show that there are more."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], shorten(f"{lines[most - 1]} ...", width)]
