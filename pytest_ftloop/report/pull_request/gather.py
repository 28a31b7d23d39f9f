"""Make the report's plain data from judged loops: cut to the bounds of `model`, not escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import own_metrics, split_name
from pytest_ftloop.gate.difference import Difference, Flip, difference
from pytest_ftloop.gate.verdict import seeds_text
from pytest_ftloop.report.advice import advice_lines, remedy_of
from pytest_ftloop.report.cause import edit_text, without_data
from pytest_ftloop.report.escape import ELLIPSIS
from pytest_ftloop.report.gate_changes import loosened_advice, loosened_text
from pytest_ftloop.report.phrases import (
    decision_text,
    evidence_text,
    format_changes,
    format_setting,
)
from pytest_ftloop.report.pull_request.curve import curve_of
from pytest_ftloop.report.pull_request.model import (
    LONG,
    MOST_EXAMPLES,
    MOST_ITERATIONS,
    MOST_LOOPS,
    MOST_ROWS,
    NAME,
    OUTCOMES,
    TEXT,
    ChangeRow,
    CostRow,
    DataRow,
    ExampleRow,
    FindingRow,
    Flips,
    GateChangeRow,
    GateChangesRow,
    IterationRow,
    LoopSection,
    Number,
    PullRequestReport,
    SettingRow,
    State,
    Threshold,
    VerdictRow,
    number,
)
from pytest_ftloop.report.verdict import holdout_lines
from pytest_ftloop.report.what_to_do import advice_parts

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.core.data_changes import DataChange
    from pytest_ftloop.core.errors import FtloopError
    from pytest_ftloop.core.records import Cost, Decision, Finding, Iteration
    from pytest_ftloop.gate.gate_changes import GateChanges
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Change, Verdict
    from pytest_ftloop.loop.result import LoopResult

_SURROGATE = re.compile("[\ud800-\udfff]")
_WIDE = 10_000
_EDIT = 200


@dataclass(frozen=True)
class LoopOutcome:
    """One judged loop file: its result with the verdicts, or the error that prevented them.

    `is_stale`: training would cure the error. `trained`: this job trained or restored it.
    """

    loop: str
    source: str
    result: LoopResult | None = None
    error: FtloopError | None = None
    is_stale: bool = False
    trained: bool = False


def of(loops: Iterable[LoopOutcome], key: str = "") -> PullRequestReport:
    """The report on these loops, in their order. Of too many loops it keeps the worst.

    `key` tells it from the reports of other jobs on the same pull request.
    """
    sections = [_section(outcome) for outcome in loops]
    ranks = [(section.ok, OUTCOMES.index(section.outcome)) for section in sections]
    worst = sorted(range(len(sections)), key=lambda index: (ranks[index], index))[:MOST_LOOPS]
    kept = tuple(sections[index] for index in sorted(worst))
    left_out = len(sections) - len(kept)
    return PullRequestReport(key=_cut(key, NAME), loops=kept, left_out=left_out)


def _section(outcome: LoopOutcome) -> LoopSection:
    loop, source, result = _cut(outcome.loop, NAME), _cut(outcome.source, TEXT), outcome.result
    if result is None:
        error = _cut(str(outcome.error), LONG)
        return LoopSection(loop=loop, source=source, error=error, stale=outcome.is_stale)
    best, diff, changed = result.best, _difference(result), result.gate_changes
    holdout = holdout_lines(result.holdout, _WIDE) if result.holdout else []
    return LoopSection(
        loop=loop,
        source=source,
        trained=outcome.trained,
        iteration=_cut(best.name, NAME),
        metrics=_metrics(best),
        thresholds=tuple(_threshold(gate, changed) for gate in result.gates[:MOST_ROWS]),
        verdicts=tuple(_verdict(rule, v, changed) for rule, v in result.verdicts[:MOST_ROWS]),
        iterations=_iterations(result),
        findings=_findings(best, result.chain[-1].decision, diff),
        broken=_broken(diff),
        fixed=_flips(diff.fixed if diff else ()),
        settings=_settings(diff),
        holdout=tuple(_cut(line, TEXT) for line in holdout[:20]),
        curve=curve_of(best),
        cost=_cost(best.cost),
        cost_before=_cost(diff.before.cost) if diff else None,
        gate_changes=_gate_changes(changed),
        data=tuple(map(_data, diff.data)) if diff else (),
        to_do=tuple(_cut(line, TEXT) for line in _to_do(result)[:20]),
    )


def _to_do(result: LoopResult) -> list[str]:
    """What to do about the first failed verdict, about thresholds that fail, about loosened gates.

    Where a verdict failed, the loop's next step would go on from the worse version: so it says so.
    """
    failed = next((verdict for _, verdict in result.verdicts if not verdict.ok), None)
    lines, accept = ([], []) if failed is None else advice_parts(result, failed, _WIDE)
    if not all(gate.passed for gate in result.gates):
        tried, *others = advice_lines(result, _WIDE)
        if failed is not None and tried.startswith("try next"):
            tried = f"or, to go on from this version, {tried}"
        lines += [tried, *others]
    return [*lines, *loosened_advice(result.gate_changes, _WIDE), *accept]


def _data(changed: DataChange) -> DataRow:
    edits = tuple(_cut(edit_text(edit, _EDIT), TEXT) for edit in changed.edits)
    return DataRow(role=_cut(changed.role, NAME), text=_cut(changed.text, TEXT), edits=edits)


def _gate_changes(found: GateChanges | None) -> GateChangesRow:
    """The changes in the gates; of too many it keeps those that loosen one."""
    if found is None:
        return GateChangesRow()
    ordered = sorted(found.changes, key=lambda change: not change.loosened)
    return GateChangesRow(
        against=_cut(found.against, NAME),
        changes=tuple(
            GateChangeRow(
                name=_cut(change.name, NAME),
                before=_cut(change.before, TEXT),
                after=_cut(change.after, TEXT),
                loosened=change.loosened,
                held=change.held,
                figure=_cut(change.figure, NAME),
            )
            for change in ordered[:MOST_ROWS]
        ),
        unknown=_cut(found.unknown, TEXT),
    )


def _difference(result: LoopResult) -> Difference | None:
    """The difference from the baseline of the gate on the whole set; None without a baseline."""
    baseline = result.baseline
    if baseline is None or not result.verdicts:
        return None
    whole = (pair for pair in result.verdicts if pair[0].tag is None)
    rule, verdict = next(whole, result.verdicts[0])
    data, tag = result.data_changes, rule.tag
    return difference(baseline, result.best, verdict, result.examples, data=data, tag=tag)


def _metrics(iteration: Iteration) -> dict[str, Number]:
    """The figures; those of the whole eval set come first."""
    names = sorted(iteration.metrics, key=lambda name: split_name(name)[1] is not None)
    return {_cut(name, NAME): number(iteration.metrics[name]) for name in names[:MOST_ROWS]}


def _threshold(judged: GateResult, changed: GateChanges | None) -> Threshold:
    return Threshold(
        condition=_cut(judged.gate.text, NAME),
        message=_cut(judged.message, TEXT),
        passed=judged.passed,
        line=judged.gate.line,
        loosened=_cut(loosened_text(changed, judged.gate.name), TEXT) if judged.passed else "",
    )


def _verdict(rule: Regression, verdict: Verdict, changed: GateChanges | None) -> VerdictRow:
    tags = [change for change in verdict.tags if change.kind != "unchanged"]
    changes = (*verdict.changes, *verdict.runs, *tags)
    return VerdictRow(
        gate=_cut(rule.name, NAME),
        kind=verdict.kind,
        ok=verdict.ok,
        because=_cut(". ".join((verdict.because, *verdict.context)), TEXT),
        against=_cut(verdict.against, NAME),
        baseline=_cut(verdict.baseline, NAME) if verdict.baseline else None,
        line=rule.line,
        changes=tuple(map(_change, changes[:MOST_ROWS])),
        seeds=seeds_text(verdict.changes),
        common=verdict.common,
        total=verdict.total,
        loosened=_cut(loosened_text(changed, rule.name), TEXT) if verdict.ok else "",
        notes=tuple(_cut(note, TEXT) for note in verdict.notes[:MOST_ROWS]),
    )


def _change(change: Change) -> ChangeRow:
    return ChangeRow(
        metric=_cut(change.label, NAME),
        kind=change.kind,
        baseline=number(change.baseline),
        candidate=number(change.candidate),
        p=number(change.p),
        detectable=number(change.test.detectable),
    )


def _iterations(result: LoopResult) -> tuple[IterationRow, ...]:
    """The iterations of the chain. Of a very long chain it keeps the end and the best one."""
    chain = result.chain
    room = MOST_ITERATIONS - (result.base is not None)
    kept = [it for it in chain[:-room] if it.name == result.best.name]
    kept += chain[-(room - len(kept)) :]
    kept = [*([result.base] if result.base else []), *kept]
    own = own_metrics(it.metrics for it in kept)
    return tuple(
        IterationRow(
            number=iteration.number,
            id=_cut(iteration.id, NAME),
            change=_cut(format_changes(iteration, chain), TEXT),
            decision=_cut(decision_text(iteration.decision), NAME),
            metrics={
                name: number(iteration.metrics[name])
                for name in ("train_loss", "eval_loss", "overfit_gap", "pass_rate", *own)
                if name in iteration.metrics
            },
            is_best=iteration.name == result.best.name,
        )
        for iteration in kept
    )


def _findings(
    best: Iteration, decision: Decision, diff: Difference | None
) -> tuple[FindingRow, ...]:
    """The best iteration's findings, with the decision that stands now."""
    came = {finding.kind for finding in diff.came} if diff else set()
    rows = [_finding(f, "new" if f.kind in came else "", decision) for f in best.findings]
    rows += [_finding(f, "gone", None) for f in (diff.went if diff else ())]
    return tuple(rows[:MOST_ROWS])


