"""All loops of the page in one table, compared where they were measured on one eval set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pytest_ftloop.core.metrics import is_rate
from pytest_ftloop.gate.ranking import Entry, rank
from pytest_ftloop.report.html.loop_report import LoopReport
from pytest_ftloop.report.html.verdicts import status_view
from pytest_ftloop.report.phrases import MISSING, duration_text, figure_text, plural
from pytest_ftloop.report.ranking import Row, notes_of, ordered, ranking_rows, title_of

View = dict[str, Any]

_TONES = {"leads": "good", "behind": "bad", "tied": "plain"}
_DIFFERING = ("train", "settings")
"""Columns that are left out where they say the same of all loops."""


def overview_view(loops: Sequence[LoopReport]) -> View:
    """The values of the table, the notes beneath it, and what its columns are."""
    entries = [_entry(report) for report in loops]
    places = {id(entry): place for place, entry in enumerate(entries)}
    rankings = rank(entries)
    standings = [s for ranking in ordered(rankings) for s in ranking.standings]
    rows = ranking_rows(rankings)
    scales = {metric: _scale(metric, rows) for metric in {row.metric for row in rows}}
    return {
        "title": title_of(rankings),
        "metric": rows[0].metric,
        "others": [n for n in ("eval_loss", "pass_rate") if any(row.metric != n for row in rows)],
        "differing": [n for n in _DIFFERING if len({getattr(row, n) for row in rows}) > 1],
        "has_base": any(row.untrained is not None for row in rows),
        "memory": any(row.device_memory_mib for row in rows),
        "rows": [
            _row(row, places[id(standing.entry)], loops, scales[row.metric])
            for row, standing in zip(rows, standings, strict=True)
        ],
        "notes": notes_of(rankings),
    }


def _entry(report: LoopReport) -> Entry:
    trained = tuple(it for it in report.iterations if not it.is_untrained)
    return Entry(
        loop=report.loop,
        best=report.best,
        iterations=trained,
        seed_runs=report.seed_runs,
        base=report.base,
        metric=report.metric,
    )


def _row(row: Row, place: int, loops: Sequence[LoopReport], scale: float) -> View:
    return {
        "id": f"loop-{place}",
        "loop": row.loop,
        "status": status_view(loops[place]),
        "base": row.base,
        "train": row.train,
        "settings": row.settings,
        "metric": row.metric,
        "untrained": _text(row.metric, row.untrained),
        "figure": _text(row.metric, row.figure),
        "share": _share(row.figure, scale),
        "base_share": _share(row.untrained, scale),
        "seeds": plural(row.seeds, "seed") if row.seeds > 1 else "",
        "said": row.said,
        "tone": _TONES.get(row.place, "plain"),
        "why": row.why,
        "eval_loss": _text("eval_loss", row.eval_loss),
        "pass_rate": _text("pass_rate", row.pass_rate),
        "iterations": sum(not it.is_untrained for it in loops[place].iterations),
        "time": duration_text(row.seconds),
        "in_all": duration_text(row.seconds_in_all),
        "memory": f"{row.device_memory_mib:,.0f} MiB" if row.device_memory_mib else MISSING,
    }


def _scale(metric: str, rows: Sequence[Row]) -> float:
    """What the longest bar stands for: 1 of a rate, else the highest figure of a trained loop."""
    if is_rate(metric):
        return 1.0
    known = [abs(row.figure) for row in rows if row.metric == metric and row.figure is not None]
    return max(known, default=1.0) or 1.0


def _share(value: float | None, scale: float) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return max(0.0, min(1.0, value / scale))


def _text(metric: str, value: float | None) -> str:
    return MISSING if value is None else figure_text(metric, value)
