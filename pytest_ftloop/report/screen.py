"""What a run prints of each loop: one line where all holds, else one screen; all of it with -v.

Parts of a loop are plain values, because xdist workers send them to the process that prints.
`screen` puts them together: the thresholds may have been checked by one worker, and each of the
verdicts been reached by another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.metrics import own_metrics, split_name, without_guard
from pytest_ftloop.gate.search import ONLY_VERSION, OTHER_VERSION
from pytest_ftloop.report import hints
from pytest_ftloop.report.advice import advice_lines
from pytest_ftloop.report.brief import brief_cause, compared_paragraphs, cut, heads
from pytest_ftloop.report.escape import columns_of, one_line, quoted, quoted_pair, shorten, visible
from pytest_ftloop.report.gate_changes import change_lines, gate_text
from pytest_ftloop.report.layout import Column, paragraph, table
from pytest_ftloop.report.phrases import distance_text, figure_text, plural
from pytest_ftloop.report.text import (
    WIDTH,
    headline,
    iterations_table,
    note_lines,
    stop_lines,
    summary,
)
from pytest_ftloop.report.to_commit import commit_lines
from pytest_ftloop.report.verdict import (
    breakage_text,
    explain_verdict,
    head_line,
    head_lines,
    holdout_lines,
    told_paragraphs,
    verdict_lines,
)
from pytest_ftloop.report.what_to_do import advice_parts

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.core.records import ExampleResult, Finding
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.result import LoopResult

Parts = Mapping[str, Any]
"""A loop, or a verdict on it, as plain values."""

MOST_FINDINGS, FINDING_LINES = 3, 2
"""Findings on one screen, and lines of each: the rest is a command away."""

MOST_ROWS = 8
"""Iterations in the table on one screen."""

MOST_EXAMPLES = 2
"""Examples of a failing loop: enough to see what kind of mistake it is."""

MOST_GATES, VERDICT_LINES = 12, 4
"""Rows and lines of a failing loop, so that it stays on one screen. What is left out is counted."""

NO_GATES = "no gates, so nothing was judged"

_PLAIN = frozenset({"unchanged", "improved"})
"""Verdicts that need no word beside the count of gates that hold, unless their baseline does: not
where the log has one version only, which every loop begins with."""


def run_parts(
    result: LoopResult,
    verbosity: int = 0,
    width: int = WIDTH,
    *,
    ignored: Collection[Path] = (),
) -> dict[str, Any]:
    """What is printed of a loop before it is compared; a part that can't be printed is not made."""
    failed = [gate for gate in result.gates if not gate.passed]
    best = result.best
    return {
        "loop": visible(result.loop),
        "head": headline(result, width, figures=False),
        "figures": _figures(result),
        "gates": [[g.passed, visible(gate_text(g, result.gate_changes))] for g in result.gates],
        "failed": _failed_rows(failed, width),
        "notes": note_lines(result.notes, width),
        "trained": bool(result.written),
        "body": _body(result, width) if result.written and verbosity == 0 else [],
        "commit": commit_lines(result, width, ignored=ignored),
        "ignored": bool(ignored),
        "full": summary(result, verbosity, width, ignored=ignored) if verbosity > 0 else [],
        "finding": _gravest(result, width),
        "examples": _failing_examples(result, failed, width) if failed else [],
        "advice": advice_lines(result, width) if failed else [],
        "rest": hints.show(result, best.number),
    }


