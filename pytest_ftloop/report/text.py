"""A loop's result as terminal text: plain lines, no colours, ASCII except for text of users."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.chain import worst
from pytest_ftloop.core.metrics import own_metrics
from pytest_ftloop.evaluate.json_values import json_fault
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.report import hints
from pytest_ftloop.report.advice import proposed, remedy_of
from pytest_ftloop.report.escape import columns_of, one_line, quoted, quoted_pair, shorten, visible
from pytest_ftloop.report.layout import Column, paragraph, table
from pytest_ftloop.report.phrases import (
    TERMS,
    decision_text,
    difference_text,
    duration_text,
    evidence_text,
    figure_text,
    format_change,
    format_changes,
    plural,
)
from pytest_ftloop.report.to_commit import commit_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

from pytest_ftloop.core.records import (
    Adjustment,
    Decision,
    Example,
    ExampleResult,
    Finding,
    Iteration,
)

WIDTH = 100
"""Default width of a line, in columns."""

_MOST_TAGS = 6
_LABEL = len("expected  ")


def summary(
    result: LoopResult,
    verbosity: int = 0,
    width: int = WIDTH,
    cwd: Path | None = None,
    *,
    ignored: Collection[Path] = (),
) -> list[str]:
    """The summary of one loop at the end of a run.

    Verbosity below 0: the headline, one line per failed gate, and notes. 0 adds the table, the
    findings, the 3 worst examples and the next adjustments. From 1 on it shows all failing
    examples. Paths to commit are relative to `cwd`; `ignored` are those that git ignores.
    """
    lines = [shorten(headline(result, width), width), *gate_lines(result, width)]
    lines += note_lines(result.notes, width)
    if verbosity < 0:
        return lines + (commit_lines(result, width, cwd, ignored) if ignored else [])
    # Not "all gates hold": a regression gate may fail, of which nothing is known here.
    if result.gates and all(gate.passed for gate in result.gates):
        hold = "hold" if len(result.gates) > 1 else "holds"
        lines.append(shorten(f"  {plural(len(result.gates), 'threshold')} {hold}", width))
    last = result.chain[-1]
    lines += stop_lines(result, width)
    lines += ["", *iterations_table(result, width).splitlines()]
    for part in (
        findings_lines(result, width),
        failing_examples(result, len(result.failing) if verbosity > 0 else 3, width).splitlines(),
        next_lines(last, width, is_planned=not result.is_finished),
        commit_lines(result, width, cwd, ignored),
    ):
        lines += ["", *part] if part else []
    return lines


def stop_lines(result: LoopResult, width: int = WIDTH) -> list[str]:
    """Why the loop stopped; not that thresholds held then, where they do not hold now."""
    decision = result.chain[-1].decision
    outdated = decision.kind == "gates" and not all(gate.passed for gate in result.gates)
    if not decision.because or outdated:
        return []
    return paragraph(f"{decision_text(decision)}: {visible(decision.because)}", width, "  ", "    ")


def headline(result: LoopResult, width: int = WIDTH, *, figures: bool = True) -> str:
    """`sentiment: 4 iterations (2 trained, 25.0 s), best 003-ab12cd34, eval_loss ...`: one line.

    Figures and decision are omitted if they do not fit into `width`, or are not asked for.
    """
    last, best, trained = result.chain[-1], result.best, _trained(result)
    seconds = math.fsum(iteration.cost.seconds for iteration in trained)
    now = [f"{len(trained)} trained, {duration_text(seconds)}"] if trained else []
    now += [f"{len(result.evaluated)} evaluated again"] if result.evaluated else []
    now += [f"{len(result.restored)} restored"] if result.restored else []
    said = ", ".join(
        f"{name} {figure_text(name, best.metrics.get(name))}"
        for name in ("eval_loss", "pass_rate", *own_metrics([best.metrics]))
        if name in best.metrics
    )
    loop = one_line(result.loop, max(width // 3, 12))
    text = f"{loop}: {plural(len(result.chain), 'iteration')} "
    text += f"({', '.join(now) or 'up to date'}), best {visible(best.name)}"
    for extra in () if not figures else filter(None, (said, decision_text(last.decision))):
        if columns_of(text) + columns_of(extra) + 2 <= width:
            text += f", {extra}"
    return text


def gate_lines(result: LoopResult, width: int = WIDTH) -> list[str]:
    """The message of each failed gate."""
    failed = [gate for gate in result.gates if not gate.passed]
    said = (paragraph(f"FAILED {visible(gate.message)}", width, "  ", "    ") for gate in failed)
    return [line for lines in said for line in lines]


def note_lines(notes: Sequence[str], width: int = WIDTH) -> list[str]:
    """Notes on records kept by an earlier run."""
    return [line for note in notes for line in paragraph(visible(note), width, "  note: ", "    ")]


def iterations_table(result: LoopResult, width: int = WIDTH, most: int | None = None) -> str:
    """One row per iteration: the change that led to it, its figures, the decision after it.

    The untrained base, if it was measured, is iteration 0. `+/-` is the difference from the row
    above. A narrow terminal lacks less important columns. Of more than `most` rows the first, the
    best and the last ones are shown.
    """
    base = (result.base,) if result.base else ()
    every = (*base, *result.chain)
    chain = _shown_of(every, result.best, most)
    before = dict(zip((it.name for it in every), (None, *every), strict=False))
    pairs = [(before[it.name], it) for it in chain]

    def figures(name: str) -> list[str]:
        return [figure_text(name, it.metrics.get(name)) for it in chain]

    def differences(name: str) -> list[str]:
        return [_difference(name, old, new) for old, new in pairs]

    now = dict.fromkeys(result.trained, "+") | dict.fromkeys(result.restored, "=")
    now |= dict.fromkeys(result.evaluated, "~")
    marks = [("*" if it.name == result.best.name else " ") + now.get(it.id, "") for it in chain]
    columns = [
        Column(("", ""), marks),
        Column(("", "#"), [str(it.number) for it in chain], right=True),
        Column(("", "id"), [one_line(it.id, 12) for it in chain], drop=6),
        Column(("", "change"), [format_changes(it, every) for it in chain], least=28),
        Column(("train", "loss"), figures("train_loss"), right=True, drop=7),
        Column(("eval", "loss"), figures("eval_loss"), right=True),
        Column(("", "+/-"), differences("eval_loss"), right=True, drop=2),
        Column(("", "gap"), figures("overfit_gap"), right=True, drop=3),
        Column(("pass", "rate"), figures("pass_rate"), right=True, drop=1),
        Column(("", "+/-"), differences("pass_rate"), right=True, drop=4),
        *(
            Column((first, second), figures(name), right=True, drop=1)
            for name in own_metrics(it.metrics for it in chain)
            for first, _, second in [name.rpartition(".")]
        ),
        Column(("", "decision"), [decision_text(it.decision) for it in chain], drop=5, least=13),
    ]
    left = len(every) - len(chain)
    more = [f"  {plural(left, 'iteration')} not shown: ftloop log"] if left else []
    return "\n".join([*table(columns, width), *more, *_legend(result, width)])


def _legend(result: LoopResult, width: int) -> list[str]:
    """What the marks and the short words of the table mean."""
    by = "" if result.metric == "eval_loss" else f" by {visible(result.metric)}"
    parts = [f"*  best{by}", *(["+  trained now"] if result.trained else [])]
    parts += ["~  evaluated again, not trained"] if result.evaluated else []
    parts += ["=  restored, not trained"] if result.restored else []
    parts += [f"+/-  {TERMS['difference']}", f"gap  {TERMS['gap']}"]
    return [shorten("   ".join(parts), width)]


def _shown_of(chain: Sequence[Iteration], best: Iteration, most: int | None) -> Sequence[Iteration]:
    """The first iteration, the best and the last ones, at most so many."""
    if most is None or len(chain) <= most:
        return chain
    kept = {chain[0].name, best.name}
    others = [it.name for it in chain if it.name not in kept]
    last = others[len(others) - (most - len(kept)) :]
    return [it for it in chain if it.name in kept or it.name in last]


def findings_lines(result: LoopResult, width: int = WIDTH) -> list[str]:
    """The findings of the best and of the last iteration, without repetition."""
    best, last = result.best, result.chain[-1]
    decision = last.decision  # the step after the best may have been tried since
    if last.name == best.name:
        return _findings_of(best, best.findings, "best and last", decision, width)
    said = {(finding.kind, finding.message) for finding in best.findings}
    new = [finding for finding in last.findings if (finding.kind, finding.message) not in said]
    return [
        *_findings_of(best, best.findings, "best", decision, width),
        *_findings_of(last, new, "last", decision, width),
    ]


def finding_lines(
    finding: Finding,
    width: int = WIDTH,
    *,
    brief: bool = False,
    decision: Decision | None = None,
) -> list[str]:
    """One finding: severity, kind, message; then its evidence and its remedy.

    `brief` omits the evidence of an info, whose message has the important figures. `decision` is
    the one after the iteration, with which the remedy must agree.
    """
    text = f"{finding.severity} {visible(finding.kind)}: {visible(finding.message)}"
    lines = paragraph(text, width, "  ", "    ")
    if finding.evidence and not (brief and finding.severity == "info"):
        lines += paragraph(evidence_text(finding.evidence), width, "    evidence: ", " " * 6)
    if remedy := remedy_of(finding, decision):
        lines += paragraph(f"remedy: {visible(remedy)}", width, "    ", "      ")
    return lines


def found_lines(loop: str, findings: Sequence[Finding], width: int = WIDTH) -> list[str]:
    """Errors and warnings about data and wiring with their remedies, shown before training."""
    lines = []
    for finding in findings:
        if finding.severity != "info":
            said = f"{finding.severity} {finding.kind}: {finding.message} {finding.remedy}"
            lines += paragraph(visible(said), width, f"ftloop {one_line(loop, 30)}: ", "  ")
    return lines


def failing_examples(result: LoopResult, most: int, width: int = WIDTH) -> str:
    """The failing examples of the best iteration: count, share, tags, and the `most` worst."""
    best = result.best
    where = hints.show(result, best.number)
    return "\n".join(failing_lines(best, best.examples, result.examples, most, width, where))


def failing_lines(
    iteration: Iteration,
    rows: Sequence[ExampleResult],
    examples: Mapping[str, Example],
    most: int,
    width: int = WIDTH,
    where: str = "",
) -> list[str]:
    """The failing examples among `rows`: count, share, tags, and the `most` worst.

    `where` is the command that prints the others.
    """
    failing = worst(rows)
    if not rows and iteration.failing:  # the table of examples is missing
        ids = ", ".join(visible(id_) for id_ in iteration.failing[:most])
        count = plural(len(iteration.failing), "failing example")
        return paragraph(f"{count}: {ids}", width, "", "  ") + _more(
            len(iteration.failing) - most, where
        )
    if not failing:
        return []
    share = f"{100 * len(failing) / len(rows):.1f}%"
    head = f"failing examples: {len(failing)} of {len(rows)} ({share})"
    tags = _by_tag(rows)
    lines = paragraph(f"{head}; {tags}" if tags else head, width, "", "  ")
    for row in failing[:most]:
        lines += example_lines(row, examples.get(row.id), width)
    return lines + _more(len(failing) - most, where)


def example_lines(
    row: ExampleResult, example: Example | None = None, width: int = WIDTH
) -> list[str]:
    """One example: a line with id, tags and loss; then prompt, expected and actual output."""
    tags = f" [{', '.join(one_line(tag, 30) for tag in row.tags)}]" if row.tags else ""
    loss = f"loss {figure_text('eval_loss', row.mean_loss)} per token"
    title = one_line(row.id, 40) + tags
    lines = [f"  {shorten(title, max(width - len(loss) - 4, 0))}  {loss}"]
    room = max(width - 4 - _LABEL, 0)
    if example is not None:
        lines.append(f"    {'prompt':<{_LABEL}}{quoted(example.prompt_text, room, middle=True)}")
    if row.expected or row.output:
        expected, actual = quoted_pair(row.expected, row.output, room)
        lines.append(f"    {'expected':<{_LABEL}}{expected}")
        lines.append(f"    {'actual':<{_LABEL}}{actual}")
    # Only the scorer json gives this score: an example of another one may have JSON by chance.
    if "score.valid" in row.scores and (fault := json_fault(row.expected, row.output)):
        lines.append(f"    {'wrong':<{_LABEL}}{one_line(fault, room)}")
    return [shorten(line, width) for line in lines]


def next_lines(iteration: Iteration, width: int = WIDTH, *, is_planned: bool = True) -> list[str]:
    """The adjustments proposed after an iteration, with the reasons."""
    decision = iteration.decision
    if not (adjustments := proposed(decision)):
        return []
    is_next = is_planned and decision.action == "adjust"
    head = "next:" if is_next else "would be tried next if the loop continued:"
    return [shorten(head, width), *adjustment_lines(adjustments, width)]


def adjustment_lines(adjustments: Sequence[Adjustment], width: int = WIDTH) -> list[str]:
    """Each adjustment and its reason."""
    lines = []
    for adjustment in adjustments:
        because = f": {visible(adjustment.because)}" if adjustment.because else ""
        lines += paragraph(format_change(adjustment) + because, width, "  ", "    ")
    return lines


def _findings_of(
    iteration: Iteration,
    findings: Sequence[Finding],
    which: str,
    decision: Decision,
    width: int,
) -> list[str]:
    if not findings:
        return []
    head = f"findings of iteration {visible(iteration.name)} ({which}):"
    return [
        shorten(head, width),
        *(
            line
            for finding in findings
            for line in finding_lines(finding, width, brief=True, decision=decision)
        ),
    ]


def _trained(result: LoopResult) -> list[Iteration]:
    return [iteration for iteration in result.chain if iteration.id in result.trained]


def _difference(name: str, old: Iteration | None, new: Iteration) -> str:
    return difference_text(name, new.metrics.get(name), old.metrics.get(name)) if old else ""


def _by_tag(rows: Sequence[ExampleResult]) -> str:
    """`negation 6 of 10, irony 4 of 8`: tags with failing examples, the highest share first."""
    counts = []
    for tag in {tag for row in rows for tag in row.tags}:
        tagged = [row for row in rows if tag in row.tags]
        if len(tagged) == len(rows):
            continue  # a tag of all examples tells nothing apart
        failing = sum(row.passed is False for row in tagged)
        if failing:
            counts.append((-failing / len(tagged), tag, failing, len(tagged)))
    shown = [f"{one_line(tag, 30)} {n} of {of}" for _, tag, n, of in sorted(counts)[:_MOST_TAGS]]
    return ", ".join(shown) + (", ..." if len(counts) > _MOST_TAGS else "")


def _more(count: int, where: str) -> list[str]:
    """How many are not listed, and the command that lists them, which is never shortened."""
    return [f"  ... and {count} more" + (f": {where}" if where else "")] * (count > 0)
