"""`ftloop diff`: what a candidate changed, as terminal text and Markdown; plain values as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from pytest_ftloop.core.metrics import format_figure, own_metrics
from pytest_ftloop.core.printable import printable_json
from pytest_ftloop.core.records import Finding
from pytest_ftloop.gate.difference import Difference, Flip
from pytest_ftloop.gate.verdict import Change, change_text, p_text, seeds_text
from pytest_ftloop.report.cause import UNCHANGED, cause_lines, edit_text, stated, without_data
from pytest_ftloop.report.escape import one_line, quoted, shorten, visible
from pytest_ftloop.report.gate_changes import change_markdown
from pytest_ftloop.report.layout import paragraph
from pytest_ftloop.report.legend import legend_lines
from pytest_ftloop.report.markdown import inert, inert_line, markdown_table
from pytest_ftloop.report.phrases import (
    broken_text,
    duration_text,
    figure_text,
    plural,
)
from pytest_ftloop.report.text import WIDTH
from pytest_ftloop.report.verdict import MARKS, changes_table

MOST_FLIPS = 2
"""Broken, and fixed, examples shown; --all shows the rest. Two say what kind of mistake it is."""


def as_text(diff: Difference, width: int = WIDTH, most: int | None = MOST_FLIPS) -> str:
    """The difference as terminal text."""
    verdict = diff.verdict
    against = f" ({visible(verdict.against)})" if verdict.against else ""
    lines = [shorten(f"{visible(diff.loop)}: {verdict.kind}", width)]
    names = f"{visible(diff.after.name)} against {visible(diff.before.name)}"
    lines += paragraph(f"{names}{against}", width, "  ")
    lines += ["", *cause_lines(diff.settings, diff.data, diff.gate_changes, verdict.against, width)]
    lines += ["", *paragraph(visible(verdict.because), width, "  ", "    ")]
    if table := changes_table(verdict, width):
        lines += ["", *table]
    if untested := _untested_text(diff):
        lines += paragraph(visible(untested), width, "  ", "    ")
    for note in (*verdict.context, *verdict.notes):
        lines += paragraph(f"note: {visible(note)}", width, "  ", "    ")
    for part in (
        _flips("broken", diff, width, most),
        _flips("fixed", diff, width, most),
        _findings("new findings", diff.came, width),
        _findings("findings that are gone", diff.went, width),
        [shorten(f"cost: {_cost(diff)}", width)],
    ):
        lines += ["", *part] if part else []
    return "\n".join(lines)


def as_markdown(diff: Difference, most: int | None = MOST_FLIPS) -> str:
    """The difference as Markdown, in which text of users is inert."""
    verdict = diff.verdict
    against = f" ({inert_line(verdict.against)})" if verdict.against else ""
    lines = [
        f"### {inert_line(diff.loop)}: {verdict.kind}",
        "",
        f"Iteration {inert_line(diff.after.name)} against {inert_line(diff.before.name)}{against}: "
        f"{inert_line(verdict.because)}",
        "",
        *_cause_markdown(diff),
    ]
    if verdict.changes:
        tags = [change for change in verdict.tags if change.kind != "unchanged"]
        changes = (*verdict.changes, *verdict.runs, *tags)
        head = ("", "metric", "baseline", "now", "change", "p", "detectable")
        seeds = seeds_text(verdict.changes)
        lines += [
            markdown_table(head, map(_change_row, changes), right=range(2, 7)),
            "",
            *([f"Now and baseline: {seeds}.", ""] if seeds else []),
            *legend_lines({change.kind for change in changes}, over_seeds=bool(seeds)),
            "",
        ]
    if untested := _untested_text(diff):
        lines += [f"- {inert_line(untested)}"]
    lines += [f"- note: {inert_line(note)}" for note in (*verdict.context, *verdict.notes)]
    for what, flips in (("broken", diff.broken), ("fixed", diff.fixed)):
        lines += _markdown_flips(f"{what}: {_count_text(what, diff)}", flips, most)
    for what, findings in (("New findings", diff.came), ("Findings that are gone", diff.went)):
        if findings:
            lines += ["", f"{what}:", ""]
            lines += [
                f"- {inert_line(f.severity)} {inert_line(f.kind)}: {inert_line(f.message)}"
                for f in findings
            ]
    return "\n".join([*lines, "", f"Cost: {inert(_cost(diff))}"])


def untested(diff: Difference) -> dict[str, dict[str, float | None]]:
    """The loop's own figures before and now that are not among those that were tested."""
    tested = {change.metric for change in diff.verdict.changes}
    before, after = diff.before.metrics, diff.after.metrics
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in own_metrics([before, after])
        if name not in tested
    }


