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
from pytest_ftloop.report.show import curve_lines, lowest
from pytest_ftloop.report.text import WIDTH, finding_lines


@dataclass(frozen=True)
class Diagnosed:
    """One run and its findings.

    `source` is the file it was read from. `title` describes the run in one line, `facts` in plain
    values. `curves` are its losses in the order of the steps, by the curve's name. `notes` list
    what could not be checked.
    """

    source: str
    title: str
    facts: Mapping[str, Any]
    curves: Mapping[str, Sequence[float]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.severity == "error" for finding in self.findings)


def as_text(found: Diagnosed, width: int = WIDTH, *, unicode: bool = True) -> str:
    """The findings as terminal text. `unicode` False draws the curves in ASCII."""
    lines = paragraph(visible(f"{found.source}: {found.title}"), width, "", "  ")
    lines += curve_lines(found.curves, width, unicode=unicode)
    lines.append("findings:" if found.findings else "findings: none")
    lines += [line for finding in found.findings for line in finding_lines(finding, width)]
    for note in found.notes:
        lines += paragraph(f"note: {visible(note)}", width, "", "  ")
    return "\n".join(shorten(line, width) for line in lines)


def as_markdown(found: Diagnosed) -> str:
    """The findings as Markdown, in which text of users is inert."""
    lines = [f"### {inert_line(found.source)}", "", inert_line(found.title), ""]
    curves = {name: _summary(values) for name, values in found.curves.items() if values}
    if curves:
        ends = ("first", "last", "lowest")
        rows = [
            [visible(name), *(figure_text("eval_loss", of[end]) for end in ends)]
            for name, of in curves.items()
        ]
        lines += [markdown_table(["curve", *ends], rows, right=(1, 2, 3)), ""]
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
        "curves": {name: _summary(of) for name, of in found.curves.items()},
        "findings": [vars(finding) for finding in found.findings],
        "notes": list(found.notes),
    }


def _summary(values: Sequence[float]) -> dict[str, float | int]:
    first, last = (values[0], values[-1]) if values else (math.nan, math.nan)
    return {"points": len(values), "first": first, "last": last, "lowest": lowest(values)}
