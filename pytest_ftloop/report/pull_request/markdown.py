"""The report as Markdown: the verdict first, then as much of the rest as there is room for.

Text of users and models is inert in it, and never begins a line.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import own_metrics
from pytest_ftloop.gate.verdict import change_text, p_text
from pytest_ftloop.report.cause import UNCHANGED
from pytest_ftloop.report.escape import columns_of, one_line, visible
from pytest_ftloop.report.phrases import MISSING, TERMS, duration_text, figure_text, plural
from pytest_ftloop.report.pull_request.curve import mermaid
from pytest_ftloop.report.pull_request.flips import broken_text_and_examples, flipped, more_broken
from pytest_ftloop.report.pull_request.gates import (
    BEWARE,
    FAILS,
    HOLDS,
    changed_gates,
    gate_lines,
    icon,
    loosened_gates,
)
from pytest_ftloop.report.pull_request.legend import first_with_figures, legend, measured_text
from pytest_ftloop.report.pull_request.model import NAME, OUTCOMES, TEXT
from pytest_ftloop.report.pull_request.writing import fitted, folded, say, shown, table
from pytest_ftloop.report.verdict import MARKS

if TYPE_CHECKING:
    from pytest_ftloop.report.pull_request.model import (
        ChangeRow,
        CostRow,
        FindingRow,
        LoopSection,
        Number,
        Outcome,
        PullRequestReport,
        VerdictRow,
    )

LIMIT = 65_536
"""Most characters of a comment on GitHub. We count bytes, of which there are never fewer."""

LABELS: Mapping[Outcome, str] = {
    "error": "not judged",
    "stale": "log out of date",
    "failed": "threshold failed",
}
"""Words for outcomes, where they differ from the outcome's name."""

_CELL, _EDIT = 200, 200
_MOST_OWN = 5
_LOOP = 60
Part = Callable[["LoopSection"], int]
_PARTS: Mapping[str, Part] = {
    "fixed examples": lambda loop: len(loop.fixed.examples),
    "broken examples": lambda loop: len(loop.broken.examples),
    "loss curves": lambda loop: int(loop.curve is not None),
    "iterations": lambda loop: len(loop.iterations),
    "findings": lambda loop: len(loop.findings),
    "settings": lambda loop: len(loop.settings),
    "data": lambda loop: len(loop.data),
    "notes": lambda loop: max((len(v.notes) for v in loop.verdicts), default=0),
    "figures": lambda loop: max((len(v.changes) for v in loop.verdicts), default=0),
    "changes of gates": lambda loop: len(loop.gate_changes.changes),
    "what to do": lambda loop: len(loop.to_do),
    "gates that hold": lambda loop: sum(threshold.passed for threshold in loop.thresholds),
    "gates": lambda loop: len(loop.thresholds) + len(loop.verdicts),
    "reasons": lambda loop: max(map(columns_of, _reasons(loop)), default=0),
}
"""The parts that can be cut, and the size of each in a loop: rows, or columns for reasons."""

_CUTS: Sequence[tuple[str, int]] = (
    *(("fixed examples", most) for most in (20, 10, 5, 0)),
    *(("broken examples", most) for most in (20, 10, 5, 3)),
    ("loss curves", 0),
    *(("iterations", most) for most in (10, 0)),
    *(("findings", most) for most in (5, 0)),
    ("broken examples", 0),
    *(("settings", most) for most in (10, 0)),
    ("data", 0),
    *(("notes", most) for most in (3, 0)),
    *(("figures", most) for most in (10, 4, 0)),
    *(("changes of gates", most) for most in (20, 5)),
    ("gates that hold", 0),
    ("what to do", 0),
    *(("gates", most) for most in (10, 3)),
    *(("reasons", most) for most in (160, 60)),
    ("gates", 1),
    ("changes of gates", 0),
    ("gates", 0),
)
"""Cuts in the order in which they are made, each with the size that is left, for all loops."""


