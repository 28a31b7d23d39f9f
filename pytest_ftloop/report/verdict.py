"""A verdict as terminal text: the verdict in one line, then the figures behind it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import format_figure, own_metrics
from pytest_ftloop.core.runs import mean_of
from pytest_ftloop.gate.breakage import breakage
from pytest_ftloop.gate.difference import setting_changes
from pytest_ftloop.gate.verdict import (
    Change,
    Verdict,
    amount_text,
    change_text,
    seeds_text,
)
from pytest_ftloop.report import hints
from pytest_ftloop.report.cause import cause_lines
from pytest_ftloop.report.escape import one_line, shorten, visible
from pytest_ftloop.report.layout import Column, paragraph, table
from pytest_ftloop.report.phrases import TERMS, broken_text, plural
from pytest_ftloop.report.text import WIDTH, example_lines
from pytest_ftloop.report.what_to_do import verdict_advice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.core.noise import SeedNoise
    from pytest_ftloop.core.records import ExampleResult
    from pytest_ftloop.core.runs import Measured
    from pytest_ftloop.gate.holdout import Gain, HoldoutReport
    from pytest_ftloop.loop.result import LoopResult

_MOST_EXAMPLES = 3
_MOST_TAGS = 4

MARKS = {"improved": "+", "regressed": "!", "inconclusive": "?", "unchanged": " "}
"""Marks of a change: proven better, proven worse, could be worse, none of these."""


def verdict_lines(verdict: Verdict, gate: str = "regression", width: int = WIDTH) -> list[str]:
    """The verdict and its figures."""
    return [*head_lines(verdict, gate, width), *figure_lines(verdict, width)]


def head_lines(verdict: Verdict, gate: str = "regression", width: int = WIDTH) -> list[str]:
    """The verdict, the commit it compares with, the reason, and what to know of the baseline."""
    told = told_paragraphs(verdict, width)
    return [*head_line(verdict, gate, width), *(line for lines in told for line in lines)]


def head_line(verdict: Verdict, gate: str, width: int) -> list[str]:
    """The verdict, the commit it compares with and the reason, as one paragraph."""
    head = f"{visible(gate)}: {verdict.kind}"
    if verdict.against:
        head += f" against {visible(verdict.against)}"
    return paragraph(f"{head}: {visible(verdict.because)}", width, "", "  ")


def told_paragraphs(verdict: Verdict, width: int) -> list[list[str]]:
    """What its kind means, if that has to be said, and what to know of the baseline."""
    texts = [f"note: {visible(note)}" for note in verdict.context]
    if verdict.kind == "inconclusive":
        texts.insert(0, f"inconclusive: {TERMS['inconclusive']}")
    return [paragraph(text, width, "  ", "    ") for text in texts]


def figure_lines(verdict: Verdict, width: int = WIDTH) -> list[str]:
    """The figures behind the verdict, and its notes."""
    lines = changes_table(verdict, width)
    for note in verdict.notes:
        lines += paragraph(f"note: {visible(note)}", width, "  ", "    ")
    return lines


def holdout_lines(report: HoldoutReport, width: int = WIDTH) -> list[str]:
    """Whether the gain holds on the holdout; then the alarm and the signs of wear, if any."""
    figures = ", ".join(f"{n} {format_figure(n, v)}" for n, v in report.metrics.items())
    text = f"holdout: {figures}; opened {plural(report.uses, 'time')}"
    if report.gains:
        said = "; ".join(_gain_text(gain) for gain in report.gains)
        compared = {gain.metric for gain in report.gains}
        others = (
            f"{name} {format_figure(name, value)}"
            for name, value in report.metrics.items()
            if name not in compared
        )
        said = "; ".join([said, *others])
        text = f"holdout, against {report.reference}: {said}; opened {plural(report.uses, 'time')}"
    lines = paragraph(text, width, "", "  ")
    if report.alarm:
        lines += paragraph(
            "alarm: the gain on the eval set does not appear on the holdout. It was chosen by "
            "chance, or the eval set leaked into the training data.",
            width,
            "  ",
            "    ",
        )
    if report.eval_set_is_worn:
        lines += paragraph(
            f"the eval set is worn out: in {report.judged} judgements at alpha {report.alpha:g}, "
            "one improvement by chance is expected. Replace its examples.",
            width,
            "  ",
            "    ",
        )
    if report.holdout_is_worn:
        lines += paragraph(
            f"the holdout is worn out: it was opened {report.uses} times. Replace its examples.",
            width,
            "  ",
        )
    return lines


def noise_lines(
    result: LoopResult,
    runs: Sequence[Measured],
    measured: Mapping[str, SeedNoise],
    width: int = WIDTH,
) -> list[str]:
    """An iteration's figures over its seeds, and the seed noise that is measured in the log."""
    lines = [shorten(f"{visible(result.loop)}: iteration {result.best.name}", width)]
    seeds = ", ".join(str(run.seed) for run in sorted(runs, key=lambda run: run.seed))
    lines += paragraph(f"{plural(len(runs), 'run')}, seeds {seeds}", width, "  ", "    ")
    own = own_metrics(run.metrics for run in runs)
    for name in ("eval_loss", "pass_rate", *own, "overfit_gap"):
        values = [run.metrics[name] for run in runs if name in run.metrics]
        if name in measured and values and all(map(math.isfinite, values)):
            ends = f"{format_figure(name, min(values))} to {format_figure(name, max(values))}"
            noise = f"seed noise {amount_text(name, measured[name].sd)}"
            text = f"{name}: mean {format_figure(name, mean_of(values))}, from {ends}, {noise}"
            lines += paragraph(text, width, "  ", "    ")
    return lines


