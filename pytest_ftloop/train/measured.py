"""TORCH: measure the untrained base, and the guards' rows, with the model in its present state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.core.records import BaseResults, ExampleResult
from pytest_ftloop.evaluate.evaluator import Evaluator, scored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trl import SFTTrainer

    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.train.prepare import Prepared
    from pytest_ftloop.train.task import Task


def measured_base(
    trainer: SFTTrainer, evaluator: Evaluator, task: Task, prepared: Prepared, progress: Progress
) -> BaseResults:
    """The results of the untrained base: of the same model, with its adapter switched off.

    Leaves the model and all random states unchanged, so that a training after it is the same.
    """
    with trainer.model.disable_adapter():
        losses = evaluator.losses(prepared.eval, task.eval.examples, progress)
        examples = scored(
            evaluator,
            losses,
            task.eval.examples,
            task.scoring,
            task.scorer,
            prepared.choices,
            progress,
        )
        return BaseResults(examples, measured_guards(evaluator, task, prepared, progress))


def measured_guards(
    evaluator: Evaluator, task: Task, prepared: Prepared, progress: Progress
) -> Mapping[str, tuple[ExampleResult, ...]]:
    """The results of each guard's rows, by guard; without a scoring they neither pass nor fail."""
    found: dict[str, tuple[ExampleResult, ...]] = {}
    for guard in task.guards:
        rows, examples = prepared.guards[guard.name], guard.rows.examples
        results = evaluator.losses(rows.rows, examples, progress)
        if guard.scoring is not None:
            results = scored(
                evaluator, results, examples, guard.scoring, guard.scorer, rows.choices, progress
            )
        found[guard.name] = results
    return found
