"""Why a gate or an assert failed: the figure, its history, findings, worst examples, what to try.

Used for `pytest_assertrepr_compare` and for failing gate items. Of the former pytest shows 8 lines
unless it runs with -vv or in CI, so the most important lines come first.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import OPERATORS, Gate, Lift
from pytest_ftloop.core.metrics import (
    guard_and_metric,
    is_score,
    metric_of,
    split_name,
    without_guard,
)
from pytest_ftloop.gate.thresholds import GateResult
from pytest_ftloop.loop.result import Figure
from pytest_ftloop.report import hints
from pytest_ftloop.report.advice import advice_lines
from pytest_ftloop.report.escape import one_line, shorten, visible
from pytest_ftloop.report.layout import Column, paragraph, table
from pytest_ftloop.report.phrases import distance_text, figure_text, format_changes
from pytest_ftloop.report.text import (
    WIDTH,
    example_lines,
    failing_lines,
    finding_lines,
)

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult, Iteration
    from pytest_ftloop.loop.result import LoopResult

_MOST_EXAMPLES = 3
_MOST_HISTORY = 8


def explain_comparison(op: str, left: object, right: object) -> list[str] | None:
    """The text of a failing comparison with a result's figure; None for any other comparison."""
    if isinstance(left, Figure) and isinstance(right, Real):
        return explain_figure(left, op, float(right))
    if isinstance(right, Figure) and isinstance(left, Real):
        turned = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
        return explain_figure(right, turned, float(left))
    return None


def explain_figure(figure: Figure, op: str, wanted: float, width: int = WIDTH) -> list[str]:
    """Explain a failing `figure op wanted`. The first line is the comparison.

    `figure` is the left operand; a caller that finds it on the right has to swap the operands.
    """
    value, bound = float(figure), float(wanted)
    name, result = figure.name, figure.result
    head = f"{_exact(value)} {op} {_exact(bound)}: {_place(result, name)}"
    gate = Gate(name=name, op=op, bound=bound)
    verdict = GateResult(gate, value, passed=False).message if op in OPERATORS else ""
    return [shorten(head, width), *_body(result, gate, value, verdict, width)]


def explain_gate(result: LoopResult, gate_result: GateResult, width: int = WIDTH) -> str:
    """The text of a failing gate item. The first line is the gate's message."""
    gate = gate_result.gate
    name = gate.metric if isinstance(gate, Lift) else gate.name
    where = visible(result.source) + (f":{gate.line}" if gate.line else "")
    place = f"{_place(result, name)}; gate at {where}"
    lines = paragraph(visible(gate_result.message), width, "", "  ")
    lines += paragraph(place, width, "", "  ")
    if gate_result.proof:  # it says all that a threshold's shortfall would
        return "\n".join([*lines, *_around(result, name, width)])
    return "\n".join([*lines, *_body(result, gate, gate_result.value, "", width)])


def _body(
    result: LoopResult, gate: Gate, value: float | None, verdict: str, width: int
) -> list[str]:
    said = f"{visible(verdict)}: " if verdict else ""
    lines = paragraph(said + _shortfall(result, gate, value), width, "", "  ")
    return lines + _around(result, gate.name, width)


def _around(result: LoopResult, name: str, width: int) -> list[str]:
    """The history of a figure, the findings, the examples behind the figure, what to try."""
    lines = _history(result, name, width)
    lines += _findings(result, width)
    lines += _examples(result, name, width)
    return lines + _next(result, width)


def _place(result: LoopResult, name: str) -> str:
    """`pass_rate of iteration 003-ab12cd34 (best of 4)`."""
    count = len(result.chain)
    rank = f"best of {count}" if count > 1 else "the only one"
    return f"{one_line(name, 60)} of iteration {visible(result.best.name)} ({rank})"


