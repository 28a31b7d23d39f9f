"""`ftloop suggest`: the next adjustments and their reasons, as terminal text."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_ftloop.core.records import Adjustment, Finding, Iteration
from pytest_ftloop.report.escape import shorten, visible
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.phrases import decision_text
from pytest_ftloop.report.text import WIDTH, adjustment_lines, finding_lines


@dataclass(frozen=True)
class Suggestion:
    """What to adjust after the last iteration of a loop.

    `adjustments` are relative to the iteration `parent` (None: unknown). `because` is the reason
    where there are none. `is_planned`: the next run trains them. `place` is the argument that names
    the loop's log in commands.
    """

    last: Iteration
    parent: Iteration | None
    adjustments: tuple[Adjustment, ...]
    because: str
    is_planned: bool = False
    place: str = ""

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Errors that no setting can cure: they have to be fixed before anything is tuned."""
        return tuple(f for f in self.last.findings if f.severity == "error" and not f.tunable)


def as_text(suggestion: Suggestion, width: int = WIDTH) -> str:
    """The suggestion as terminal text."""
    last, decision = suggestion.last, suggestion.last.decision
    lines = [shorten(visible(f"{last.loop}: iteration {last.name} is the last"), width)]
    if suggestion.is_planned and decision.action == "stop":
        why = f"the last decision, {decision_text(decision)}, no longer stands"
        lines += paragraph(why, width, "  ", "    ")
    elif decision.because:
        why = f"{decision_text(decision)}: {visible(decision.because)}"
        lines += paragraph(why, width, "  ", "    ")
    if decision.kind == "pending":
        why = "the policy or a hook failed after it: the next run of pytest --ftloop calls it again"
        lines += paragraph(why, width, "  ", "    ")
    if suggestion.faults:
        lines.append("nothing to tune: fix this first")
        return "\n".join([*lines, *(x for f in suggestion.faults for x in finding_lines(f, width))])
    best = f"  {f'ftloop show best {suggestion.place}'.strip()} lists the examples that fail"
    if decision.kind == "gates" and not suggestion.is_planned:
        return "\n".join([*lines, "nothing to change", best])
    if not suggestion.adjustments:
        lines += paragraph(f"nothing left to try: {visible(suggestion.because)}", width, "", " ")
        return "\n".join([*lines, best])
    start = f", from iteration {visible(suggestion.parent.name)}" if suggestion.parent else ""
    lines.append(shorten(f"{_head(suggestion)}{start}:", width))
    return "\n".join([*lines, *adjustment_lines(suggestion.adjustments, width)])


def _head(suggestion: Suggestion) -> str:
    if suggestion.is_planned:
        return "the next run of pytest --ftloop trains"
    return "would be tried next if the loop continued"
