"""The loss curves of an iteration: its evaluation points, and a Mermaid chart of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pytest_ftloop.report.pull_request.model import Curve

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration

FEWEST = 3
"""Evaluation points of a chart: a line through two would say how the loss went between them."""

UNEVEN = 0.1
"""By how much of a gap the next may differ: epochs of an odd number of steps differ by one."""

POINTS = 40
_HIGHEST = 1e5
_COLOURS = "#4e79a7, #e15759"
Points = Sequence[tuple[float, float]]


def curve_of(iteration: Iteration) -> Curve | None:
    """Train and eval loss at the evaluation points; None if there are too few, or the run diverged.

    Every value was measured: the eval loss at the point, the train loss as the mean of what was
    logged since the point before. A Mermaid chart spaces its values evenly, and draws no dots: so
    the points must be evenly spaced, and of fewer than `FEWEST` none is drawn.
    """
    evals = _even(_finite((point.step, point.eval_loss) for point in iteration.evals))
    train = _finite((step.step, step.loss) for step in iteration.steps)
    if len(evals) < FEWEST:
        return None
    before = (2 * evals[0][0] - evals[1][0], *(step for step, _ in evals))
    logged = [[loss for at, loss in train if start < at <= end] for start, end in pairwise(before)]
    if not all(logged):
        return None
    return Curve(
        start=int(evals[0][0]),
        end=int(evals[-1][0]),
        train=tuple(math.fsum(losses) / len(losses) for losses in logged),
        evals=tuple(loss for _, loss in evals),
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


def _even(points: Points) -> Points:
    """The evenly spaced points from the first on, every n-th of very many; empty if most are not.

    The last point of a run is often nearer to the one before.
    """
    if len(points) < FEWEST:
        return []
    gap = points[1][0] - points[0][0]
    even = list(points[:1])
    for point in points[1:]:
        if abs(point[0] - even[-1][0] - gap) > UNEVEN * gap:
            break
        even.append(point)
    if len(even) < len(points) - 1:
        return []
    return even[:: math.ceil(len(even) / POINTS)]


def _plain(value: float) -> str:
    """A number without an exponent, which Mermaid can't read."""
    return f"{value:.4f}".rstrip("0").rstrip(".")