def _untested_text(diff: Difference) -> str:
    """`not tested: score.fields 42.0% -> 57.0%`; empty without such figures."""
    said = [
        f"{name} {figure_text(name, of['before'])} -> {figure_text(name, of['after'])}"
        for name, of in untested(diff).items()
    ]
    return f"not tested: {', '.join(said)}" if said else ""


def to_json(record: Any) -> str:
    """Plain values as JSON. NaN and infinity become null."""
    return printable_json(json.dumps(_finite(record), indent=2, allow_nan=False, default=str))


def _cause_markdown(diff: Difference) -> list[str]:
    """What the change did: settings, data in rows, gates."""
    lines = ["What this change did:", ""]
    changed = without_data(diff.settings, diff.data)
    if changed:
        rows = [(visible(c.name), stated(c.before), stated(c.after)) for c in changed]
        lines += [markdown_table(("setting", "before", "now"), rows), ""]
    for each in diff.data:
        lines += [f"- data.{each.role} {inert_line(each.text)}"]
        lines += [f"  - {inert(edit_text(edit, 160))}" for edit in each.edits]
    if diff.data:
        lines.append("")
    if not diff.settings and not diff.data:
        lines += [f"Unchanged: {UNCHANGED}.", ""]
    return [*lines, *change_markdown(diff.gate_changes)]


def _count_text(what: str, diff: Difference) -> str:
    """`12 examples`, or of broken ones what they have in common."""
    found = diff.breakage if what == "broken" else None
    if found is None:
        return plural(len(diff.fixed if what == "fixed" else diff.broken), "example")
    return broken_text(found.count, found.passed, found.alike, found.output)


def _flips(what: str, diff: Difference, width: int, most: int | None) -> list[str]:
    flips = diff.broken if what == "broken" else diff.fixed
    if not flips:
        return []
    lines = paragraph(f"{what}: {_count_text(what, diff)}", width, "", "  ")
    for flip in flips[:most]:
        tags = f" [{', '.join(one_line(tag, 30) for tag in flip.tags)}]" if flip.tags else ""
        room = max(width - 14, 20)
        lines.append(shorten(f"  {visible(flip.id)}{tags}", width))
        if flip.prompt is not None:
            lines.append(f"    prompt    {quoted(flip.prompt, room, middle=True)}")
        lines.append(f"    expected  {quoted(flip.expected, room, middle=True)}")
        lines.append(f"    before    {quoted(flip.before, room, middle=True)}")
        lines.append(f"    now       {quoted(flip.after, room, middle=True)}")
    left = 0 if most is None else len(flips) - most
    return [*lines, *([f"  ... and {left} more: ftloop diff --all"] if left > 0 else [])]


def _findings(what: str, findings: Sequence[Finding], width: int) -> list[str]:
    lines = []
    for finding in findings:
        text = visible(f"{finding.severity} {finding.kind}: {finding.message}")
        lines += paragraph(text, width, "  ", "    ")
    return [f"{what}:", *lines] if lines else []


def _cost(diff: Difference) -> str:
    old, new = diff.before.cost, diff.after.cost
    text = f"{duration_text(new.seconds)} (before {duration_text(old.seconds)}), "
    text += f"{plural(new.steps, 'step')} ({old.steps}), {plural(new.tokens, 'token')}"
    text = visible(f"{text} ({old.tokens})")
    if new.device_memory_mib or old.device_memory_mib:
        text += f", {new.device_memory_mib:.0f} MiB ({old.device_memory_mib:.0f})"
    return text


def _change_row(change: Change) -> tuple[str, ...]:
    moved = change_text(change.metric, change.candidate - change.baseline)
    found = change.test.detectable
    least = change_text(change.metric, found).lstrip("+") if math.isfinite(found) else "-"
    return (
        MARKS[change.kind],
        visible(change.metric),
        format_figure(change.metric, change.baseline),
        format_figure(change.metric, change.candidate),
        moved,
        p_text(change.p),
        least,
    )


def _markdown_flips(title: str, flips: Sequence[Flip], most: int | None) -> list[str]:
    if not flips:
        return []
    lines = [
        "",
        inert(title),
        "",
        "<details><summary>examples</summary>",
        "",
        markdown_table(
            ("id", "prompt", "expected", "before", "now"),
            map(_flip_row, flips[:most]),
            compact=True,
        ),
    ]
    left = 0 if most is None else len(flips) - most
    return [*lines, *(["", f"... and {left} more"] if left > 0 else []), "", "</details>"]


def _flip_row(flip: Flip) -> list[str]:
    """The cells of an example. Its texts are in quotes: an output may be empty, or `passed`."""
    prompt = "" if flip.prompt is None else quoted(flip.prompt, 200, middle=True)
    texts = [quoted(text, 200, middle=True) for text in (flip.expected, flip.before, flip.after)]
    return [one_line(flip.id, 200, middle=True), prompt, *texts]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
