"""TORCH: choose the best evaluation point of a run by what its outputs give.

That is the pass rate, a score, or a metric of the whole set.

It is done after the training, which is the same to the bit whatever its points are chosen by. Each
point costs a generation over the eval set, so that at most `recorder.MOST_CANDIDATES` are compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.metrics import eval_metrics, figure_of, token_mean_loss
from pytest_ftloop.evaluate.evaluator import Choices, Evaluator
from pytest_ftloop.train.measured import scored_eval
from pytest_ftloop.train.recorder import Candidate, Recorder
from pytest_ftloop.train.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ftloop.core.records import ExampleResult
    from pytest_ftloop.core.set_metrics import SetMetric


@dataclass(frozen=True)
class BestPoint:
    """The best point: its step, its results before and after scoring, and the figure of each.

    `figures` are (step, figure) in order; empty where the eval loss decides.
    """

    step: int
    results: tuple[ExampleResult, ...]
    examples: tuple[ExampleResult, ...]
    figures: tuple[tuple[int, float], ...] = ()


def best_point(
    model: Any,
    evaluator: Evaluator,
    recorder: Recorder,
    choices: Choices | None,
    examples: tuple[ExampleResult, ...],
) -> BestPoint:
    """The best of a run's points by the recorder's metric; of equal ones that of the lower loss.

    `examples` are the scored results of the point with the lowest loss, whose weights the model
    has; after the call it has those of the best point.
    """
    task, metric = recorder.task, recorder.metric
    lowest = BestPoint(recorder.best_step, recorder.best, examples)
    others = {s: c for s, c in recorder.candidates.items() if s != recorder.best_step}
    if not others or not recorder.best_step or metric == "eval_loss":
        return lowest
    found = {recorder.best_step: examples}
    for number, (step, candidate) in enumerate(others.items(), start=1):
        recorder.progress.working("scoring the evaluation points", number, len(others))
        load_weights(model, candidate.weights)
        found[step] = scored_eval(evaluator, candidate.results, task, choices, recorder.progress)
    figures = {step: figure(rows, metric, task.set_metrics) for step, rows in found.items()}
    losses = {step: token_mean_loss(rows) for step, rows in found.items()}
    best = min(found, key=lambda step: (-figures[step], losses[step], step))
    chosen = others.get(best) or Candidate(0.0, recorder.best, recorder.best_weights)
    load_weights(model, chosen.weights)
    return BestPoint(best, chosen.results, found[best], tuple(sorted(figures.items())))


def figure(
    rows: Sequence[ExampleResult], metric: str, set_metrics: Mapping[str, SetMetric]
) -> float:
    """A metric of scored results, as the log would have it; minus infinity where it is missing."""
    value = figure_of(eval_metrics(rows, {}, set_metrics), metric)
    return value if math.isfinite(value) else -math.inf