def changes_table(verdict: Verdict, width: int = WIDTH) -> list[str]:
    """One row per figure: baseline, now, change, its certainty, the smallest detectable drop."""
    worse_tags = [change for change in verdict.tags if change.kind != "unchanged"][:_MOST_TAGS]
    rows = [*verdict.changes, *verdict.runs, *worse_tags]
    if not rows:
        return []
    least = _least_width(verdict)
    columns = [
        Column(("", ""), [f"  {MARKS[change.kind]}" for change in rows]),
        Column(("", "metric"), [one_line(change.label, 60) for change in rows], least=least),
        Column(("", "baseline"), [_figure(c, c.baseline) for c in rows], right=True),
        Column(("", "now"), [_figure(c, c.candidate) for c in rows], right=True),
        Column(("", "change"), [_difference(c) for c in rows], right=True),
        Column(("", "p"), [_p(change) for change in rows], right=True, drop=3),
        Column(("", "+/-"), [_amount(c, 1.0) for c in rows], right=True, drop=1),
        Column(("", "detectable"), [_amount(c, None) for c in rows], right=True, drop=2),
    ]
    seeds = seeds_text(verdict.changes)
    said = [f"now and baseline: {seeds} (seeds: {TERMS['seeds']})"] if seeds else []
    said.append("; ".join(f"{name}: {TERMS[term]}" for name, term in COLUMN_TERMS))
    notes = [line for text in said for line in paragraph(text, width, "  ", "    ")]
    return [*table(columns, width)[1:], *notes]


COLUMN_TERMS = (("p", "p"), ("+/-", "error"), ("detectable", "detectable"))
"""Columns of the table, each with its word in `TERMS`."""


def _least_width(verdict: Verdict) -> int:
    """To how many columns of the terminal the names of metrics may be cut.

    With room for `guard.general.eval_loss (baseline)`: cut at 20, the row against the base and that
    against the baseline would look the same. Other columns are dropped instead.
    """
    return 36 if any(change.against for change in verdict.changes) else 20