def render(report: PullRequestReport, limit: int = LIMIT, rest: str = "the job summary") -> str:
    """The report in fewer than `limit` bytes. `rest` is the place where cut parts can be read."""
    most = {part: max(map(count, report.loops), default=0) for part, count in _PARTS.items()}
    for part, fewer in (("reasons", most["reasons"]), *_CUTS):
        most[part] = min(most[part], fewer)
        text = _document(report, most, rest)
        if len(text.encode()) < limit:
            return text
    return _shortest(report, limit, rest)


def _document(report: PullRequestReport, most: Mapping[str, int], rest: str) -> str:
    blocks, first = [_headline(report)], first_with_figures(report)
    for loop in report.loops:
        blocks += _section(loop, most, legend(report) if loop is first else "")
    if report.left_out:
        blocks.append(f"And {plural(report.left_out, 'loop')} more, none of them worse.")
    cut = [part for part, has in _PARTS.items() if any(has(x) > most[part] for x in report.loops)]
    if cut:
        blocks.append(f"Cut for length: {', '.join(cut)}; see {rest}.")
    return "\n\n".join(blocks) + "\n"


def _shortest(report: PullRequestReport, limit: int, rest: str) -> str:
    """One line per loop, the worst first, as many as fit; the others are counted."""
    loops = sorted(report.loops, key=lambda loop: (loop.ok, OUTCOMES.index(loop.outcome)))
    lines = [f"- {icon(loop)} {say(loop.loop, _LOOP)}: {_label(loop.outcome)}" for loop in loops]
    for kept in range(len(loops), -1, -1):
        left = _counted(loop.outcome for loop in loops[kept:])
        more = len(loops) - kept + report.left_out
        blocks = [_headline(report), "\n".join(lines[:kept])]
        blocks += (
            [f"And {plural(more, 'loop')} more: {left or 'none of them worse'}."] if more else []
        )
        text = "\n\n".join(filter(None, [*blocks, f"Cut for length; see {rest}."])) + "\n"
        if len(text.encode()) < limit:
            break
    return text


def _headline(report: PullRequestReport) -> str:
    """The outcome of all loops in one line."""
    icons = {icon(loop) for loop in report.loops}
    worst = next(mark for mark in (FAILS, BEWARE, HOLDS) if mark in icons or mark == HOLDS)
    more = f", {gates} loosened" if (gates := loosened_gates(report.loops)) else ""
    title = f"## {worst} ftloop" + (f" {say(report.key, _LOOP, middle=True)}" if report.key else "")
    if len(report.loops) == 1 and not report.left_out:
        return f"{title}: {_label(report.outcome)}{more}"
    said = _counted(loop.outcome for loop in report.loops) or "nothing was judged"
    return f"{title}: {plural(len(report.loops) + report.left_out, 'loop')}: {said}{more}"


def _counted(outcomes: Iterable[Outcome]) -> str:
    """`1 regressed, 2 unchanged`, the worst first."""
    counts = Counter(outcomes)
    return ", ".join(f"{counts[kind]} {_label(kind)}" for kind in OUTCOMES if counts[kind])


def _section(loop: LoopSection, most: Mapping[str, int], explained: str) -> list[str]:
    """One loop: what changed, what broke, what to do, the figures; each up to its size in `most`.

    `explained` is what the words of the figures mean.
    """
    tables = [v for v in loop.verdicts if v.changes] if most["figures"] else []
    notes = [note for v in loop.verdicts for note in v.notes[: most["notes"]]]
    notes += loop.holdout if most["notes"] else ()
    blocks = [
        f"### {icon(loop)} {say(loop.loop, _LOOP)}: {_label(loop.outcome)}",
        _introduction(loop, most["reasons"]),
        _settings(loop, most["settings"]),
        _data(loop, most["data"]),
        _unchanged(loop),
        changed_gates(loop, most),
        gate_lines(loop, most),
        broken_text_and_examples(loop.broken, most["broken examples"]),
        _faults(loop, most["findings"]),
        _to_do(loop.to_do[: most["what to do"]]),
        *(_changes(verdict, most["figures"], len(tables) > 1) for verdict in tables),
        explained if tables else "",
        more_broken(loop.broken, most["broken examples"]),
    ]
    rest = [
        "\n".join(f"- note: {say(note, TEXT)}" for note in notes),
        _iterations(loop, most["iterations"]),
        _findings(loop.findings[: most["findings"]]),
    ]
    rest = list(filter(None, rest))
    blocks += [
        folded("notes, iterations, findings", rest) if rest else "",
        flipped("fixed", loop.fixed, most["fixed examples"]),
        _chart(loop) if most["loss curves"] else "",
        _cost(loop) if most["notes"] or not _PARTS["notes"](loop) else "",
    ]
    return list(filter(None, blocks))


