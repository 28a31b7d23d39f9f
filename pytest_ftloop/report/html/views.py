"""The values that the template shows of a loop, formatted as in all reports.

Text of users and models is not escaped here: the template does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_ftloop.core.metrics import is_rate, own_metrics
from pytest_ftloop.core.records import Decision, Finding, Iteration
from pytest_ftloop.report.advice import proposed, remedy_of
from pytest_ftloop.report.gate_changes import gate_text
from pytest_ftloop.report.html.loop_report import LoopReport, Shown, left_out, shown
from pytest_ftloop.report.html.tables import (
    adjustment_view,
    cost_view,
    iterations_view,
    known,
    settings_view,
    tags_view,
    tone_of,
)
from pytest_ftloop.report.html.verdicts import status_view, verdict_view
from pytest_ftloop.report.phrases import MISSING, difference_text, evidence_text, figure_text
from pytest_ftloop.report.verdict import holdout_lines

View = dict[str, Any]

TILES = ("eval_loss", "pass_rate", "overfit_gap", "token_accuracy")
NAMES = {
    "eval_loss": "Eval loss",
    "train_loss": "Train loss",
    "overfit_gap": "Overfit gap",
    "pass_rate": "Pass rate",
    "token_accuracy": "Token accuracy",
    "perplexity": "Perplexity",
}
_UNWRAPPED = 1_000_000


def loop_view(report: LoopReport, index: int) -> View:
    """All values of one loop for the template."""
    every = shown(report)
    trained = [it for it in every if not it.iteration.is_untrained]
    own = own_metrics(it.iteration.metrics for it in every)
    verdicts = [verdict_view(n, verdict, report) for n, verdict in report.verdicts]
    return {
        "id": f"loop-{index}",
        "index": index,
        "loop": report.loop,
        "source": report.source,
        "note": report.note.splitlines(),
        "status": status_view(report),
        "best": report.best.name,
        "verdicts": verdicts,
        "gates": [
            {
                "ok": gate.passed,
                "gate": gate.gate.text,
                "message": gate_text(gate, report.gate_changes),
            }
            for gate in report.gates
        ],
        "holdout": holdout_lines(report.holdout, _UNWRAPPED) if report.holdout else [],
        "tiles": tiles_view(report),
        "iterations": iterations_view(report, every, own),
        "has_outside": any(it.is_outside for it in every),
        "own": own,
        "own_plots": [(name, name) for name in own],
        "count": len(trained),
        "left_out": left_out(report),
        "other_eval_set": any(not it.same_eval_set for it in every),
        "findings": findings_view(report, every),
        "next": [adjustment_view(a) for a in proposed(report.iterations[-1].decision)],
        "next_is_planned": report.iterations[-1].decision.action == "adjust",
        "tags": tags_view(report, every),
        "settings": settings_view(trained),
        "cost": cost_view(report, trained),
        "examples": sum(len(it.iteration.examples) for it in every if it.is_best),
        "has_curves": any(it.iteration.steps or it.iteration.evals for it in every),
    }


def tiles_view(report: LoopReport) -> list[View]:
    """The best iteration's figures, each with its change from the baseline or the start."""
    against, said = _reference(report)
    base = report.base if against is not report.base else None
    tiles = []
    for name in (*TILES, *own_metrics([report.best.metrics])):
        value = report.best.metrics.get(name)
        if value is None:
            continue
        old = against.metrics.get(name) if against else None
        tiles.append(
            {
                "name": NAMES.get(name, name),
                "value": figure_text(name, value),
                "change": _unit(name, difference_text(name, value, old)) if said else "",
                "tone": tone_of(name, value, old),
                "against": said,
                "untrained": "" if base is None else figure_text(name, base.metrics.get(name)),
            }
        )
    return tiles


def findings_view(report: LoopReport, every: Sequence[Shown]) -> View:
    """The findings of the best and the last iteration, and separately those of the others."""
    best, last = report.best, report.iterations[-1]
    both = (best, last) if best.name != last.name else (best,)
    names = dict(zip((it.name for it in both), ("best", "last"), strict=False))
    names = names if len(both) > 1 else {best.name: "best and last"}
    now: list[View] = []
    seen: set[tuple[str, str]] = set()
    for it in both:
        for finding in it.findings:
            if (finding.kind, finding.message) not in seen:
                seen.add((finding.kind, finding.message))
                # The step after the best may have been tried since.
                now.append(_finding(finding, it, names[it.name], last.decision))
    others = [
        _finding(finding, it.iteration, "", it.iteration.decision, is_past=True)
        for it in every
        for finding in it.iteration.findings
        if it.iteration.name not in names
    ]
    return {"now": now, "others": others}


def _reference(report: LoopReport) -> tuple[Iteration | None, str]:
    """The iteration that the best one is compared with: the baseline, else the first one."""
    baseline, first = report.baseline, report.iterations[0]
    if baseline is not None and baseline.fingerprint != report.best.fingerprint:
        return baseline, "against the baseline"
    if first.fingerprint != report.best.fingerprint:
        since = (
            "from the untrained base" if first.is_untrained else f"since iteration {first.number}"
        )
        return first, since
    return None, ""


def _unit(name: str, text: str) -> str:
    return f"{text} points" if is_rate(name) and text != MISSING else known(text)


def _finding(
    finding: Finding,
    iteration: Iteration,
    which: str,
    decision: Decision,
    *,
    is_past: bool = False,
) -> View:
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "message": finding.message,
        "evidence": evidence_text(finding.evidence),
        "remedy": remedy_of(finding, decision, is_past=is_past),
        "iteration": iteration.number,
        "which": which,
    }