def verdict_parts(
    result: LoopResult,
    rule: Regression,
    verdict: Verdict,
    notes: Sequence[str] = (),
    width: int = WIDTH,
    *,
    has_test: bool = True,
) -> dict[str, Any]:
    """What is printed of the verdict of one regression gate, and of what judging added.

    `has_test` is whether pytest prints the explanation of a failed test beside it.
    """
    opened = result.holdout if rule.tag is None else None
    holdout = holdout_lines(opened, width) if opened is not None else []
    full = head_lines(verdict, rule.name, width)
    compared = [] if verdict.ok else compared_paragraphs(verdict, width)
    advice, accept = ([], []) if verdict.ok else advice_parts(result, verdict, width)
    if verdict.ok:
        full = verdict_lines(verdict, rule.name, width)
    elif not has_test:
        full = explain_verdict(result, verdict, rule, width).splitlines()
    return {
        "gate": visible(rule.name),
        "ok": verdict.ok,
        "line": shorten(visible(f"{rule.name}: {verdict}"), width - 9),
        "plain": verdict.kind in _PLAIN
        and all(note.endswith(ONLY_VERSION) for note in verdict.context),
        "against": _against(verdict),
        "head": cut(head_line(verdict, rule.name, width), VERDICT_LINES, width),
        "told": [*told_paragraphs(verdict, width), *compared],
        "full": [*full, *holdout],
        "holdout": holdout if result.holdout and _is_alarming(result) else [],
        "notes": note_lines(notes, width),
        "cause": brief_cause(result, width),
        "examples": [] if verdict.ok else _broken_examples(result, rule, verdict, width),
        "advice": advice,
        "accept": accept,
        "rest": hints.diff(result) if verdict.baseline else "",
    }


def _against(verdict: Verdict) -> str:
    """`unchanged against HEAD^ (9ca4174)`, which is all to say where nothing states the baseline.

    Empty for a verdict with more to tell.
    """
    is_found = all(note.endswith((ONLY_VERSION, OTHER_VERSION)) for note in verdict.context)
    if verdict.kind not in _PLAIN or not verdict.against or not verdict.context or not is_found:
        return ""
    return visible(f"{verdict.kind} against {verdict.against}")


def screen(
    run: Parts,
    verdicts: Sequence[Parts],
    changes: Sequence[str],
    verbosity: int = 0,
    width: int = WIDTH,
) -> list[str]:
    """The lines of one loop. `changes` are those of its gates."""
    if verbosity > 0:
        shown = [*changes, *([""] if changes else []), *run["full"]]
        for verdict in verdicts:
            shown += ["", *verdict["full"], *verdict["notes"]]
        return shown
    if verbosity < 0:
        return _line_per_gate(run, verdicts)
    if not all(ok for ok, _ in run["gates"]) or not all(v["ok"] for v in verdicts):
        return _failing(run, verdicts, changes, width)
    return _holding(run, verdicts, changes, width)


def is_one_line(lines: Sequence[str]) -> bool:
    """Whether a loop has one line only, which needs no heading of its own."""
    return len(lines) == 1


def result_screen(
    result: LoopResult,
    verbosity: int = 0,
    width: int = WIDTH,
    *,
    ignored: Collection[Path] = (),
) -> list[str]:
    """The lines of a loop that one process has run and judged."""
    run = run_parts(result, verbosity, width, ignored=ignored)
    if verbosity > 0 and result.gates:
        run["full"] += ["", "thresholds:", *_threshold_lines(result, width)]
    verdicts = [
        verdict_parts(result, rule, verdict, (), width, has_test=False)
        for rule, verdict in result.verdicts
    ]
    return screen(run, verdicts, change_lines(result.gate_changes, width), verbosity, width)


def _threshold_lines(result: LoopResult, width: int) -> list[str]:
    """Each threshold with its figure, which pytest names in a line per test."""
    return [
        line
        for gate in result.gates
        for line in paragraph(
            f"{'holds ' if gate.passed else 'FAILED'}  "
            f"{visible(gate_text(gate, result.gate_changes))}",
            width,
            "  ",
            " " * 10,
        )
    ]


def _line_per_gate(run: Parts, verdicts: Sequence[Parts]) -> list[str]:
    loop = run["loop"]
    gates = [*run["gates"], *([v["ok"], v["line"]] for v in verdicts)]
    lines = [f"{'ok    ' if ok else 'FAILED'} {loop}: {text}" for ok, text in gates]
    lines = lines or [f"ok     {loop}: {NO_GATES}"]
    lines += [*run["notes"], *(line for v in verdicts for line in v["notes"])]
    return [*lines, *(run["commit"] if run["ignored"] else [])]