def _introduction(loop: LoopSection, width: int) -> str:
    if loop.error:
        said = say(_sentences(loop.error), width)
        if loop.error.startswith(f"{loop.source}:"):  # as most errors do
            return said
        return f"Loop file {say(loop.source, NAME)}: {said}"
    text = f"Iteration {say(loop.iteration, NAME)} of {say(loop.source, NAME)}"
    for verdict in loop.verdicts:
        if verdict.baseline:
            text += f", against {say(verdict.baseline, NAME)}"
            text += f" at {say(verdict.against, NAME)}" if verdict.against else ""
            break
    if loop.trained:
        text += (
            ". Trained or restored in this job: commit the log, or the next change can't be judged"
        )
    return f"{text}."


def _sentences(error: str) -> str:
    """Join the lines of an error into sentences on one line."""
    *before, last = [" ".join(line.split()) for line in error.splitlines() if line.strip()] or [""]
    return " ".join([*(line if line[-1] in ".:;,!?" else f"{line}." for line in before), last])


def _reasons(loop: LoopSection) -> list[str]:
    """The reasons for the outcome, as visible text."""
    return [visible(text) for text in (loop.error, *(v.because for v in loop.verdicts)) if text]


def _to_do(lines: Sequence[str]) -> str:
    """What to do: a sentence each, with its commands below it."""
    if not lines:
        return ""
    marked = (
        f"  - {say(line.strip(), TEXT)}"
        if line.startswith("  ")
        else f"- {say(line.removeprefix('what to do: '), TEXT)}"
        for line in lines
    )
    return "\n".join(["**What to do**", "", *marked])


def _changes(verdict: VerdictRow, most: int, titled: bool) -> str:
    """The figures beside the baseline's, with the marks of what is proven."""
    head = ["", "metric", "baseline", "now", "change", "p", "detectable"]
    rows = [_change(change) for change in verdict.changes[:most]]
    said = [measured_text(verdict)]
    if verdict.seeds:
        said.append(
            f"Now and baseline: {say(verdict.seeds, NAME)}; thresholds are checked on one run."
        )
    blocks = [table(head, rows, right=range(2, 7)), " ".join(filter(None, said))]
    blocks = [f"Gate {say(verdict.gate, NAME)}:" if titled else "", *blocks]
    return "\n\n".join(filter(None, blocks))


def _change(change: ChangeRow) -> list[str]:
    old, new, p = (float(value) for value in (change.baseline, change.candidate, change.p))
    return [
        MARKS[change.kind],
        one_line(change.metric, NAME),
        _figure(change.metric, change.baseline),
        _figure(change.metric, change.candidate),
        _amount(change.metric, new - old),
        p_text(p),
        _amount(change.metric, float(change.detectable)).lstrip("+"),
    ]


def _iterations(loop: LoopSection, most: int) -> str:
    """The last iterations and the best one."""
    if not most or not loop.iterations:
        return ""
    own = own_metrics(row.metrics for row in loop.iterations)[:_MOST_OWN]
    names = [say(name, NAME) for name in own]
    head = ["#", "change", "train loss", "eval loss", "gap", "pass rate", *names, "decision"]
    first = len(loop.iterations) - most
    rows = [
        [
            f"{row.number} (best)" if row.is_best else str(row.number),
            fitted(row.change, _CELL),
            *(
                _figure(name, row.metrics[name]) if name in row.metrics else MISSING
                for name in ("train_loss", "eval_loss", "overfit_gap", "pass_rate", *own)
            ),
            fitted(row.decision, NAME),
        ]
        for index, row in enumerate(loop.iterations)
        if index >= first or row.is_best
    ]
    text = table(head, rows, right=(0, *range(2, 6 + len(own))))
    return f"{text}\n\ngap: {TERMS['gap']}."


