"""The order of a loop's iterations: the chain from its start, the best of it, the worst rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import METRICS
from pytest_ftloop.core.records import Iteration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import ExampleResult, Iteration


def chain_from(iterations: Sequence[Iteration], fingerprint: str) -> tuple[Iteration, ...]:
    """The iterations that start from the one with this fingerprint: itself and its descendants.

    A parent comes before its children, else the lower number first. Where a merge brought the same
    iteration twice, the lower number stands for both.
    """
    waiting = sorted(iterations, key=lambda i: (i.number, i.id))
    following = next((i for i in waiting if i.fingerprint == fingerprint), None)
    chain: list[Iteration] = []
    ids: set[str] = set()
    while following is not None:
        chain.append(following)
        ids.add(following.id)
        waiting = [i for i in waiting if i.id not in ids]
        following = next((i for i in waiting if i.parent in ids), None)
    return tuple(chain)


def next_number(iterations: Iterable[Iteration]) -> int:
    """One more than the highest number in the log."""
    return max((i.number for i in iterations), default=0) + 1


def best_of(chain: Sequence[Iteration], metric: str) -> Iteration:
    """The best iteration by a metric, of equals that with the lower eval loss, then the first.

    Early pass rates are often all 0. A missing or NaN figure wins only over another.
    """
    return min(chain, key=lambda i: (_rank(i, metric), _rank(i, "eval_loss")))


def _rank(iteration: Iteration, metric: str) -> float:
    value = iteration.metrics.get(metric, math.nan)
    if math.isnan(value):
        return math.inf
    return value if METRICS[metric].better == "lower" else -value


def worst(examples: Sequence[ExampleResult]) -> tuple[ExampleResult, ...]:
    """The examples that did not pass, the highest loss per token first (NaN before all)."""
    failing = [row for row in examples if row.passed is False]

    def badness(row: ExampleResult) -> tuple[float, str]:
        return (-math.inf if math.isnan(row.mean_loss) else -row.mean_loss, row.id)

    return tuple(sorted(failing, key=badness))
