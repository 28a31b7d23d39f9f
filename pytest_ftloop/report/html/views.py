"""The values that the template shows of a loop, formatted as in all reports.

Text of users and models is not escaped here: the template does that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_ftloop.core.metrics import format_figure, is_rate, own_metrics, split_name
from pytest_ftloop.core.records import Cost, Decision, Finding, Iteration
from pytest_ftloop.gate.verdict import (
    Change,
    Verdict,
    amount_text,
    change_text,
    is_better,
    seeds_text,
)
from pytest_ftloop.report.advice import remedy_of
from pytest_ftloop.report.html.loop_report import LoopReport, Shown, left_out, shown
from pytest_ftloop.report.phrases import (
    MISSING,
    decision_text,
    difference_text,
    duration_text,
    evidence_text,
    figure_text,
    format_changes,
    format_setting,
    plural,
)
from pytest_ftloop.report.verdict import holdout_lines

View = dict[str, Any]

TONES = {
    "improved": "good",
    "unchanged": "good",
    "regressed": "bad",
    "incomplete": "bad",
    "inconclusive": "warn",
    "not comparable": "plain",
}
"""The colour of a verdict, which is always shown with its word."""

SAID = {
    "improved": "better",
    "regressed": "worse",
    "inconclusive": "could be worse",
    "unchanged": "no change proven",
}

TILES = ("eval_loss", "pass_rate", "overfit_gap", "token_accuracy")
FIGURES = ("train_loss", "eval_loss", "overfit_gap", "pass_rate", "token_accuracy")
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
    verdicts = [verdict_view(n, verdict, report.is_gated) for n, verdict in report.verdicts]
    return {
        "id": f"loop-{index}",
        "index": index,
        "loop": report.loop,
        "source": report.source,
        "note": report.note,
        "status": status_view(report),
        "best": report.best.name,
        "verdicts": verdicts,
        "gates": [
            {"ok": gate.passed, "gate": gate.gate.text, "message": gate.message}
            for gate in report.gates
        ],
        "holdout": holdout_lines(report.holdout, _UNWRAPPED) if report.holdout else [],
        "tiles": tiles_view(report),
        "iterations": [_row(report, old, it, own) for old, it in _with_previous(every)],
        "own": own,
        "own_plots": [(name, name) for name in own],
        "count": len(trained),
        "left_out": left_out(report),
        "other_eval_set": any(not it.same_eval_set for it in every),
        "findings": findings_view(report, every),
        "next": _next(report.iterations[-1].decision),
        "next_is_planned": report.iterations[-1].decision.action == "adjust",
        "tags": tags_view(report, every),
        "settings": settings_view(trained),
        "cost": cost_view(report, trained),
        "examples": sum(len(it.iteration.examples) for it in every if it.is_best),
        "has_curves": any(it.iteration.steps or it.iteration.evals for it in every),
    }


def status_view(report: LoopReport) -> View:
    """The loop in one sentence: its verdict, and whether its gates hold.

    A verdict without a gate fails nothing, but a bad one keeps the loop from being green.
    """
    failed = sum(not gate.passed for gate in report.gates)
    verdicts = [verdict for _, verdict in report.verdicts]
    bad = [verdict for verdict in verdicts if not verdict.ok]
    first = next(iter((*bad, *verdicts)), None)
    parts = [_verdict_text(first)] if first else []
    parts += [_gates_text(failed, len(report.gates))] if report.gates else []
    tone = TONES[first.kind] if first else "plain"
    if failed or (bad and report.is_gated):
        word, tone = "Failed", "bad"
    elif not report.gates and (tone == "plain" or not report.is_gated):
        word, tone = "Not judged", "plain"
    elif tone in {"bad", "warn"}:
        word, tone = ("Uncertain" if report.is_gated else "Passed"), "warn"
    else:
        word, tone = "Passed", "good"
    return {"word": word, "tone": tone, "text": "; ".join(parts) or "no gates"}


def _verdict_text(verdict: Verdict) -> str:
    compared = verdict.against and verdict.baseline
    return f"{verdict.kind} against {verdict.against}" if compared else verdict.kind


def _gates_text(failed: int, of: int) -> str:
    if of == 1:
        return "its threshold failed" if failed else "its threshold holds"
    return f"{failed} of {of} thresholds failed" if failed else f"{of} of {of} thresholds hold"


def verdict_view(name: str, verdict: Verdict, is_gated: bool) -> View:
    """A verdict and the figures behind it."""
    tags = [change for change in verdict.tags if change.kind != "unchanged"]
    rows = [*verdict.changes, *verdict.runs, *tags]
    return {
        "gate": name if is_gated else "comparison",
        "is_gated": is_gated,
        "kind": verdict.kind,
        "tone": "bad" if not verdict.ok else TONES[verdict.kind],
        "because": verdict.because,
        "candidate": verdict.candidate,
        "baseline": verdict.baseline,
        "against": verdict.against,
        "alpha": f"{verdict.alpha:g}",
        "rows": [_change(change) for change in rows],
        "slide": [_change(change) for change in verdict.slide],
        "anchor": verdict.anchor,
        "common": verdict.common,
        "total": verdict.total,
        "seeds": seeds_text(verdict.changes),
        "fixed": len(verdict.fixed),
        "broken": len(verdict.broken),
        "notes": [*verdict.context, *verdict.notes],
    }


def tiles_view(report: LoopReport) -> list[View]:
    """The best iteration's figures, each with its change from the baseline or the start."""
    against, said = _reference(report)
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
                "tone": _tone(name, value, old),
                "against": said,
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


