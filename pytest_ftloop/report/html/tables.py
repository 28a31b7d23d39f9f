"""The tables of a loop: its iterations, pass rates by tag, settings, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_ftloop.core.metrics import format_figure, split_name
from pytest_ftloop.core.records import Adjustment, Cost, Iteration
from pytest_ftloop.gate.verdict import is_better
from pytest_ftloop.report.html.loop_report import LoopReport, Shown
from pytest_ftloop.report.phrases import (
    MISSING,
    decision_text,
    difference_text,
    duration_text,
    figure_text,
    format_changes,
    format_setting,
    plural,
)

View = dict[str, Any]

_SHORT = {
    "train_loss": "train loss",
    "eval_loss": "eval loss",
    "overfit_gap": "gap",
    "pass_rate": "pass rate",
    "token_accuracy": "accuracy",
}
FIGURES = ("train_loss", "eval_loss", "overfit_gap", "pass_rate", "token_accuracy")


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
                "changes": [adjustment_view(a) for a in it.iteration.adjustments],
            }
            for it in every
            if it.iteration.adjustments
        ],
        "environment": list(every[-1].iteration.environment.items()),
    }


def cost_view(report: LoopReport, every: Sequence[Shown]) -> View:
    """The cost of each iteration, of the seed runs, and the total."""
    own = [it.iteration.cost for it in every if not it.is_outside]
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


def iterations_view(report: LoopReport, every: Sequence[Shown], own: Sequence[str]) -> list[View]:
    """A row per iteration, with the differences from the row above.

    A baseline that is not in the log has none, and nothing is compared with it: it is of another
    commit, and the differences from it are in the verdict.
    """
    inside = [it for it in every if not it.is_outside]
    before = dict(zip(map(id, inside), (None, *inside), strict=False))
    return [_row(report, before.get(id(it)), it, own) for it in every]


def _row(report: LoopReport, old: Shown | None, it: Shown, own: Sequence[str]) -> View:
    iteration, before = it.iteration, old.iteration.metrics if old else {}
    return {
        **_column(it),
        "name": iteration.name,
        "change": format_changes(iteration, report.iterations),
        "figures": [
            {
                "name": _SHORT.get(name, name),
                "text": figure_text(name, iteration.metrics.get(name)),
                "change": known(
                    difference_text(name, iteration.metrics.get(name), before.get(name))
                ),
                "tone": tone_of(name, iteration.metrics.get(name), before.get(name)),
            }
            for name in (*FIGURES, *own)
        ],
        "decision": decision_text(iteration.decision),
        "because": iteration.decision.because,
        "in_chain": it.in_chain,
        "is_outside": it.is_outside,
        "same_eval_set": it.same_eval_set,
    }


def _column(it: Shown) -> View:
    return {"label": it.label, "is_best": it.is_best, "is_baseline": it.is_baseline}


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


def known(text: str) -> str:
    """The text; empty where there is no figure."""
    return "" if text == MISSING else text


def tone_of(name: str, new: float | None, old: float | None) -> str:
    """The colour of a change: good, bad, or plain where nothing is known to have moved."""
    if new is None or old is None or not math.isfinite(new - old) or new == old:
        return "plain"
    return "good" if is_better(name, new, old) else "bad"


def adjustment_view(adjustment: Adjustment) -> View:
    """A setting before and after, and the reason."""
    before = "default" if adjustment.before is None else format_setting(adjustment.before)
    return {
        "setting": adjustment.setting,
        "before": before,
        "after": format_setting(adjustment.after),
        "because": adjustment.because,
    }
