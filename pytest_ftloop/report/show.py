"""`ftloop show ITERATION`: one record of the improvement log in full."""

from __future__ import annotations

import itertools
import math
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.metrics import own_metrics, split_name
from pytest_ftloop.report.escape import columns_of, one_line, shorten, visible
from pytest_ftloop.report.layout import Column, paragraph, table
from pytest_ftloop.report.phrases import (
    decision_text,
    duration_text,
    figure_text,
    format_changes,
    format_setting,
    metric_names,
    plural,
)
from pytest_ftloop.report.text import WIDTH, failing_lines, finding_lines, next_lines

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from pytest_ftloop.core.records import Example, Iteration

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#@"
_NOT_FINITE = "!"
_LONGEST_CURVE = 60
_TAG_FIGURES = ("eval_loss", "pass_rate", "token_accuracy", "overfit_gap")


def show_iteration(
    iteration: Iteration,
    examples: Mapping[str, Example],
    width: int = WIDTH,
    *,
    unicode: bool = True,
    base: Iteration | None = None,
) -> str:
    """One iteration in full. The prompts come from `examples`, untrained figures from `base`.

    `unicode` False draws the curves in ASCII, for terminals that can't show Unicode.
    """
    is_trained = not iteration.is_untrained
    parts = (
        _title(iteration, width),
        _settings(iteration, width) if is_trained else [],
        _data(iteration, width),
        _metrics(iteration, width, base),
        _tags(iteration, width),
        _curves(iteration, width, unicode=unicode),
        _findings(iteration, width) if is_trained else [],
        failing_lines(iteration, iteration.examples, examples, len(iteration.failing), width),
        _decision(iteration, width) if is_trained else [],
        _environment(iteration, width),
        _cost(iteration, width) if is_trained else [],
    )
    return "\n\n".join("\n".join(part) for part in parts if part)


def curves_of(iteration: Iteration) -> dict[str, list[float]]:
    """An iteration's losses in the order of the steps, by the curve's name."""
    return {
        "train loss": [step.loss for step in iteration.steps],
        "eval loss": [point.eval_loss for point in iteration.evals],
    }


