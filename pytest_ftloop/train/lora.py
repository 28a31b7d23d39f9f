"""TORCH: one LoRA run, from the base model to its figures. `Attempt.run` reads like a script.

It trains exactly as a plain SFTTrainer script with the same settings and seed does; everything that
is added only observes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

# Otherwise every trainer reports its start to the hub, from CI too. Set before the hub's library is
# imported, which reads it then. A user's own value is kept.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import datasets
import peft
import torch
import transformers
import trl
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Progress, ToldOnce
from pytest_ftloop.core.records import (
    BaseMeasured,
    BaseResults,
    Cost,
    DataSet,
    Evaluation,
    ExampleResult,
    Run,
    Settings,
    Training,
)
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.data.identity import model_path
from pytest_ftloop.diagnose.wiring import before_training
from pytest_ftloop.evaluate.decoding import check_decoding, decodings
from pytest_ftloop.evaluate.evaluator import Evaluator, rehearse
from pytest_ftloop.train.arguments import check_policy, lora_config, sft_config, with_paths
from pytest_ftloop.train.base import Base, live_base, load_base
from pytest_ftloop.train.best_point import best_point
from pytest_ftloop.train.boundary import Stage, boundary
from pytest_ftloop.train.garbage import spared
from pytest_ftloop.train.measured import (
    found_of,
    measured_base,
    measured_guards,
    only_missing,
    scored_eval,
)
from pytest_ftloop.train.prepare import Prepared, build_trainer, evaluator_of
from pytest_ftloop.train.quantised import quantised_by, versions
from pytest_ftloop.train.recorder import (
    Recorder,
    differ,
    hidden_size,
    load_weights,
    step_log,
    steps_per_epoch,
    trainable_weights,
    vocabulary_size,
)
from pytest_ftloop.train.save import save_adapter
from pytest_ftloop.train.task import FoundAll, Task, ToMeasure
from pytest_ftloop.train.tiny import tiny_folder
from pytest_ftloop.train.tokenizer import beside
from pytest_ftloop.train.trackers import Tracked, reported, settings_to_report
from pytest_ftloop.train.unfinished import Unfinished
from pytest_ftloop.train.warm import check_shape

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.train.early_end import Pace


NOISY = ("trl", "bitsandbytes", "peft", "accelerate", "huggingface_hub", "httpx", "httpx2")
"""Loggers that print hints and retries. Nothing is lost without them: errors are raised as well."""


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
    recorder = Recorder(task, settings, progress, pace, metric)
    with temporary_folder() as folder, quiet(), spared():
        if adapter is not None:
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
        if recorder.unfinished is not None:
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
                self.untrained = recorder.untrained or measured_base(
                    trainer, evaluator, task, prepared, progress
                )
                recorder.untrained = self.untrained
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
                hash_, not_saved = save_adapter(trainer, self.adapter)
            training = Training(
                steps=tuple(s for log in trainer.state.log_history if (s := step_log(log))),
                evals=tuple(recorder.evals),
                planned_steps=trainer.state.max_steps,
                best_step=recorder.best_step,
                steps_per_epoch=steps_per_epoch(trainer),
                trainable_parameters=sum(w.numel() for w in first_weights.values()),
                labelled_tokens=prepared.labelled_tokens,
                vocabulary=vocabulary_size(trainer.model),
                width=hidden_size(trainer.model),
                adapter_moved=adapter_moved,
                dropped_examples=prepared.dropped,
                ended_early=recorder.ended_early,
                recoveries=self.recoveries,
                wiring=prepared.wiring,
                trained=recorder.train_losses.courses(task.train.examples),
                noisy_forwards=recorder.train_losses.noisy_forwards,
                start_eval_loss=start_loss,
            )
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
                    hash_, not_saved = save_adapter(trainer, self.adapter)
                keep(run_of(measured))
            guards = measured_guards(evaluator, task, prepared, progress)
            evaluation = replace(
                measured, examples=examples, guards=guards, max_new_tokens=limits[-1]
            )
            return run_of(evaluation, peak_memory_mib())

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
        try:
            trainer.train(resume_from_checkpoint=self.recorder.checkpoint)
        except torch.OutOfMemoryError:
            return False  # not raised: a traceback would keep the tensors of the failed step alive
        return True


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


def environment(args: SFTConfig, quantised_by: str = "") -> dict[str, str]:
    """Device, precision and versions: what can change a figure although no setting changed.

    `quantised_by` is the package that quantises the base (`quantised_by`).
    """
    return {
        "device": device_name(args.device),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "peft": peft.__version__,
        **versions(quantised_by, args.optim),
    }


def device_name(device: torch.device) -> str:
    """The accelerator's name, or its kind (`cpu`)."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory_mib() -> float:
    """The accelerator's peak memory since the last call, in MiB; 0 on the CPU."""
    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' progress bars, hints and deprecation warnings."""
    verbosity = transformers.logging.get_verbosity()
    hf_bars = transformers.logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    loggers = {name: logging.getLogger(name).level for name in NOISY}
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if hf_bars:
            transformers.logging.enable_progress_bar()
        if not data_bars:
            datasets.enable_progress_bars()
        for name, level in loggers.items():
            logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class LoraTrainer:
    """A loop's base model, loaded once and lent to each run of the loop's task."""

    base: Base
    task: Task
    config: LoopConfig
    progress: Progress

    @classmethod
    def loaded(cls, config: LoopConfig, task: Task, progress: Progress) -> LoraTrainer:
        """Check the loop's settings, then load its base model."""
        with quiet():
            # Before the model, which can take minutes to load, so that a typo is reported at once.
            sft_config(config.settings, tempfile.gettempdir(), config.locate)
            lora_config(config.settings, config.locate)
            check_policy(config.loop.policy, config.settings, config.locate)
            _check_start(config, task)
            base = base_of(config, progress)
        task = replace(task, found=ToldOnce(config.name, progress).found)
        return cls(base, task, config, progress)

    def train(
        self,
        settings: Settings,
        *,
        name: str,
        adapter: Path | None = None,
        base_eval_loss: float | None = None,
        pace: Pace | None = None,
        metric: str = "eval_loss",
        keep: Callable[[Run], object] | None = None,
    ) -> Run:
        """Train one run, called `name` at experiment trackers. See `run_lora`."""
        return run_lora(
            self.base,
            self.task,
            with_paths(settings_to_report(settings, self.config), self.config.folder),
            self.progress,
            adapter=adapter,
            base_eval_loss=base_eval_loss,
            tracked=Tracked.of(self.config, name),
            pace=pace,
            metric=metric,
            keep=keep,
        )

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """Evaluate the untrained base. See `measure_base`."""
        stated = with_paths(settings, self.config.folder)
        return measure_base(self.base, self.task, stated, self.progress)

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        """Evaluate a saved adapter on these examples. See `measure`."""
        task = replace(self.task, eval=examples)
        stated = with_paths(settings, self.config.folder)
        return measure(self.base, task, stated, adapter, self.progress)

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """Measure what is missing. See `measure_missing`."""
        stated = with_paths(settings, self.config.folder)
        return measure_missing(self.base, self.task, stated, adapter, missing, self.progress)


def _check_start(config: LoopConfig, task: Task) -> None:
    """Check the adapter that the loop goes on from, if it is here, against settings and model."""
    if task.start is not None and task.start.folder is not None:
        start = task.start
        lora = lora_config(config.settings, config.locate)
        base = config.model if isinstance(config.model, str) else ""
        check_shape(lora, start, base, config.locate)


def base_of(config: LoopConfig, progress: Progress) -> Base:
    """Load a loop's base model, or take the live one of a loop made in Python."""
    if not isinstance(config.model, str):
        return replace(live_base(config.model, config.tokenizer), quantised_by=quantised_by(config))
    name = config.model
    if name == "tiny":
        name = str(tiny_folder(progress))
    elif (path := model_path(name, config.folder)).is_dir():
        name = str(path)
    section = config.tokenizer
    if section is not None and section.name:
        section = section.model_copy(update={"name": beside(section.name, config.folder)})
    base = load_base(name, config.settings.training, config.locate, config.model, section)
    return replace(base, quantised_by=quantised_by(config))
