"""How every report writes single values. All functions return visible text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.metrics import METRICS, format_figure, is_rate, number_text
from pytest_ftloop.core.records import NOTHING_DECIDED
from pytest_ftloop.report.escape import one_line, quoted

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Adjustment, Decision, Iteration, Settings

MISSING = "-"
"""Shown where a record has no such figure."""

TERMS: Mapping[str, str] = {
    "difference": "from the row above",
    "gap": "eval - train loss",
    "p": "chance of so large a change where nothing changed",
    "error": "standard error of the change",
    "detectable": "change for the worse found in 4 of 5 cases; smaller ones are found less often",
    "seeds": "the same training with other random numbers; their figures are averaged",
    "inconclusive": "could be worse, but chance is not ruled out",
}
"""The terms of the reports in a few words: the same in terminal, HTML and comment."""

_LONGEST_SETTING = 60

_TEXTS = frozenset({"expected", "output"})
"""Evidence that is a text of an example: unquoted, an output such as "wrong" reads as a verdict."""
_STOPS: Mapping[str, str] = {
    "gates": "thresholds hold",
    "plateau": "plateau",
    "iterations": "iterations used up",
    "time": "time used up",
    "fault": "fault",
    "exhausted": "nothing left to try",
}


def metric_names(iteration: Iteration) -> list[str]:
    """The names of an iteration's metrics of all its examples: `METRICS`, then its own."""
    own = (name for name in iteration.metrics if name not in METRICS and "[" not in name)
    return [*(name for name in METRICS if name in iteration.metrics), *own]


def format_setting(value: Any) -> str:
    """A setting's value as people write it: `2e-4`, `0.05`, `true`, `all-linear`, `["q", "v"]`."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, (Mapping, list, tuple)):
        value = json.dumps(value, default=str, ensure_ascii=False)
    return one_line(str(value), _LONGEST_SETTING)


def format_change(adjustment: Adjustment) -> str:
    """`learning_rate 2e-4 -> 1e-3`, or `default -> 1e-3` where the setting was not set before."""
    before = "default" if adjustment.before is None else format_setting(adjustment.before)
    return f"{short_name(adjustment.setting)} {before} -> {format_setting(adjustment.after)}"


def format_changes(iteration: Iteration, chain: Sequence[Iteration] = ()) -> str:
    """What led to an iteration: its adjustments, or the settings that it started with.

    The parent's number is added where the parent is not the previous iteration of the chain.
    """
    if iteration.is_untrained:
        return "untrained base"
    if iteration.parent is None and not iteration.adjustments:
        return _start_text(iteration, chain)
    changes = ", ".join(map(format_change, iteration.adjustments)) or "same settings"
    # A parent is given by its id or its name, which ends in the id; names are slow to make.
    id_ = (iteration.parent or "").rpartition("-")[2]
    parent = next((old.number for old in reversed(chain) if old.id == id_), None)
    before = max((old.number for old in chain if old.number < iteration.number), default=parent)
    return changes if parent in (None, before) else f"{changes} (from {parent})"


def _start_text(iteration: Iteration, chain: Sequence[Iteration]) -> str:
    """The settings of a start; what else it has than the start before it, if that is data only."""
    earlier = (
        old
        for old in chain
        if old.number < iteration.number and old.parent is None and not old.is_untrained
    )
    old = max(earlier, key=lambda it: it.number, default=None)
    text = format_start(iteration.settings)
    other = [] if old is None else _other_data(old, iteration)
    if old is None or not other:
        return text
    changed = f"other {' and '.join(other)} data than {old.number}"
    return (
        f"same settings, {changed}" if old.settings == iteration.settings else f"{text}; {changed}"
    )


def _other_data(old: Iteration, new: Iteration) -> list[str]:
    """The roles whose rows differ."""
    return [
        role
        for role in ("train", "eval")
        if old.data.get(role, {}).get("sha256") != new.data.get(role, {}).get("sha256")
    ]


def format_start(settings: Settings) -> str:
    """`start: lr 2e-4, r 8, 1 epoch`: the most important settings, if they are set."""
    rate, rank = settings.get("training.learning_rate"), settings.get("lora.r")
    epochs, steps = settings.get("training.num_train_epochs"), settings.get("training.max_steps")
    limited = isinstance(steps, (int, float)) and steps > 0  # trl's default, -1, means no limit
    parts = [
        "" if rate is None else f"lr {format_setting(rate)}",
        "" if rank is None else f"r {format_setting(rank)}",
        _counted(steps, "step") if limited else _counted(epochs, "epoch"),
    ]
    return "start: " + (", ".join(filter(None, parts)) or "default settings")


def short_name(setting: str) -> str:
    """A setting's name without its group: `learning_rate` for `training.learning_rate`."""
    return one_line(setting.partition(".")[2] or setting, _LONGEST_SETTING)


def figure_text(name: str, value: float | None) -> str:
    """A figure, in the format of its metric; huge ones (a diverged perplexity) as `1e+30`."""
    if value is None:
        return MISSING
    if not is_rate(name) and math.isfinite(value) and abs(value) >= 1e6:
        return f"{value:.3g}"
    return format_figure(name, value)


def difference_text(name: str, new: float | None, old: float | None) -> str:
    """The signed difference of two figures: in points for a rate, else with four decimals."""
    if new is None or old is None:
        return MISSING
    difference = new - old
    if not math.isfinite(difference):
        return MISSING
    if is_rate(name):
        return f"{round(100 * difference, 1) + 0.0:+.1f}"
    if abs(difference) >= 1e6:
        return f"{difference:+.3g}"
    return f"{round(difference, 4) + 0.0:+.4f}"


def distance_text(name: str, one: float, other: float) -> str:
    """The distance of two figures: `16.9 points`, `0.1234`, or `less than 0.0001`, never zero."""
    text = difference_text(name, max(one, other), min(one, other)).lstrip("+")
    tiny = one != other and not text.strip("0.")
    text = f"less than {text[:-1]}1" if tiny else text
    return f"{text} points" if is_rate(name) else text


def broken_text(count: int, passed: int, alike: int = 0, output: str = "") -> str:
    """`45 of 48 examples that passed now fail; all of them answer "wrong"`."""
    fail = "fails" if count == 1 else "fail"
    text = f"{count} of {plural(passed, 'example')} that passed now {fail}"
    if not alike:
        return text
    who = "all" if alike == count else str(alike)
    return f"{text}; {who} of them answer {quoted(output, _LONGEST_SETTING)}"


def decision_text(decision: Decision) -> str:
    """`adjust`, or `stop: thresholds hold`."""
    if decision.action == "adjust":
        return "adjust"
    if decision.kind == NOTHING_DECIDED:
        return ""
    kind = _STOPS.get(decision.kind) or one_line(decision.kind, _LONGEST_SETTING)
    return f"stop: {kind}" if kind else "stop"


def evidence_text(evidence: Mapping[str, float | int | str]) -> str:
    """`eval_lowest 1.234, best_step 40`."""
    return ", ".join(f"{one_line(str(k), 40)} {_evidence(k, v)}" for k, v in evidence.items())


def duration_text(seconds: float) -> str:
    """`42.3 s`, `3 min 12 s`, `1 h 02 min`."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: int, noun: str) -> str:
    """`1 iteration`, `2 iterations`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _counted(value: Any, noun: str) -> str:
    if value is None:
        return ""
    return f"{format_setting(value)} {noun}{'' if value == 1 else 's'}"


def _evidence(name: str, value: float | int | str) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return quoted(str(value), 200) if name in _TEXTS else one_line(str(value), 200)