def _holding(
    run: Parts, verdicts: Sequence[Parts], changes: Sequence[str], width: int
) -> list[str]:
    """A line of a loop that is up to date; of one that was trained its iterations and findings."""
    told = [line for v in verdicts for line in (*v["holdout"], *v["notes"])]
    if not run["trained"]:
        head = _head(run, verdicts, width, [v["against"] for v in verdicts if not v["plain"]])
        named = heads([v for v in verdicts if not v["plain"] and not v["against"]])
        return [*changes, head, *run["notes"], *named, *told]
    head, named = _head(run, verdicts, width), heads([v for v in verdicts if not v["plain"]]) + told
    plain = [v["line"] for v in verdicts if v["plain"]]
    return [*changes, head, *run["notes"], *run["body"], *plain, *named, *run["commit"]]


def _head(run: Parts, verdicts: Sequence[Parts], width: int, against: Sequence[str] = ()) -> str:
    """`sentiment: 2 iterations (up to date), best 002-e834f40e: 5 gates hold, eval_loss ...`."""
    count = len(run["gates"]) + len(verdicts)
    hold = f"{plural(count, 'gate')} {'hold' if count > 1 else 'holds'}" if count else NO_GATES
    text = f"{run['head']}: {hold}"
    for figure in [*dict.fromkeys(filter(None, against)), *run["figures"]]:
        if columns_of(text) + columns_of(figure) + 2 <= width:
            text += f", {figure}"
    return shorten(text, width)


def _failing(
    run: Parts, verdicts: Sequence[Parts], changes: Sequence[str], width: int
) -> list[str]:
    """A failing loop, once: which gates, what changed, examples, what to try, where the rest is."""
    broken = [v for v in verdicts if not v["ok"]]
    count = sum(not ok for ok, _ in run["gates"]) + len(broken)
    of = len(run["gates"]) + len(verdicts)
    said = f"{count} of {plural(of, 'gate')} failed" if of > 1 else "its gate failed"
    lines = [shorten(f"{run['head']}: {said}", width)]
    compared = [*broken, *verdicts]  # those that failed first
    lines += [*run["notes"], *next((v["cause"] for v in compared if v["cause"]), changes)]
    lines += [*run["failed"], *heads(broken), *run["finding"]]
    lines += next((v["examples"] for v in broken if v["examples"]), run["examples"])
    # With a regression and a missed threshold both are needed: they are advice on two things.
    lines += [*(broken[0]["advice"] if broken else []), *run["advice"]]
    lines += broken[0]["accept"] if broken else []
    rest = [*(v["rest"] for v in compared[:1] if v["rest"]), run["rest"]]
    rest = [command for command in rest if f"  {command}" not in lines]
    lines += ["for the rest, run again with -v, or:", *(f"  {command}" for command in rest)]
    if run["trained"]:
        lines += run["commit"]
    return lines


def _figures(result: LoopResult) -> list[str]:
    figures = result.best.metrics
    names = ("eval_loss", "pass_rate", *own_metrics([figures]))
    return [f"{visible(n)} {figure_text(n, figures[n])}" for n in names if n in figures]


def _body(result: LoopResult, width: int) -> list[str]:
    """The iterations, why the loop stopped, and the gravest findings."""
    lines = [*iterations_table(result, width, MOST_ROWS).splitlines(), *stop_lines(result, width)]
    findings = result.best.findings
    for finding in findings[:MOST_FINDINGS]:
        lines += _finding(finding, width)
    more = [f"{plural(len(findings), 'finding')} with remedies"] if findings else []
    more += [plural(len(result.failing), "failing example")] if result.failing else []
    if more:
        lines.append(f"{' and '.join(more)}: {hints.show(result, result.best.number)}")
    return lines


def _finding(finding: Finding, width: int) -> list[str]:
    text = f"{finding.severity} {visible(finding.kind)}: {visible(finding.message)}"
    lines = paragraph(text, width, "  ", "    ")
    return cut(lines, FINDING_LINES, width)


