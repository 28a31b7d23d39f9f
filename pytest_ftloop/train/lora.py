"""TORCH: one LoRA run, from the base model to its figures. `Attempt.run` reads like a script.

It trains exactly as a plain SFTTrainer script with the same settings and seed does; everything that
is added only observes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from trl import SFTTrainer

from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.core.labelled import is_labelled_only
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.ranks import ALONE, PROCESSES, are_on_one_machine
from pytest_ftloop.core.records import (
    BaseResults,
    Cost,
    Evaluation,
    ExampleResult,
    Run,
    Settings,
    Training,
)
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.diagnose.wiring import before_training
from pytest_ftloop.evaluate.decoding import check_decoding, decodings
from pytest_ftloop.evaluate.evaluator import rehearse
from pytest_ftloop.evaluate.labelled import labelled_alone
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.best_point import best_point
from pytest_ftloop.train.boundary import boundary
from pytest_ftloop.train.environment import environment, peak_memory_mib
from pytest_ftloop.train.garbage import spared
from pytest_ftloop.train.measured import measured_base, measured_guards, scored_eval
from pytest_ftloop.train.prepare import Prepared, build_trainer, evaluator_of
from pytest_ftloop.train.quiet import quiet
from pytest_ftloop.train.ranks import ranks_here
from pytest_ftloop.train.recorder import (
    Recorder,
    hidden_size,
    step_log,
    steps_per_epoch,
    vocabulary_size,
)
from pytest_ftloop.train.save import save_adapter
from pytest_ftloop.train.task import Task
from pytest_ftloop.train.trackers import Tracked, reported
from pytest_ftloop.train.unfinished import Unfinished
from pytest_ftloop.train.weights import differ, load_weights, trainable_weights

if TYPE_CHECKING:
    from pytest_ftloop.train.early_end import Pace


def run_lora(
    base: Base,
    task: Task,
    settings: Settings,
    progress: Progress,
    *,
    adapter: Path | None = None,
    base_eval_loss: float | None = None,
    tracked: Tracked | None = None,
    pace: Pace | None = None,
    metric: str = "eval_loss",
    keep: Callable[[Run], object] | None = None,
) -> Run:
    """Train with `settings`, evaluate, save the best adapter to the folder `adapter`.

    With `base_eval_loss` the untrained base is not measured again. `tracked` is the run's name at
    experiment trackers. A run that can no longer reach `pace` is ended early. The best point is
    chosen by `metric`. `keep` is called with the run before it is scored. Raises `ConfigError` or
    `DataError` for settings or data that can't be trained, `TrainingError` if memory does not
    suffice for a batch of one example.
    """
    started = time.perf_counter()
    with temporary_folder() as own, quiet(), spared():
        ranks = ranks_here()
        folder = ranks.of_first(lambda: own)  # a checkpoint has a part of each rank
        recorder = Recorder(task, settings, progress, pace, metric, ranks)
        # A point is kept by the first rank: ranks elsewhere would lack their random states.
        if adapter is not None and are_on_one_machine():
            here = environment(sft_config(settings, str(folder), task.locate), base.quantised_by)
            recorder.resume(Unfinished.of(adapter.name, settings, task, metric, here, started))
            started -= recorder.seconds_before
        attempt = Attempt(
            base, task, settings, str(folder), recorder, adapter, base_eval_loss, tracked
        )
        try:
            while (run := attempt.run(started, keep or (lambda _: None))) is None:
                attempt = attempt.with_half_the_batch()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"out of memory outside training: {str(error).splitlines()[0]}",
                where=task.locate("training"),
                cure="A single example does not fit into memory: use a smaller model or precision.",
            ) from None
        if recorder.unfinished is not None and ranks.is_first:
            recorder.unfinished.remove()
    return run


@dataclass
class Attempt:
    """One attempt at a run. If memory does not suffice, the next continues from its checkpoint."""

    base: Base
    task: Task
    settings: Settings
    folder: str
    recorder: Recorder
    adapter: Path | None
    base_eval_loss: float | None
    tracked: Tracked | None = None
    recoveries: tuple[str, ...] = ()
    untrained: BaseResults | None = None

    def run(self, started: float, keep: Callable[[Run], object]) -> Run | None:
        """Train and evaluate, from top to bottom. None if the accelerator ran out of memory."""
        task, recorder, progress = self.task, self.recorder, self.recorder.progress
        progress.working("preparing")
        args = sft_config(self.settings, self.folder, task.locate)
        ranks = recorder.ranks
        if not ranks.is_first:
            args.report_to = []
        where = task.locate("training.report_to")
        with (
            boundary("preparing the examples", self.settings, task.locate) as stage,
            self.base.lent() as loan,
            reported(args, self.tracked, where) as report,
        ):
            trainer = build_trainer(loan, args, self.settings, task)
            report.watch(trainer)
            prepared = Prepared.of(trainer, task, loan.added_tokens)
            task.found(before_training(prepared.wiring))
            evaluator = evaluator_of(trainer, self.settings)
            stage.is_now("generating and scoring", "scoring")
            check_decoding(task.scoring, task.locate("scoring.generation"))
            rehearse(
                evaluator, task.eval.examples, task.scorer, progress, decodings(task.scoring)[0]
            )
            stage.is_now("measuring the untrained base")
            recorder.watch_run(trainer, evaluator, prepared)
            if self.base_eval_loss is None:
                self.untrained = recorder.untrained = recorder.untrained or measured_base(
                    trainer, evaluator, task, prepared, progress
                )
                self.base_eval_loss = token_mean_loss(self.untrained.examples)
            trainer._total_train_tokens = recorder.tokens_before  # of the steps that are not made

            # A training that leaves them as they are is a wiring fault (`adapter_moved`).
            first_weights = trainable_weights(trainer.model)
            start_loss = token_mean_loss(recorder.measure()) if task.start else None
            stage.is_now("training")
            if not self._train(trainer):
                report.failed = True
                return None
            if trainer.state.global_step == 0:
                raise TrainingError("the training made no step", where=task.locate("training"))
            stage.is_now("measuring the trained adapter")
            # A run that was ended early has stopped between evaluation points.
            if not recorder.evals or recorder.evals[-1].step != trainer.state.global_step:
                recorder.evaluate(trainer.model, trainer.state)

            sample = prepared.sample_examples
            last_sample = evaluator.losses(prepared.train_sample, sample, progress)
            adapter_moved = differ(first_weights, trainable_weights(trainer.model))
            # An iteration's result is its best point, not its last one.
            if recorder.best_step not in (0, trainer.state.global_step):
                load_weights(trainer.model, recorder.best_weights)
                best_sample = evaluator.losses(prepared.train_sample, sample, progress)
            else:
                best_sample = last_sample
            # Without a finite eval loss there is no best point, and so no adapter worth saving.
            hash_, not_saved = "", ""
            if self.adapter is not None and recorder.best_step:
                hash_, not_saved = save_adapter(trainer, self.adapter, ranks)
            training = self._observed(trainer, prepared, adapter_moved, start_loss)
            measured = Evaluation(
                recorder.best,
                best_sample,
                last_sample,
                self.base_eval_loss,
                base=self.untrained,
            )
            here = environment(args, self.base.quantised_by)

            def run_of(evaluation: Evaluation, memory: float = 0.0) -> Run:
                cost = Cost(
                    seconds=time.perf_counter() - started,
                    steps=trainer.state.global_step,
                    tokens=int(trainer._total_train_tokens),
                    device_memory_mib=memory,
                    resumed_at=recorder.resumed_at,
                )
                return Run(training, evaluation, cost, here, hash_, not_saved)

            keep(run_of(measured))
            stage.is_now("generating and scoring", "scoring")
            limits = [0]

            def answered(rows: tuple[ExampleResult, ...], limit: int) -> None:
                limits.append(limit)
                keep(run_of(replace(measured, examples=rows, max_new_tokens=limit)))

            examples = scored_eval(
                evaluator, recorder.best, task, prepared.choices, progress, answered
            )
            stage.is_now("choosing the best point", "scoring")
            best = best_point(trainer.model, evaluator, recorder, prepared.choices, examples)
            training = replace(training, point_figures=best.figures)
            if best.step != recorder.best_step:
                training = replace(training, best_step=best.step)
                examples = best.examples
                best_sample = evaluator.losses(prepared.train_sample, sample, progress)
                measured = replace(measured, examples=best.results, train_examples=best_sample)
                if self.adapter is not None:
                    hash_, not_saved = save_adapter(trainer, self.adapter, ranks)
                keep(run_of(measured))
            guards = measured_guards(evaluator, task, prepared, progress)
            evaluation = replace(
                measured, examples=examples, guards=guards, max_new_tokens=limits[-1]
            )
            return run_of(evaluation, max(ranks.each(peak_memory_mib())))

    def _observed(
        self, trainer: SFTTrainer, prepared: Prepared, adapter_moved: bool, start_loss: float | None
    ) -> Training:
        """What was seen of a training that has ended."""
        recorder, weights = self.recorder, trainable_weights(trainer.model)
        return Training(
            steps=tuple(s for log in trainer.state.log_history if (s := step_log(log))),
            evals=tuple(recorder.evals),
            planned_steps=trainer.state.max_steps,
            best_step=recorder.best_step,
            steps_per_epoch=steps_per_epoch(trainer),
            trainable_parameters=sum(w.numel() for w in weights.values()),
            labelled_tokens=prepared.labelled_tokens,
            vocabulary=vocabulary_size(trainer.model),
            width=hidden_size(trainer.model),
            adapter_moved=adapter_moved,
            dropped_examples=prepared.dropped,
            ended_early=recorder.ended_early,
            recoveries=self.recoveries,
            wiring=prepared.wiring,
            trained=recorder.train_losses.courses(self.task.train.examples),
            noisy_forwards=recorder.train_losses.noisy_forwards,
            start_eval_loss=start_loss,
        )

    def with_half_the_batch(self) -> Attempt:
        """The next attempt: half the batch, twice the accumulation: the same examples per step."""
        args = sft_config(self.settings, self.folder, self.task.locate)
        batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
        if batch == 1:
            raise TrainingError(
                "out of memory with a batch of one example",
                where=self.task.locate("training"),
                cure="Lower training.max_length, or use a smaller model, lora.r or precision.",
            )
        # An odd batch has no halves with the same examples per optimiser step: use single examples.
        half, times = (batch // 2, 2) if batch % 2 == 0 else (1, batch)
        step = self.recorder.resume_step
        recovery = (
            f"out of memory: batch {batch} -> {half}, accumulation {accumulation} -> "
            f"{accumulation * times}, from step {step}"
        )
        settings = Settings(
            lora=self.settings.lora,
            training={
                **self.settings.training,
                "per_device_train_batch_size": half,
                "gradient_accumulation_steps": accumulation * times,
            },
        )
        self.recorder.rewind()
        return Attempt(
            self.base,
            self.task,
            settings,
            self.folder,
            self.recorder,
            self.adapter,
            self.base_eval_loss,
            self.tracked,
            (*self.recoveries, recovery),
            self.untrained,
        )

    def _train(self, trainer: SFTTrainer) -> bool:
        """Train to the end, from the recorder's checkpoint if any. False if memory ran out."""
        alone = labelled_alone if is_labelled_only(self.settings) else contextlib.nullcontext
        try:
            with alone(trainer.model):
                trainer.train(resume_from_checkpoint=self.recorder.checkpoint)
        except torch.OutOfMemoryError as error:
            if self.recorder.ranks is not ALONE:  # the others are in the middle of this step
                raise _too_large(self.task) from error
            return False  # not raised: a traceback would keep the tensors of the failed step alive
        return True


def _too_large(task: Task) -> TrainingError:
    """The error of a rank that has run out of memory, whose batch is not halved."""
    return TrainingError(
        "out of memory in one of several processes",
        where=task.locate("training.per_device_train_batch_size") or task.locate("training"),
        cure="Lower training.per_device_train_batch_size, and raise gradient_accumulation_steps as "
        f"much; with loop.{PROCESSES} that is not done by itself.",
    )
