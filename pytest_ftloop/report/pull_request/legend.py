"""What the words and marks of the figures mean, below the table that has them first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.report.legend import legend_lines
from pytest_ftloop.report.phrases import plural

if TYPE_CHECKING:
    from pytest_ftloop.report.pull_request.model import LoopSection, PullRequestReport, VerdictRow


def legend(report: PullRequestReport) -> str:
    """A line per mark and word that the figures of the report have."""
    verdicts = [verdict for loop in report.loops for verdict in loop.verdicts]
    kinds = {change.kind for verdict in verdicts for change in verdict.changes}
    return "\n".join(legend_lines(kinds, over_seeds=any(v.seeds for v in verdicts)))


def first_with_figures(report: PullRequestReport) -> LoopSection | None:
    """The loop below whose figures the legend stands."""
    return next((x for x in report.loops if any(v.changes for v in x.verdicts)), None)


def measured_text(verdict: VerdictRow) -> str:
    """On how many examples both versions were measured; an older report does not know it."""
    if not verdict.total:
        return ""
    some = "" if verdict.common == verdict.total else f"{verdict.common} of "
    return f"Both were measured on {some}{plural(verdict.total, 'eval example')}."
