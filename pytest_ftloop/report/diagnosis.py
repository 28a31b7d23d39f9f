"""`ftloop diagnose`: the findings of one run, as terminal text, Markdown and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.core.records import Finding
from pytest_ftloop.report.escape import shorten, visible
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.markdown import inert, inert_line, markdown_table
from pytest_ftloop.report.phrases import evidence_text, figure_text
from pytest_ftloop.report.show import curve_lines, highest, lowest
from pytest_ftloop.report.text import WIDTH, finding_lines


@dataclass(frozen=True)
class Diagnosed:
    """One run and its findings.

    `source` is the file it was read from. `title` describes the run in one line, `facts` in plain
    values. `curves` are its losses and metrics in the order of the steps, by the curve's name; of
    those in `higher` the highest value is the best. `notes` list what could not be checked.
    """

    source: str
    title: str
    facts: Mapping[str, Any]
    curves: Mapping[str, Sequence[float]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()
    higher: frozenset[str] = frozenset()

    @property
    def is_broken(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)


def as_text(found: Diagnosed, width: int = WIDTH, *, unicode: bool = True) -> str:
    """The findings as terminal text. `unicode` False draws the curves in ASCII."""
    lines = paragraph(visible(f"{found.source}: {found.title}"), width, "", "  ")
    lines += curve_lines(found.curves, width, unicode=unicode, higher=found.higher)
    lines.append("findings:" if found.findings else "findings: none")
    lines += [line for finding in found.findings for line in finding_lines(finding, width)]
    for note in found.notes:
        lines += paragraph(f"note: {visible(note)}", width, "", "  ")
    return "\n".join(shorten(line, width) for line in lines)


def as_markdown(found: Diagnosed) -> str:
    """The findings as Markdown, in which text of users is inert."""
    lines = [f"### {inert_line(found.source)}", "", inert_line(found.title), ""]
    curves = {name: _summary(found, name) for name, values in found.curves.items() if values}
    if curves:
        rows = [
            [visible(name), *(figure_text("eval_loss", value) for value in list(of.values())[1:])]
            for name, of in curves.items()
        ]
        lines += [markdown_table(["curve", "first", "last", "best"], rows, right=(1, 2, 3)), ""]
    for finding in found.findings:
        lines.append(
            f"- **{finding.severity} {inert_line(finding.kind)}**: {inert_line(finding.message)}"
        )
        if finding.evidence:
            lines.append(f"  - evidence: {inert(evidence_text(finding.evidence))}")
        if finding.remedy:
            lines.append(f"  - remedy: {inert_line(finding.remedy)}")
    if not found.findings:
        lines.append("Findings: none")
    if found.notes:
        lines += ["", *(f"- note: {inert_line(note)}" for note in found.notes)]
    return "\n".join(lines)


def as_record(found: Diagnosed) -> dict[str, Any]:
    """The findings as plain values for JSON, in full."""
    return {
        "source": found.source,
        **found.facts,
        "curves": {name: _summary(found, name) for name in found.curves},
        "findings": [vars(finding) for finding in found.findings],
        "notes": list(found.notes),
    }


def _summary(found: Diagnosed, name: str) -> dict[str, float | int]:
    values = found.curves[name]
    first, last = (values[0], values[-1]) if values else (math.nan, math.nan)
    ends = {"points": len(values), "first": first, "last": last}
    is_higher = name in found.higher
    return ends | ({"highest": highest(values)} if is_higher else {"lowest": lowest(values)})
