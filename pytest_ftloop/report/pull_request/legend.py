"""What the words and marks of the figures mean, below the table that has them first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.report.phrases import TERMS
from pytest_ftloop.report.verdict import MARKS

if TYPE_CHECKING:
    from pytest_ftloop.report.pull_request.model import LoopSection, PullRequestReport, VerdictRow

_MEANINGS = {
    "improved": "proven better",
    "regressed": "proven worse",
    "inconclusive": f"inconclusive: {TERMS['inconclusive']}",
}


def legend(report: PullRequestReport) -> str:
    """A line per mark and word that the figures of the report have."""
    verdicts = [verdict for loop in report.loops for verdict in loop.verdicts]
    kinds = {change.kind for verdict in verdicts for change in verdict.changes}
    marks = [f"`{MARKS[kind]}` {said}" for kind, said in _MEANINGS.items() if kind in kinds]
    lines = [", ".join(marks)] if marks else []
    lines += [f"*{word}*: {TERMS[word]}" for word in ("p", "detectable")]
    if any(verdict.seeds for verdict in verdicts):
        lines.append(f"*seeds*: {TERMS['seeds']}")
    return "\n".join(f"- {line}." for line in lines)


def first_with_figures(report: PullRequestReport) -> LoopSection | None:
    """The loop below whose figures the legend stands."""
    return next((x for x in report.loops if any(v.changes for v in x.verdicts)), None)


def measured_text(verdict: VerdictRow) -> str:
    """On how many examples both versions were measured: `48 eval examples`, `40 of 48 ...`."""
    if not verdict.total:
        return ""
    some = "" if verdict.common == verdict.total else f"{verdict.common} of "
    plural = "" if verdict.total == 1 else "s"
    return f"Both were measured on {some}{verdict.total} eval example{plural}."