def tags_view(report: LoopReport, every: Sequence[Shown]) -> View:
    """The pass rate per tag and iteration, the tag that is worst in the best iteration first."""
    best = report.best
    names = {name for it in every for name in it.iteration.metrics}
    tags = {tag for name in names if (tag := _tag_of(name)) is not None}
    counts: dict[str, int] = {}
    for example in best.examples:
        for tag in example.tags:
            counts[tag] = counts.get(tag, 0) + 1

    def rate(it: Iteration, tag: str | None) -> float:
        return it.metrics.get("pass_rate" if tag is None else f"pass_rate[{tag}]", math.nan)

    def worst_first(tag: str) -> tuple[float, str]:
        now = rate(best, tag)
        return (now if math.isfinite(now) else math.inf, tag)

    def row(tag: str | None) -> View:
        cells = [rate(it.iteration, tag) for it in every]
        return {
            "tag": tag,
            "count": len(best.examples) if tag is None else counts.get(tag, 0),
            "cells": [
                {
                    "share": max(0.0, min(1.0, value)) if math.isfinite(value) else None,
                    "text": format_figure("pass_rate", value) if math.isfinite(value) else MISSING,
                    "is_best": it.is_best,
                }
                for it, value in zip(every, cells, strict=True)
            ],
        }

    return {
        "columns": [_column(it) for it in every],
        "rows": [row(None), *(row(tag) for tag in sorted(tags, key=worst_first))] if tags else [],
    }


def settings_view(every: Sequence[Shown]) -> View:
    """The settings that differ between iterations, with reasons; then all others that are set."""
    stated = [_stated(it.iteration) for it in every]
    names = list(dict.fromkeys(name for settings in stated for name in settings))
    moved = [name for name in names if len({settings.get(name) for settings in stated}) > 1]

    def cells(name: str) -> list[View]:
        values = [settings.get(name, MISSING) for settings in stated]
        pairs = zip([None, *values], values, strict=False)
        return [{"text": new, "changed": old is not None and new != old} for old, new in pairs]

    return {
        "columns": [_column(it) for it in every],
        "moved": [{"name": name, "cells": cells(name)} for name in moved],
        "same": [(name, stated[-1].get(name, MISSING)) for name in names if name not in moved],
        "reasons": [
            {
                "iteration": _column(it),
                "changes": [_adjustment(a) for a in it.iteration.adjustments],
            }
            for it in every
            if it.iteration.adjustments
        ],
        "environment": list(every[-1].iteration.environment.items()),
    }


def cost_view(report: LoopReport, every: Sequence[Shown]) -> View:
    """The cost of each iteration, of the seed runs, and the total."""
    own = [it.iteration.cost for it in every if not _is_outside(report, it)]
    seeds = [run.cost for run in report.seed_runs]
    rows = [(f"iteration {it.label}", it.iteration.cost) for it in every]
    rows += [(plural(len(seeds), "seed run"), _total(seeds))] if seeds else []
    rows += [("together", _total([*own, *seeds]))] if len(own) + len(seeds) > 1 else []
    memory = any(cost.device_memory_mib for _, cost in rows)
    return {
        "rows": [
            {
                "name": name,
                "seconds": duration_text(cost.seconds),
                "steps": f"{cost.steps:,}",
                "tokens": f"{cost.tokens:,}",
                "memory": f"{cost.device_memory_mib:,.0f} MiB",
                "is_total": name == "together",
            }
            for name, cost in rows
        ],
        "memory": memory,
    }


