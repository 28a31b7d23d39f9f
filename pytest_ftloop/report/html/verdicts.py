"""The card of a loop: its state in one sentence, its verdicts with the figures behind them."""

from __future__ import annotations

import math
from typing import Any

from pytest_ftloop.core.metrics import format_figure, split_name
from pytest_ftloop.gate.breakage import breakage
from pytest_ftloop.gate.verdict import Change, Verdict, amount_text, change_text, seeds_text
from pytest_ftloop.report.html.loop_report import LoopReport
from pytest_ftloop.report.phrases import MISSING, broken_text, plural

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
    if report.unjudged:
        parts.append(_unjudged_text(report))
    return {"word": word, "tone": tone, "text": "; ".join(parts) or "no gates"}


def _unjudged_text(report: LoopReport) -> str:
    """That gates were not judged, which is not the same as that there are none."""
    count = len(report.unjudged)
    known = plural(count, "gate") if count > 1 else f"its gate {report.unjudged[0]}"
    return f"{known} {'were' if count > 1 else 'was'} not judged"


def _verdict_text(verdict: Verdict) -> str:
    compared = verdict.against and verdict.baseline
    return f"{verdict.kind} against {verdict.against}" if compared else verdict.kind


def _gates_text(failed: int, of: int) -> str:
    if of == 1:
        return "its threshold failed" if failed else "its threshold holds"
    return f"{failed} of {of} thresholds failed" if failed else f"{of} of {of} thresholds hold"


def verdict_view(name: str, verdict: Verdict, report: LoopReport) -> View:
    """A verdict and the figures behind it."""
    tags = [change for change in verdict.tags if change.kind != "unchanged"]
    rows = [*verdict.changes, *verdict.runs, *tags]
    return {
        "gate": name if report.is_gated else "comparison",
        "is_gated": report.is_gated,
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
        "broken": _broken_text(name, verdict, report),
        "notes": [*verdict.context, *verdict.notes],
    }


def _broken_text(name: str, verdict: Verdict, report: LoopReport) -> str:
    """`15 of 45 examples that passed now fail; all of them answer ...`, or that none is broken."""
    before, tag = report.baseline, split_name(name)[1]
    found = None if before is None else breakage(before, report.best, verdict.broken, tag)
    if found is None:
        return f"{len(verdict.broken)} broken"
    return broken_text(found.count, found.passed, found.alike, found.output)


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
        # Of a change that is proven nothing is left to decide.
        "decide": change.decide if change.kind == "inconclusive" else "",
    }


def _amount(change: Change, amount: float) -> str:
    return amount_text(change.metric, amount) if math.isfinite(amount) else MISSING