def curve_lines(
    curves: Mapping[str, Sequence[float]],
    width: int,
    *,
    unicode: bool = True,
    higher: Container[str] = (),
) -> list[str]:
    """One line per curve: drawn, with its first, last and lowest value. Empty ones are omitted.

    `higher` are the names of curves whose highest value is shown, as it is their best.
    """
    bars, lines = _BARS if unicode else _ASCII_BARS, []
    names = {name: one_line(name, max(width // 3, 11)) for name, values in curves.items() if values}
    label = max(map(columns_of, names.values()), default=0)
    for name, shown in names.items():
        values = curves[name]
        best = (
            f"highest {_loss(highest(values))}"
            if name in higher
            else f"lowest {_loss(lowest(values))}"
        )
        ends = f"{_loss(values[0])} -> {_loss(values[-1])}, {best}"
        size = max(min(width - len(ends) - label - 5, _LONGEST_CURVE), 1)
        drawn = sparkline(values, size, bars)
        padding = " " * (label - columns_of(shown))
        lines.append(shorten(f"  {shown}{padding} {drawn}  {ends}", width))
    return lines


def sparkline(values: Sequence[float], size: int, bars: str = _BARS) -> str:
    """Values as at most `size` bars, each the median of its share; `!` where one is not finite."""
    if not values:
        return ""
    size = min(size, len(values))
    edges = [len(values) * index // size for index in range(size + 1)]
    shares = [values[a:b] for a, b in itertools.pairwise(edges)]
    heights = [median(s) if all(map(math.isfinite, s)) else math.nan for s in shares]
    finite = [height for height in heights if math.isfinite(height)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_bar(height, low, high, bars) for height in heights)


def _bar(height: float, low: float, high: float, bars: str) -> str:
    if not math.isfinite(height):
        return _NOT_FINITE
    # Halved first: the difference of two huge losses could overflow.
    share = (height / 2 - low / 2) / (high / 2 - low / 2) if high > low else 0.5
    return bars[min(len(bars) - 1, int(share * len(bars)))]


def _title(iteration: Iteration, width: int) -> list[str]:
    name = f"iteration {visible(iteration.name)} of loop {visible(iteration.loop)}"
    parent = f", after {visible(iteration.parent)}" if iteration.parent else ""
    return [
        *paragraph(name + parent, width, "", "  "),
        *paragraph(format_changes(iteration), width, "  "),
        *paragraph(f"model: {visible(iteration.model)}", width, "  "),
    ]


def _settings(iteration: Iteration, width: int) -> list[str]:
    """The settings that are set; of those adjusted for this iteration, the old value and why."""
    changed = {adjustment.setting: adjustment for adjustment in iteration.adjustments}
    lines = ["settings (all others are defaults of peft and trl):"]
    for group in ("lora", "training"):
        for name, value in getattr(iteration.settings, group).items():
            text = f"{group}.{visible(name)} {format_setting(value)}"
            if adjustment := changed.get(f"{group}.{name}"):
                before = (
                    "default" if adjustment.before is None else format_setting(adjustment.before)
                )
                text += f"  (adjusted from {before}: {visible(adjustment.because)})"
            lines += paragraph(text, width, "  ", "    ")
    scoring = _pairs(iteration.scoring)
    return [shorten(lines[0], width), *lines[1:], *paragraph(f"scoring: {scoring}", width, "  ")]


def _data(iteration: Iteration, width: int) -> list[str]:
    lines = ["data:"]
    for role, facts in iteration.data.items():
        lines += paragraph(f"{visible(role)}: {_pairs(facts)}", width, "  ", "    ")
    return lines if len(lines) > 1 else []


def _metrics(iteration: Iteration, width: int, base: Iteration | None) -> list[str]:
    names = metric_names(iteration)

    def figures(of: Mapping[str, float]) -> list[str]:
        return [figure_text(name, of.get(name)) for name in names]

    untrained = base.metrics if base else iteration.base
    columns = [
        Column(("", "metric"), [f"  {name}" for name in names]),
        Column(("", "best point"), figures(iteration.metrics), right=True),
        Column(("", "last point"), figures(iteration.final), right=True, drop=1),
        Column(("", "untrained"), figures(untrained), right=True, drop=2),
    ]
    return table(columns, width)[1:] if names else []


def _tags(iteration: Iteration, width: int) -> list[str]:
    tags = sorted({tag for name in iteration.metrics if (tag := split_name(name)[1]) is not None})
    if not tags:
        return []
    counts = [sum(tag in row.tags for row in iteration.examples) for tag in tags]
    columns = [
        Column(("", "tag"), [f"  {one_line(tag, 40)}" for tag in tags], least=12),
        Column(
            ("", "examples"), [str(count) if any(counts) else "" for count in counts], right=True
        ),
    ]
    figures = (*_TAG_FIGURES[:2], *own_metrics([iteration.metrics]), *_TAG_FIGURES[2:])
    for drop, name in enumerate(figures):
        cells = [figure_text(name, iteration.metrics.get(f"{name}[{tag}]")) for tag in tags]
        columns.append(Column(("", name), cells, right=True, drop=drop))
    return table(columns, width)[1:]


def _curves(iteration: Iteration, width: int, *, unicode: bool) -> list[str]:
    lines = curve_lines(curves_of(iteration), width, unicode=unicode)
    best = iteration.facts.get("best_step")
    head = "curves" + (f" (best point: step {best})" if isinstance(best, int) else "") + ":"
    return [shorten(head, width), *lines] if lines else []


def _findings(iteration: Iteration, width: int) -> list[str]:
    decision = iteration.decision
    lines = [
        line
        for finding in iteration.findings
        for line in finding_lines(finding, width, decision=decision)
    ]
    return ["findings:", *lines] if lines else ["findings: none"]


def _decision(iteration: Iteration, width: int) -> list[str]:
    decision = iteration.decision
    because = f"; {visible(decision.because)}" if decision.because else ""
    text = f"decision: {decision_text(decision)}{because}"
    return [*paragraph(text, width, "", "  "), *next_lines(iteration, width)]


def _environment(iteration: Iteration, width: int) -> list[str]:
    return paragraph(f"environment: {_pairs(iteration.environment)}", width, "", "  ")


def _cost(iteration: Iteration, width: int) -> list[str]:
    cost = iteration.cost
    memory = f", {cost.device_memory_mib:.0f} MiB on the device" if cost.device_memory_mib else ""
    resumed = f"; interrupted, went on from step {cost.resumed_at}" if cost.resumed_at else ""
    text = f"cost: {duration_text(cost.seconds)}, {plural(cost.steps, 'step')}, "
    return paragraph(text + plural(cost.tokens, "token") + memory + resumed, width, "", "  ")


def _pairs(facts: Mapping[str, Any]) -> str:
    """`rows 400, sha256 aaaaaaaaaaaa`: a hash is cut to 12 digits."""
    return ", ".join(
        f"{visible(str(name))} {format_setting(value[:12] if _is_hash(value) else value)}"
        for name, value in facts.items()
    )


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) >= 40 and set(value) <= set("0123456789abcdef")


def _loss(value: float) -> str:
    return figure_text("eval_loss", value)


def highest(values: Sequence[float]) -> float:
    """The highest finite value; NaN if there is none."""
    return -lowest([-value for value in values])


def lowest(values: Sequence[float]) -> float:
    """The lowest finite value; NaN if there is none."""
    return min((value for value in values if math.isfinite(value)), default=math.nan)
