"""The items that `--json` prints, made of results and records."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.report.advice import remedy_of
from pytest_ftloop.report.gate_changes import change_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_ftloop.core.records import (
        Adjustment,
        Decision,
        Example,
        ExampleResult,
        Finding,
        Iteration,
    )
    from pytest_ftloop.gate.difference import Difference
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Change, Verdict
    from pytest_ftloop.loop.result import LoopResult
    from pytest_ftloop.loop.workspace import Logged
    from pytest_ftloop.report.as_json import shapes
    from pytest_ftloop.report.suggestion import Suggestion

_UNWRAPPED = 100_000
"""A width at which no sentence is wrapped."""


def failure(
    command: shapes.CommandName, source: str, error: Exception, exit_code: int
) -> shapes.Failure:
    """The item of a loop that can't be answered for."""
    return {
        "schema": 1,
        "command": command,
        "loop": None,
        "source": source,
        "exit_code": exit_code,
        "error": str(error),
    }


def gate_item(result: LoopResult, exit_code: int) -> shapes.GateItem:
    """The item of `ftloop gate`."""
    return {"command": "gate", **_judged(result, exit_code)}


def run_item(result: LoopResult, exit_code: int) -> shapes.RunItem:
    """The item of `ftloop run`."""
    last = result.chain[-1]
    return {
        "command": "run",
        **_judged(result, exit_code),
        "iterations": [_row(iteration, result) for iteration in result.chain],
        "findings": _findings(result.best.findings, last.decision),
        "failing": [row.id for row in result.failing],
        "next": _adjustments(last.decision.next),
        "files": [shown_path(path) for path in result.files],
        "notes": list(result.notes),
    }


def diff_item(diff: Difference, source: str, exit_code: int) -> shapes.DiffItem:
    """The item of `ftloop diff`, in full."""
    from pytest_ftloop.report.diff import untested

    return {
        "command": "diff",
        **_answer(diff.loop, source, exit_code),
        "before": diff.before.name,
        "after": diff.after.name,
        "against": diff.verdict.against,
        "verdict": _comparison(diff.verdict),
        "gate_changes": _gate_changes(diff.gate_changes),
        "not_tested": {
            name: {"before": of["before"], "after": of["after"]}
            for name, of in untested(diff).items()
        },
        "settings": [{"name": c.name, "before": c.before, "after": c.after} for c in diff.settings],
        "data": [_plain(asdict(changed)) for changed in diff.data],
        "fixed": [_plain(asdict(flip)) for flip in diff.fixed],
        "broken": [_plain(asdict(flip)) for flip in diff.broken],
        "came": [finding.kind for finding in diff.came],
        "went": [finding.kind for finding in diff.went],
        "cost": {"before": _cost(diff.before), "after": _cost(diff.after)},
    }


def show_item(
    iteration: Iteration,
    source: str,
    exit_code: int,
    examples: Mapping[str, Example],
    base: Iteration | None,
) -> shapes.ShowItem:
    """The item of `ftloop show`: prompts are from `examples`, the untrained figures of `base`."""
    decision = iteration.decision
    failing = {*iteration.failing}
    return {
        "command": "show",
        **_answer(iteration.loop, source, exit_code),
        "iteration": iteration.name,
        "number": iteration.number,
        "id": iteration.id,
        "parent": iteration.parent,
        "adjustments": _adjustments(iteration.adjustments),
        "model": iteration.model,
        "settings": {
            "lora": dict(iteration.settings.lora),
            "training": dict(iteration.settings.training),
        },
        "scoring": dict(iteration.scoring),
        "data": {role: dict(facts) for role, facts in iteration.data.items()},
        "metrics": dict(iteration.metrics),
        "final": dict(iteration.final),
        "untrained": dict(base.metrics if base else iteration.base),
        "facts": dict(iteration.facts),
        "steps": [_plain(asdict(step)) for step in iteration.steps],
        "evals": [_plain(asdict(point)) for point in iteration.evals],
        "findings": _findings(iteration.findings, decision),
        "failing": [
            _failing(row, examples.get(row.id)) for row in iteration.examples if row.id in failing
        ],
        "decision": _decision(decision),
        "next": _adjustments(decision.next),
        "environment": dict(iteration.environment),
        "cost": _cost(iteration),
    }