def _gravest(result: LoopResult, width: int) -> list[str]:
    """The first error or warning of the best iteration; findings are in the order of severity."""
    return [
        line
        for finding in result.best.findings[:1]
        if finding.severity != "info"
        for line in _finding(finding, width)
    ]


def _failed_rows(failed: Sequence[GateResult], width: int) -> list[str]:
    """A table of the failed thresholds: gate, figure, what was wanted, by how much it missed."""
    shown = failed[:MOST_GATES]
    columns = [
        Column(("", "  failed gate"), [f"  {one_line(g.gate.name, 40)}" for g in shown], least=24),
        Column(("", "found"), [_found(g) for g in shown], right=True),
        Column(("", "wanted"), [_wanted(g) for g in shown], right=True, least=12),
        Column(("", "missed by"), [_missed(g) for g in shown], right=True, drop=1),
    ]
    left = len(failed) - len(shown)
    more = [f"  ... and {left} more"] if left else []
    return [*table(columns, width)[1:], *more] if shown else []


def _found(gate: GateResult) -> str:
    return "missing" if gate.value is None else figure_text(gate.gate.name, gate.value)


def _wanted(gate: GateResult) -> str:
    _, _, wanted = gate.message.rpartition(", wanted ")
    return visible(wanted if wanted != gate.message else gate.gate.text)


def _missed(gate: GateResult) -> str:
    value, bound = gate.value, gate.gate.bound
    if gate.proof or value is None or not (math.isfinite(value) and math.isfinite(bound)):
        return ""
    return distance_text(gate.gate.name, value, bound)


def _failing_examples(result: LoopResult, failed: Sequence[GateResult], width: int) -> list[str]:
    """Examples behind the failed gates, the highest loss first: of their tags, if all have one."""
    tags = {split_name(gate.gate.name)[1] for gate in failed}
    rows = [row for row in result.failing if None in tags or tags & {*row.tags}]
    if not rows:
        rows = list(result.failing)
    if not rows or all(_is_of_guard(gate) for gate in failed):
        return []
    head = f"{min(MOST_EXAMPLES, len(rows))} of {plural(len(rows), 'failing example')}:"
    return [head, *(line for row in rows[:MOST_EXAMPLES] for line in _example(result, row, width))]


def _is_of_guard(gate: GateResult) -> bool:
    metric = split_name(gate.gate.name)[0]
    return without_guard(metric) != metric


def _broken_examples(
    result: LoopResult, rule: Regression, verdict: Verdict, width: int
) -> list[str]:
    """Examples that the baseline passes and this version fails."""
    rows = {row.id: row for row in result.best.examples}
    shown = [rows[id_] for id_ in verdict.broken if id_ in rows][:MOST_EXAMPLES]
    if not shown:
        return []
    text = breakage_text(result, verdict.broken, rule.tag)
    text += f" ({len(verdict.fixed)} were fixed)" if verdict.fixed else ""
    text += f"; {len(shown)} of them" if len(shown) < len(verdict.broken) else ""
    lines = paragraph(f"{text}:", width, "", "  ")
    return [*lines, *(line for row in shown for line in _example(result, row, width))]


def _example(result: LoopResult, row: ExampleResult, width: int) -> list[str]:
    """An example in two lines: expected and actual output, and the prompt."""
    tags = f" [{', '.join(one_line(tag, 20) for tag in row.tags[:3])}]" if row.tags else ""
    name = shorten(f"  {one_line(row.id, 24)}{tags}", width // 2)
    room = max((width - columns_of(name) - len(" wanted , found ")) // 2, 12)
    expected, actual = quoted_pair(row.expected, row.output, room)
    lines = [shorten(f"{name} wanted {expected}, found {actual}", width)]
    example = result.examples.get(row.id)
    if example is not None:
        lines.append(f"    {quoted(example.prompt_text, width - 4, middle=True)}")
    return lines


def _is_alarming(result: LoopResult) -> bool:
    """Whether the holdout has an alarm, or was opened by this run."""
    found = result.holdout
    alarms = found is not None and (found.alarm or found.eval_set_is_worn or found.holdout_is_worn)
    return alarms or bool(result.written)