def _is_outside(report: LoopReport, it: Shown) -> bool:
    return all(it.iteration is not logged for logged in report.iterations)


def _with_previous(every: Sequence[Shown]) -> Iterable[tuple[Shown | None, Shown]]:
    return zip((None, *every), every, strict=False)


def _row(report: LoopReport, old: Shown | None, it: Shown, own: Sequence[str]) -> View:
    iteration, before = it.iteration, old.iteration.metrics if old else {}
    return {
        **_column(it),
        "name": iteration.name,
        "change": format_changes(iteration, report.iterations),
        "figures": [
            {
                "text": figure_text(name, iteration.metrics.get(name)),
                "change": _known(
                    difference_text(name, iteration.metrics.get(name), before.get(name))
                ),
                "tone": _tone(name, iteration.metrics.get(name), before.get(name)),
            }
            for name in (*FIGURES, *own)
        ],
        "decision": decision_text(iteration.decision),
        "because": iteration.decision.because,
        "in_chain": it.in_chain,
        "same_eval_set": it.same_eval_set,
    }


def _column(it: Shown) -> View:
    return {"label": it.label, "is_best": it.is_best, "is_baseline": it.is_baseline}


def _reference(report: LoopReport) -> tuple[Iteration | None, str]:
    """The iteration that the best one is compared with: the baseline, else the first one."""
    baseline, first = report.baseline, report.iterations[0]
    if baseline is not None and baseline.fingerprint != report.best.fingerprint:
        return baseline, "against the baseline"
    if first.fingerprint != report.best.fingerprint:
        return first, f"since iteration {first.number}"
    return None, ""


def _tone(name: str, new: float | None, old: float | None) -> str:
    if new is None or old is None or not math.isfinite(new - old) or new == old:
        return "plain"
    return "good" if is_better(name, new, old) else "bad"


def _unit(name: str, text: str) -> str:
    return f"{text} points" if is_rate(name) and text != MISSING else _known(text)


def _known(text: str) -> str:
    return "" if text == MISSING else text


def _change(change: Change) -> View:
    found = change.test.detectable
    return {
        "metric": change.metric,
        "baseline": format_figure(change.metric, change.baseline),
        "now": format_figure(change.metric, change.candidate),
        "change": change_text(change.metric, change.candidate - change.baseline),
        "p": "<.0001" if change.p < 1e-4 else f"{change.p:.2g}",
        "error": _amount(change, change.test.se),
        "found": _amount(change, found),
        "said": SAID[change.kind],
        "tone": {"improved": "good", "regressed": "bad", "inconclusive": "warn"}.get(
            change.kind, "plain"
        ),
        "decide": change.decide,
    }


def _amount(change: Change, amount: float) -> str:
    return amount_text(change.metric, amount) if math.isfinite(amount) else MISSING


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


def _next(decision: Decision) -> list[View]:
    """What is tried next; nothing where the thresholds hold and nothing better is expected."""
    return [] if decision.kind == "gates" else [_adjustment(each) for each in decision.next]


def _adjustment(adjustment: Any) -> View:
    before = "default" if adjustment.before is None else format_setting(adjustment.before)
    return {
        "setting": adjustment.setting,
        "before": before,
        "after": format_setting(adjustment.after),
        "because": adjustment.because,
    }


def _stated(iteration: Iteration) -> dict[str, str]:
    """Settings, scoring, model and data, by dotted name, as far as they are set."""
    groups: dict[str, Mapping[str, Any]] = {
        "training": iteration.settings.training,
        "lora": iteration.settings.lora,
        "scoring": iteration.scoring,
    }
    found = {
        f"{group}.{name}": format_setting(value)
        for group, values in groups.items()
        for name, value in values.items()
    }
    found["model"] = iteration.model
    for role, facts in iteration.data.items():
        rows, sha = facts.get("rows"), str(facts.get("sha256", ""))[:8]
        found[f"data.{role}"] = f"{rows} rows" + (f", {sha}" if sha else "")
    return found


def _tag_of(name: str) -> str | None:
    base, tag = split_name(name)
    return tag if base == "pass_rate" else None


def _total(costs: Sequence[Cost]) -> Cost:
    return Cost(
        seconds=math.fsum(cost.seconds for cost in costs),
        steps=sum(cost.steps for cost in costs),
        tokens=sum(cost.tokens for cost in costs),
        device_memory_mib=max((cost.device_memory_mib for cost in costs), default=0.0),
    )