def explain_verdict(
    result: LoopResult, verdict: Verdict, gate: Regression, width: int = WIDTH
) -> str:
    """The text of a failing regression gate: verdict, broken and fixed examples, what to do."""
    where = visible(result.source) + (f":{gate.line}" if gate.line else "")
    lines = head_lines(verdict, gate.name, width)
    against = f" against {verdict.baseline}" if verdict.baseline else ""
    lines += paragraph(f"iteration {verdict.candidate}{against}; gate at {where}", width, "", "  ")
    lines += result_cause_lines(result, width)
    lines += figure_lines(verdict, width)
    lines += flipped_lines("broken", verdict.broken, result, width, tag=gate.tag)
    lines += flipped_lines("fixed", verdict.fixed, result, width, most=0)
    if verdict.kind == "regressed":
        lines.append(f"all that changed: {hints.diff(result)}")
    return "\n".join([*lines, *verdict_advice(result, verdict, width)])


def result_cause_lines(result: LoopResult, width: int = WIDTH) -> list[str]:
    """What changed since the baseline; empty where there is none."""
    if result.baseline is None:
        return []
    settings = setting_changes(result.baseline, result.best)
    against = result.standard.shown if result.standard else ""
    return cause_lines(settings, result.data_changes, result.gate_changes, against, width)


def explain_failed(result: LoopResult, width: int = WIDTH) -> str:
    """The explanations of a result's failed verdicts; empty if none has failed."""
    failed = [(rule, verdict) for rule, verdict in result.verdicts if not verdict.ok]
    return "\n\n".join(explain_verdict(result, v, rule, width) for rule, v in failed)


def flipped_lines(
    what: str,
    ids: Sequence[str],
    result: LoopResult,
    width: int = WIDTH,
    most: int = _MOST_EXAMPLES,
    tag: str | None = None,
) -> list[str]:
    """The number of examples that were broken or fixed, and the first few of them."""
    if not ids:
        return []
    rows: Mapping[str, ExampleResult] = {row.id: row for row in result.best.examples}
    shown = [id_ for id_ in ids if id_ in rows][:most]
    names = "" if shown else f": {', '.join(visible(id_) for id_ in ids[:12])}"
    names += ", ..." if not shown and len(ids) > 12 else ""
    text = f"{what} examples: {len(ids)}{names}"
    if shown and what == "broken":
        text = f"broken: {breakage_text(result, ids, tag)}"
    lines = paragraph(text, width, "", "  ")
    for id_ in shown:
        lines += example_lines(rows[id_], result.examples.get(id_), width)
    more = len(ids) - len(shown) if shown else 0
    return [*lines, *([f"  ... and {more} more: {hints.diff(result, '--all')}"] if more else [])]


def breakage_text(result: LoopResult, ids: Sequence[str], tag: str | None) -> str:
    """What broke in a sentence, of the examples with this tag or of all; else their number."""
    before = result.baseline
    found = None if before is None else breakage(before, result.best, ids, tag)
    if found is None:
        return plural(len(ids), "example")
    return broken_text(found.count, found.passed, found.alike, found.output)


def _gain_text(gain: Gain) -> str:
    """`eval_loss 0.0210 better (on the eval set 0.0340 better): the gain holds`."""
    on_eval, on_holdout = (_gain_amount(gain, g) for g in (gain.on_eval, gain.on_holdout))
    text = f"{gain.metric} {on_holdout} (on the eval set {on_eval})"
    if gain.on_eval <= 0:
        return text
    return f"{text}: the gain {'does not hold' if gain.alarms else 'holds'}"


def _gain_amount(gain: Gain, amount: float) -> str:
    return f"{amount_text(gain.metric, amount)} {'better' if amount > 0 else 'worse'}"


def _figure(change: Change, value: float) -> str:
    return format_figure(change.metric, value)


def _difference(change: Change) -> str:
    return change_text(change.metric, change.candidate - change.baseline)


def _p(change: Change) -> str:
    return "<.0001" if change.p < 1e-4 else f"{change.p:.2g}"


def _amount(change: Change, errors: float | None) -> str:
    """So many standard errors of a change; for None the smallest detectable drop."""
    amount = change.test.detectable if errors is None else errors * change.test.se
    return amount_text(change.metric, amount) if math.isfinite(amount) else "-"