def _shortfall(result: LoopResult, gate: Gate, value: float | None) -> str:
    if value is None:
        return "the figure is missing, so no condition on it holds"
    if not math.isfinite(value):
        what = "not a number" if math.isnan(value) else "infinite"
        return f"the figure is {what}: {_why_not_finite(result, gate.name)}"
    if not math.isfinite(gate.bound):
        return f"the bound is {gate.bound}"
    off = f"missed by {distance_text(gate.name, value, gate.bound)}"
    better = f"; {metric_of(gate.metric).better} is better"
    return ("equal to the bound" if value == gate.bound else off) + better


def _why_not_finite(result: LoopResult, name: str) -> str:
    """The finding that explains it; else whether any example could be measured."""
    for finding in result.best.findings:
        if finding.kind in ("non-finite", "no-signal", "diverged"):
            return visible(finding.message)
    rows = _rows_of(result.best, name)
    bad = [row for row in rows if not math.isfinite(row.loss)]
    if bad:
        return f"the loss of {len(bad)} of {len(rows)} examples is not finite"
    if rows and not sum(row.tokens for row in rows):
        return "none of the examples has a labelled token"
    return "no condition on it holds"


def _history(result: LoopResult, name: str, width: int) -> list[str]:
    """The figure in the last iterations and in the best one, with the change that led to each."""
    count, best = len(result.chain), result.best.name
    chain = [
        iteration
        for index, iteration in enumerate(result.chain)
        if iteration.name == best or index >= count - _MOST_HISTORY
    ]
    columns = [
        Column(("", ""), ["  *" if it.name == best else "   " for it in chain]),
        Column(("", ""), [str(it.number) for it in chain], right=True),
        Column(("", ""), [figure_text(name, it.metrics.get(name)) for it in chain], right=True),
        Column(("", ""), [format_changes(it, result.chain) for it in chain], least=1),
    ]
    some = f" ({len(chain)} of {count} iterations)" if len(chain) < count else ""
    head = shorten(f"history of {one_line(name, 60)}{some}:", width)
    return [head, *table(columns, width)[2:]]


def _findings(result: LoopResult, width: int) -> list[str]:
    findings = result.best.findings
    if not findings:
        return []
    decision = result.chain[-1].decision  # the step after the best may have been tried since
    lines = [
        line
        for finding in findings
        for line in finding_lines(finding, width, brief=True, decision=decision)
    ]
    return ["findings:", *lines]


def _examples(result: LoopResult, name: str, width: int) -> list[str]:
    """The worst examples behind the figure: failing ones for a pass rate, else by loss."""
    best = result.best
    rows = _rows_of(best, name)
    if without_guard(split_name(name)[0]) == "pass_rate":
        where = hints.show(result, best.number)
        return failing_lines(best, rows, result.examples, _MOST_EXAMPLES, width, where)
    metric = without_guard(split_name(name)[0])
    by_score = is_score(metric)
    worst_rows = sorted(
        rows, key=lambda row: (row.scores.get(metric, 0.0) if by_score else 0.0, *_by_loss(row))
    )
    worst_rows = worst_rows[:_MOST_EXAMPLES]
    if not worst_rows:
        return []
    lines = [
        line
        for row in worst_rows
        for line in example_lines(row, result.examples.get(row.id), width)
    ]
    which = f"lowest {metric}" if by_score else "highest loss"
    return [shorten(f"examples with the {which} (of {len(rows)}):", width), *lines]


def _next(result: LoopResult, width: int) -> list[str]:
    """What to try next, and the command that shows all examples."""
    look = f"look at the examples: {hints.show(result, result.best.number)}"
    return [*advice_lines(result, width), look]


def _rows_of(iteration: Iteration, name: str) -> list[ExampleResult]:
    metric, tag = split_name(name)
    guarded = guard_and_metric(metric)
    rows = iteration.guards.get(guarded[0], ()) if guarded else iteration.examples
    return [row for row in rows if tag is None or tag in row.tags]


def _by_loss(row: ExampleResult) -> tuple[float, str]:
    loss = row.mean_loss
    return (-math.inf if math.isnan(loss) else -loss, row.id)


def _exact(value: float) -> str:
    """The number as Python shows it, rounded to six decimals like logged figures, without `.0`."""
    return repr(round(value, 6)).removesuffix(".0") if math.isfinite(value) else str(value)
