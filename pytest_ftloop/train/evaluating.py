"""TORCH: measure a saved adapter, or the untrained base, without training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import peft
from trl import SFTTrainer

from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.records import BaseMeasured, ExampleResult, Settings
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.boundary import Stage, boundary
from pytest_ftloop.train.environment import environment
from pytest_ftloop.train.garbage import spared
from pytest_ftloop.train.measured import found_of, measured_base, only_missing, scored_eval
from pytest_ftloop.train.prepare import Prepared, build_trainer, evaluator_of
from pytest_ftloop.train.quiet import quiet
from pytest_ftloop.train.task import FoundAll, Task, ToMeasure


def measure(
    base: Base, task: Task, settings: Settings, adapter: Path, progress: Progress
) -> tuple[ExampleResult, ...]:
    """Evaluate the adapter saved in the folder `adapter` on `task.eval`, without training."""
    with untrained(base, task, settings) as (trainer, prepared, evaluator, stage):
        load_adapter(trainer, adapter)
        losses = evaluator.losses(prepared.eval, task.eval.examples, progress)
        stage.is_now("generating and scoring", "scoring")
        return scored_eval(evaluator, losses, task, prepared.choices, progress)


def measure_missing(
    base: Base,
    task: Task,
    settings: Settings,
    adapter: Path,
    missing: ToMeasure,
    progress: Progress,
) -> FoundAll:
    """Measure what is missing with the adapter saved in the folder `adapter`, and with the base.

    Outputs are generated and not scored.
    """
    part = only_missing(task, missing)
    with untrained(base, part, settings) as (trainer, prepared, evaluator, stage):
        stage.is_now("measuring and generating", "scoring")
        with trainer.model.disable_adapter():
            of_base = found_of(evaluator, task, prepared, missing.base, progress)
        load_adapter(trainer, adapter)
        trained = found_of(evaluator, task, prepared, missing.trained, progress)
    return FoundAll(trained, of_base)


@contextlib.contextmanager
def untrained(
    base: Base, task: Task, settings: Settings
) -> Iterator[tuple[SFTTrainer, Prepared, Evaluator, Stage]]:
    """A trainer, its rows and an evaluator, as before the first step; nothing is trained with it.

    The trainer is built as for training, so that the examples are prepared in the same way.
    """
    with temporary_folder() as folder, quiet(), spared():
        args = sft_config(settings, str(folder), task.locate)
        args._n_gpu = (
            1  # of several devices the first measures, where a training would have to choose
        )
        args.report_to = []  # nothing is trained, so no run may appear at the trackers
        doing = "measuring the saved adapter"
        with boundary(doing, settings, task.locate, "model") as stage, base.lent() as loan:
            trainer = build_trainer(loan, args, settings, task, trains=False)
            evaluator = evaluator_of(trainer, settings)
            yield trainer, Prepared.of(trainer, task), evaluator, stage


def load_adapter(trainer: SFTTrainer, adapter: Path) -> None:
    """Give a trainer's model the weights of a saved adapter."""
    weights = peft.load_peft_weights(str(adapter), device=str(trainer.model.device))
    peft.set_peft_model_state_dict(trainer.model, weights)


def measure_base(base: Base, task: Task, settings: Settings, progress: Progress) -> BaseMeasured:
    """Evaluate the untrained base, without training. Settings decide how rows become tokens."""
    with untrained(base, task, settings) as (trainer, prepared, evaluator, stage):
        stage.is_now("measuring the untrained base", "scoring")
        results = measured_base(trainer, evaluator, task, prepared, progress)
        return BaseMeasured(results, environment(trainer.args, base.quantised_by))