def suggest_item(suggestion: Suggestion, source: str, exit_code: int) -> shapes.SuggestItem:
    """The item of `ftloop suggest`."""
    last, parent = suggestion.last, suggestion.parent
    return {
        "command": "suggest",
        **_answer(last.loop, source, exit_code),
        "iteration": last.name,
        "decision": _decision(last.decision),
        "parent": parent.name if parent else None,
        "planned": suggestion.is_planned,
        "next": _adjustments(suggestion.adjustments),
        "because": suggestion.because,
        "faults": _findings(suggestion.faults, last.decision),
    }


def source_of(logged: Logged) -> str:
    """How an item names where a log is from: its loop file, else its folder."""
    return shown_path(logged.config.file if logged.config else logged.log.folder)


def _answer(loop: str, source: str, exit_code: int) -> shapes.Answer:
    return {
        "schema": 1,
        "loop": loop,
        "source": source,
        "exit_code": exit_code,
        "error": None,
    }


def _judged(result: LoopResult, exit_code: int) -> shapes.Judged:
    from pytest_ftloop.report.verdict import holdout_lines

    holdout = holdout_lines(result.holdout, _UNWRAPPED) if result.holdout else []
    verdicts = result.verdicts
    return {
        **_answer(result.loop, result.source, exit_code),
        "iteration": result.best.name,
        "against": verdicts[0][1].against if verdicts else None,
        "gates": [_gate(gate) for gate in result.gates],
        "verdicts": [{"gate": rule.name, **_comparison(verdict)} for rule, verdict in verdicts],
        "gate_changes": _gate_changes(result.gate_changes),
        "holdout": [line.strip() for line in holdout],
    }


def _gate(gate: GateResult) -> shapes.GateShape:
    return {"gate": gate.gate.text, "figure": gate.value, "passed": gate.passed}


def _row(iteration: Iteration, result: LoopResult) -> shapes.Row:
    return {
        "iteration": iteration.name,
        "adjustments": _adjustments(iteration.adjustments),
        "metrics": dict(iteration.metrics),
        "trained": iteration.id in result.trained,
        "decision": _decision(iteration.decision),
    }


def _decision(decision: Decision) -> shapes.DecisionShape:
    return {"action": decision.action, "kind": decision.kind, "because": decision.because}


def _adjustments(adjustments: Iterable[Adjustment]) -> list[shapes.AdjustmentShape]:
    return [
        {"setting": a.setting, "before": a.before, "after": a.after, "because": a.because}
        for a in adjustments
    ]


def _findings(findings: Iterable[Finding], decision: Decision) -> list[shapes.FindingShape]:
    return [
        {
            "kind": finding.kind,
            "severity": finding.severity,
            "message": finding.message,
            "evidence": dict(finding.evidence),
            "remedy": remedy_of(finding, decision),
            "tunable": finding.tunable,
        }
        for finding in findings
    ]


def _failing(row: ExampleResult, example: Example | None) -> shapes.FailingShape:
    return {
        "id": row.id,
        "tags": list(row.tags),
        "loss": row.mean_loss,
        "prompt": example.prompt_text if example else None,
        "expected": row.expected,
        "outputs": list(row.outputs or (row.output,)),
        "scores": dict(row.scores),
    }


def _comparison(verdict: Verdict) -> shapes.ComparisonShape:
    record: Any = verdict.as_record()
    for group in ("changes", "tags", "runs", "slide"):
        changes: tuple[Change, ...] = getattr(verdict, group)
        record[group] = [{**change.as_record(), "against": change.against} for change in changes]
    comparison: shapes.ComparisonShape = record
    return comparison


def _gate_changes(found: Any) -> shapes.GateChangesShape:
    record: Any = change_record(found)
    changes: shapes.GateChangesShape = record
    return changes


def _cost(iteration: Iteration) -> shapes.CostShape:
    cost: shapes.CostShape = _plain(asdict(iteration.cost))
    return cost


def _plain(record: dict[str, Any]) -> Any:
    """A record as JSON has it: a list in place of a tuple."""
    return {
        key: [_plain(v) if isinstance(v, dict) else v for v in value]
        if isinstance(value, list | tuple)
        else value
        for key, value in record.items()
    }