def _finding(finding: Finding, state: State, decision: Decision | None) -> FindingRow:
    return FindingRow(
        severity=finding.severity,
        kind=_cut(finding.kind, NAME),
        message=_cut(finding.message, LONG),
        evidence=_cut(evidence_text(finding.evidence), TEXT),
        remedy=_cut(remedy_of(finding, decision), LONG),
        state=state,
    )


def _broken(diff: Difference | None) -> Flips:
    """The broken examples, and what most of them have in common."""
    flips = _flips(diff.broken if diff else ())
    found = diff.breakage if diff else None
    if found is None:
        return flips
    common = {"passed": found.passed, "alike": found.alike, "output": _cut(found.output, TEXT)}
    return flips.model_copy(update=common)


def _flips(flips: Sequence[Flip]) -> Flips:
    return Flips(total=len(flips), examples=tuple(map(_example, flips[:MOST_EXAMPLES])))


def _example(flip: Flip) -> ExampleRow:
    return ExampleRow(
        id=_cut(flip.id, NAME),
        tags=tuple(_cut(tag, NAME) for tag in flip.tags[:20]),
        prompt=None if flip.prompt is None else _cut(flip.prompt, TEXT),
        expected=_cut(flip.expected, TEXT),
        before=_cut(flip.before, TEXT),
        after=_cut(flip.after, TEXT),
    )


def _settings(diff: Difference | None) -> tuple[SettingRow, ...]:
    return tuple(
        SettingRow(
            name=_cut(change.name, NAME),
            before=_cut(_stated(change.before), TEXT),
            after=_cut(_stated(change.after), TEXT),
        )
        for change in (without_data(diff.settings, diff.data)[:MOST_ROWS] if diff else ())
    )


def _stated(value: object) -> str:
    return "not set" if value is None else format_setting(value)


def _cost(cost: Cost) -> CostRow:
    return CostRow(
        seconds=number(cost.seconds),
        steps=cost.steps,
        tokens=cost.tokens,
        device_memory_mib=number(cost.device_memory_mib),
    )


def _cut(text: str, most: int) -> str:
    """Cut text to so many characters, keeping both ends.

    Lone surrogates are replaced, because they can't be written to a file.
    """
    if len(text) > most:
        room = most - len(ELLIPSIS)
        text = text[: room - room // 2] + ELLIPSIS + text[len(text) - room // 2 :]
    return _SURROGATE.sub("\ufffd", text)