def _faults(loop: LoopSection, most: int) -> str:
    """The errors of a loop that fails: what to do first refers to them."""
    errors = [f for f in loop.findings[:most] if f.severity == "error" and f.state != "gone"]
    lines = [f"- error {say(f.kind, NAME)}: {say(f.message, TEXT)}" for f in errors]
    return "\n".join(["**Faults**", "", *lines]) if lines and not loop.ok else ""


def _findings(findings: Sequence[FindingRow]) -> str:
    """Each finding with its evidence and its remedy."""
    lines = []
    for finding in findings:
        state = f" ({finding.state})" if finding.state else ""
        message = say(finding.message, TEXT)
        lines.append(f"- {finding.severity} {say(finding.kind, NAME)}{state}: {message}")
        if finding.state == "gone":
            continue
        if finding.evidence:
            lines.append(f"  - evidence: {shown(finding.evidence, TEXT)}")
        if finding.remedy:
            lines.append(f"  - remedy: {say(finding.remedy, TEXT)}")
    return "\n".join(["**Findings**", "", *lines]) if lines else ""


def _data(loop: LoopSection, most: int) -> str:
    """What changed in the data sets, with a few of the rows."""
    lines = []
    for changed in loop.data[:most]:
        lines.append(f"- data.{say(changed.role, NAME)} {say(changed.text, TEXT)}")
        lines += [f"  - {shown(edit, _EDIT)}" for edit in changed.edits]
    return "\n".join(["**Data changed**", "", *lines]) if lines else ""


def _unchanged(loop: LoopSection) -> str:
    """That the change did nothing to what is trained; a stranger would look for it."""
    compared = any(verdict.baseline for verdict in loop.verdicts)
    return f"Unchanged: {UNCHANGED}." if compared and not loop.settings and not loop.data else ""


def _settings(loop: LoopSection, most: int) -> str:
    rows = [
        [one_line(row.name, NAME), fitted(row.before, _CELL), fitted(row.after, _CELL)]
        for row in loop.settings[:most]
    ]
    return table(["setting changed", "before", "now"], rows) if rows else ""


def _chart(loop: LoopSection) -> str:
    if loop.curve is None:
        return ""
    chart = "\n".join(["```mermaid", *mermaid(loop.curve), "```"])
    return folded("loss curves of the best iteration: train blue, eval red", [chart])


def _cost(loop: LoopSection) -> str:
    """The cost of the best iteration and of the baseline."""
    if loop.cost is None:
        return ""
    return f"Cost: {_cost_text(loop.cost)}" + (
        f"; baseline {_cost_text(loop.cost_before)}." if loop.cost_before else "."
    )


def _cost_text(cost: CostRow) -> str:
    seconds, memory = float(cost.seconds), float(cost.device_memory_mib)
    time = duration_text(seconds) if abs(seconds) < 1e9 else MISSING
    text = f"{time}, {plural(cost.steps, 'step')}, {plural(cost.tokens, 'token')}"
    return f"{text}, {memory:.0f} MiB" if 0 < memory < 1e9 else text


def _label(outcome: Outcome) -> str:
    return LABELS.get(outcome, outcome)


def _figure(name: str, value: Number) -> str:
    """A figure in the usual format; a huge one is shortened."""
    figure = float(value)
    if math.isfinite(figure) and abs(figure) >= 1e6:
        return f"{figure:.3g}"
    return figure_text(name, figure)


def _amount(name: str, amount: float) -> str:
    if not math.isfinite(amount):
        return MISSING
    if abs(amount) >= 1e6:
        return f"{amount:+.3g}"
    return change_text(name, amount)
