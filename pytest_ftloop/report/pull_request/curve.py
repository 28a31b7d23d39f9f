"""The loss curves of an iteration: thinned to evenly spaced points, and as a Mermaid chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.report.pull_request.model import Curve

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration

POINTS = 40
_HIGHEST = 1e5
_COLOURS = "#4e79a7, #e15759"
Points = Sequence[tuple[float, float]]


def curve_of(iteration: Iteration) -> Curve | None:
    """Train and eval loss over the steps. None if there are too few points, or the run diverged.

    The curve starts at the first evaluation, because the steep fall before it would flatten the
    rest. With a single evaluation it starts at the untrained base.
    """
    evals = _finite((point.step, point.eval_loss) for point in iteration.evals)
    if len(evals) == 1:
        evals = _finite([(0, iteration.base.get("eval_loss", math.nan)), *evals])
    train = _finite((step.step, step.loss) for step in iteration.steps)
    if len(evals) < 2 or not train:
        return None
    start, end = evals[0][0], max(evals[-1][0], train[-1][0])
    if start >= end:
        return None
    count = min(POINTS, max(len(train), len(evals)) + 1)
    steps = [start + (end - start) * index / (count - 1) for index in range(count)]
    return Curve(
        start=int(start),
        end=int(end),
        train=tuple(_mean_near(train, step, (end - start) / (count - 1)) for step in steps),
        evals=tuple(_between(evals, step) for step in steps),
    )


def mermaid(curve: Curve) -> list[str]:
    """The lines of the chart. They contain no text of users."""
    values = (*curve.train, *curve.evals)
    low, high = min(values), max(values)
    margin = (high - low) * 0.05 or 0.1
    palette = f'{{"xyChart": {{"plotColorPalette": "{_COLOURS}"}}}}'
    return [
        f'%%{{init: {{"themeVariables": {palette}}}}}%%',
        "xychart-beta",
        f'    x-axis "step" {curve.start} --> {curve.end}',
        f'    y-axis "loss" {_plain(low - margin)} --> {_plain(high + margin)}',
        f"    line [{', '.join(map(_plain, curve.train))}]",
        f"    line [{', '.join(map(_plain, curve.evals))}]",
    ]


def _finite(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points for the chart, by step. Diverged losses, which flatten all others, are omitted."""
    shown = {step: loss for step, loss in points if abs(loss) < _HIGHEST}
    return sorted(shown.items())


def _mean_near(points: Points, step: float, width: float) -> float:
    """The mean loss within half a width of a step: less noisy than a single batch."""
    near = [loss for at, loss in points if abs(at - step) <= width / 2]
    return math.fsum(near) / len(near) if near else _between(points, step)


def _between(points: Points, step: float) -> float:
    """The loss at a step, interpolated; beyond either end, the loss at that end."""
    before = [point for point in points if point[0] <= step]
    after = [point for point in points if point[0] >= step]
    if not before or not after:
        return (before or after)[-1 if before else 0][1]
    (x0, y0), (x1, y1) = before[-1], after[0]
    return y0 if x0 == x1 else y0 + (y1 - y0) * (step - x0) / (x1 - x0)


def _plain(value: float) -> str:
    """A number without an exponent, which Mermaid can't read."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
