"""TORCH: measure the untrained base, and the guards' rows, with the model in its present state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ftloop.core.records import BaseResults, DataSet, ExampleResult
from pytest_ftloop.evaluate.evaluator import (
    Choices,
    Evaluator,
    KeepOutputs,
    TokenRow,
    missing_outputs,
    score_choices,
    scored,
    unmeasured,
)
from pytest_ftloop.train.task import EVAL, Found, Missing, Task, ToMeasure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trl import SFTTrainer

    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.train.prepare import Prepared


def measured_base(
    trainer: SFTTrainer, evaluator: Evaluator, task: Task, prepared: Prepared, progress: Progress
) -> BaseResults:
    """The results of the untrained base: of the same model, with its adapter switched off.

    Leaves the model and all random states unchanged, so that a training after it is the same.
    """
    with trainer.model.disable_adapter():
        losses = evaluator.losses(prepared.eval, task.eval.examples, progress)
        examples = scored_eval(evaluator, losses, task, prepared.choices, progress)
        return BaseResults(examples, measured_guards(evaluator, task, prepared, progress))


def scored_eval(
    evaluator: Evaluator,
    losses: tuple[ExampleResult, ...],
    task: Task,
    choices: Choices | None,
    progress: Progress,
    answered: KeepOutputs = lambda _rows, _limit: None,
) -> tuple[ExampleResult, ...]:
    """The eval set's results with their scores; `losses` are the results before generation."""
    examples, scoring, scorer = task.eval.examples, task.scoring, task.scorer
    return scored(evaluator, losses, examples, scoring, scorer, choices, progress, answered)


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


def only_missing(task: Task, missing: ToMeasure) -> Task:
    """The task with those rows only that have to be tokenised, and the guards that have such.

    A set keeps one row at least: a trainer takes no empty one. A guard that is scored by choice
    keeps all, because its candidates are their answers.
    """

    def part(rows: DataSet, role: str, *, by_choice: bool = False) -> DataSet:
        ids = missing.ids(role, by_choice=by_choice) or {rows.examples[0].id}
        return replace(rows, examples=tuple(e for e in rows.examples if e.id in ids))

    return replace(
        task,
        eval=part(task.eval, EVAL, by_choice=task.scoring.scorer == "choice"),
        guards=tuple(
            guard if guard.is_choice else replace(guard, rows=part(guard.rows, guard.role))
            for guard in task.guards
        ),
    )


def found_of(
    evaluator: Evaluator,
    task: Task,
    prepared: Prepared,
    missing: Mapping[str, Missing],
    progress: Progress,
) -> dict[str, Found]:
    """What is missing of each role, with the model in its present state."""
    found: dict[str, Found] = {}
    if of_eval := missing.get(EVAL):
        found[EVAL] = _found(evaluator, task, prepared.eval, prepared.choices, of_eval, progress)
    for guard in task.guards:
        if of_guard := missing.get(guard.role):
            rows = prepared.guards[guard.name]
            own = guard.within(task)
            found[guard.role] = _found(evaluator, own, rows.rows, rows.choices, of_guard, progress)
    return found


def _found(
    evaluator: Evaluator,
    task: Task,
    rows: Sequence[TokenRow],
    choices: Choices | None,
    missing: Missing,
    progress: Progress,
) -> Found:
    by_id = {row.id: row for row in rows}
    wanted = [by_id[example.id] for example in missing.losses]
    losses = evaluator.losses(wanted, missing.losses, progress) if wanted else ()
    if not missing.answers:
        return Found(losses)
    if choices is not None:
        plain = [unmeasured(example) for example in missing.answers]
        return Found(losses, score_choices(evaluator, plain, missing.answers, choices, progress))
    answers, limit = missing_outputs(
        evaluator,
        task.eval.examples,
        missing.answers,
        task.scoring,
        missing.max_new_tokens,
        progress,
    )
    return Found(losses, answers, limit)
