"""TORCH: one LoRA run, read like a script: base -> SFTConfig -> SFTTrainer -> train -> figures.

The training is the one that a plain SFTTrainer script with the same settings and seed runs; what is
added only watches it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Each trainer would try to report its start to the hub, from CI as well; a user's value stands.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import datasets
import peft
import torch
import transformers
import trl
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.arguments import Locate, lora_config, sft_config
from pytest_ftloop.base import Base, Loan, load_base, load_tokenizer
from pytest_ftloop.diagnose.watch import Watch
from pytest_ftloop.errors import ConfigError, DataError, TrainingError
from pytest_ftloop.evaluate import ID_COLUMN, Choices, Evaluator, TokenRow, scored
from pytest_ftloop.metrics import token_accuracy, token_mean_loss
from pytest_ftloop.progress import Progress
from pytest_ftloop.records import (
    Cost,
    DataSet,
    EvalPoint,
    Evaluation,
    Example,
    ExampleResult,
    Settings,
    StepLog,
    Training,
)
from pytest_ftloop.scorers import Scorer, Scoring
from pytest_ftloop.tiny import tiny_folder

if TYPE_CHECKING:
    from pytest_ftloop.config import LoopConfig
    from pytest_ftloop.loop import Inputs, Runner

MIN_EVAL_POINTS = 4
"""Evaluation points of a run that states no `eval_strategy`: one an epoch, but at least these."""


@dataclass(frozen=True)
class Task:
    """What every run of a loop shares.

    `train_sample` are the train examples whose loss is measured again in eval mode. `candidates`
    are the texts that the `choice` scorer chooses among, unless an example has its own.
    """

    train: DataSet
    eval: DataSet
    train_sample: tuple[Example, ...]
    scoring: Scoring
    scorer: Scorer | None = None
    candidates: tuple[str, ...] = ()
    locate: Locate = lambda _: None


@dataclass(frozen=True)
class Run:
    """What one run gave."""

    training: Training
    evaluation: Evaluation
    cost: Cost
    environment: Mapping[str, str]


def run_lora(
    base: Base,
    task: Task,
    settings: Settings,
    progress: Progress,
    *,
    adapter: Path | None = None,
    base_eval_loss: float | None = None,
) -> Run:
    """Train with `settings`, evaluate, save the best adapter to the folder `adapter`.

    `base_eval_loss` spares measuring the untrained base again. Raises `ConfigError` or `DataError`
    for settings or data that can't train, `TrainingError` when memory does not do for batch 1.
    """
    started = time.perf_counter()
    recorder = Recorder(task, settings, progress)
    with tempfile.TemporaryDirectory(prefix="ftloop-") as folder, quiet():
        attempt = Attempt(base, task, settings, folder, recorder, adapter, base_eval_loss)
        while (run := attempt.run(started)) is None:
            attempt = attempt.with_half_the_batch()
    return run


@dataclass
class Attempt:
    """One try at a run. It fails only for memory; the next goes on from its last checkpoint."""

    base: Base
    task: Task
    settings: Settings
    folder: str
    recorder: Recorder
    adapter: Path | None
    base_eval_loss: float | None
    recoveries: tuple[str, ...] = ()

    def run(self, started: float) -> Run | None:
        """The run, read like a script; None when the accelerator's memory did not do."""
        task, recorder, progress = self.task, self.recorder, self.recorder.progress
        progress.working("preparing")
        args = sft_config(self.settings, self.folder, task.locate)
        with self.base.lent() as loan:
            trainer = build_trainer(loan, args, self.settings, task)
            prepared = Prepared.of(trainer, task)
            evaluator = Evaluator(
                trainer.model,
                trainer.processing_class,
                args.per_device_eval_batch_size,
                trainer.accelerator.autocast,
            )
            eval_losses = recorder.watch_run(trainer, evaluator, prepared)
            if self.base_eval_loss is None:
                with trainer.model.disable_adapter():
                    self.base_eval_loss = token_mean_loss(eval_losses())

            first_weights = trainable_weights(trainer.model)
            if not self._train(trainer):
                return None
            if not recorder.evals or recorder.evals[-1].step != trainer.state.global_step:
                recorder.evaluate(trainer.model, trainer.state)

            sample = prepared.sample_examples
            last_sample = evaluator.losses(prepared.train_sample, sample, progress)
            adapter_moved = differ(first_weights, trainable_weights(trainer.model))
            if recorder.best_step not in (0, trainer.state.global_step):
                load_weights(trainer.model, recorder.best_weights)
                best_sample = evaluator.losses(prepared.train_sample, sample, progress)
            else:
                best_sample = last_sample
            examples = scored(
                evaluator,
                recorder.best,
                task.eval.examples,
                task.scoring,
                task.scorer,
                prepared.choices,
                progress,
            )
            if self.adapter is not None and recorder.best_step:
                trainer.model.save_pretrained(str(self.adapter))

            training = Training(
                steps=tuple(s for log in trainer.state.log_history if (s := step_log(log))),
                evals=tuple(recorder.evals),
                planned_steps=trainer.state.max_steps,
                best_step=recorder.best_step,
                steps_per_epoch=steps_per_epoch(trainer),
                trainable_parameters=sum(w.numel() for w in first_weights.values()),
                labelled_tokens=prepared.labelled_tokens,
                vocabulary=vocabulary_size(trainer.model),
                adapter_moved=adapter_moved,
                dropped_examples=prepared.dropped,
                ended_early=recorder.ended_early,
                recoveries=self.recoveries,
            )
            evaluation = Evaluation(examples, best_sample, last_sample, self.base_eval_loss)
            cost = Cost(
                seconds=time.perf_counter() - started,
                steps=trainer.state.global_step,
                tokens=int(trainer._total_train_tokens),
                device_memory_mib=peak_memory_mib(),
            )
        return Run(training, evaluation, cost, environment(args))

    def with_half_the_batch(self) -> Attempt:
        """The next try: half the batch, twice the accumulation, so the same examples a step."""
        args = sft_config(self.settings, self.folder, self.task.locate)
        batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
        if batch == 1:
            raise TrainingError(
                "out of memory with a batch of one example",
                where=self.task.locate("training"),
                cure="Lower training.max_length, or use a smaller model, lora.r or precision.",
            )
        # Only even halves keep the same examples in each optimiser step.
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
            (*self.recoveries, recovery),
        )

    def _train(self, trainer: SFTTrainer) -> bool:
        """Train to the end, from the recorder's checkpoint if it has one; False for no memory."""
        try:
            trainer.train(resume_from_checkpoint=self.recorder.checkpoint)
        except torch.OutOfMemoryError:
            return False  # what the traceback holds is freed when this returns
        return True


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Watches a run: evaluates at its points, keeps the best adapter, ends a hopeless run.

    A checkpoint is written at every evaluation point, from which an out-of-memory error is
    recovered: the trainer's own way to restore adapter, optimiser and random states.
    """

    def __init__(self, task: Task, settings: Settings, progress: Progress) -> None:
        self.task = task
        self.stated = settings.training
        self.progress = progress
        self.evals: list[EvalPoint] = []
        self.best: tuple[ExampleResult, ...] = ()
        self.best_step = 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.ended_early = ""
        self.checkpoint: str | None = None
        self.resume_step = 0

    def watch_run(
        self, trainer: SFTTrainer, evaluator: Evaluator, prepared: Prepared
    ) -> Callable[[], tuple[ExampleResult, ...]]:
        """Watch this trainer from now on; returns how the eval set is measured."""
        self.watch = Watch(vocabulary_size(trainer.model))
        self.steps_per_epoch = steps_per_epoch(trainer)
        self.measure = lambda: evaluator.losses(
            prepared.eval, self.task.eval.examples, self.progress
        )
        trainer.add_callback(self)
        return self.measure

    def on_train_begin(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Fix the evaluation points, now that the number of steps is known."""
        self.points = evaluation_points(self.stated, state.max_steps, self.steps_per_epoch)

    def on_step_end(
        self,
        args: SFTConfig,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Evaluate at the evaluation points; the last step's weights need no checkpoint."""
        if state.global_step in self.points:
            self.evaluate(model, state)
            control.should_save = control.should_save or state.global_step < state.max_steps

    def on_save(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember where to go on from."""
        self.checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.resume_step = state.global_step

    def on_log(
        self,
        args: SFTConfig,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: Any,
    ) -> None:
        """Look at every step's loss and gradient; end a run that is beyond hope."""
        step = step_log({**logs, "step": state.global_step})
        if step is None:
            return
        self.progress.step(step.step, state.max_steps, step.loss)
        self.ended_early = self.watch.see(step)
        if self.ended_early:
            control.should_training_stop = True

    def evaluate(self, model: torch.nn.Module, state: TrainerState) -> None:
        """One evaluation point; its results and weights are kept when it is the best so far."""
        results = self.measure()
        loss = token_mean_loss(results)
        best_loss = token_mean_loss(self.best) if self.best_step else math.inf
        self.evals.append(
            EvalPoint(state.global_step, float(state.epoch or 0.0), loss, token_accuracy(results))
        )
        if loss < best_loss:  # never true for a NaN
            self.best_step = state.global_step
            self.best_weights = trainable_weights(model)
            self.best = results
        elif not self.best_step:
            self.best = results

    def rewind(self) -> None:
        """Forget what lies after the step the next attempt goes on from."""
        self.evals = [point for point in self.evals if point.step <= self.resume_step]
        if self.best_step > self.resume_step:
            self.best_step, self.best, self.best_weights = 0, (), {}


@dataclass(frozen=True)
class Prepared:
    """The data as trl tokenised it: what is evaluated is what is trained on."""

    eval: tuple[TokenRow, ...]
    train_sample: tuple[TokenRow, ...]
    sample_examples: tuple[Example, ...]
    choices: Choices | None
    labelled_tokens: int
    dropped: int

    @classmethod
    def of(cls, trainer: SFTTrainer, task: Task) -> Prepared:
        """Read it off the trainer. A `DataError` for eval examples that trl dropped."""
        rows = {
            role: tuple(
                TokenRow(row[ID_COLUMN], row["input_ids"], row["labels"]) for row in prepared
            )
            for role, prepared in trainer.eval_dataset.items()
        }
        _all_there(rows["eval"], task.eval.examples, trainer.args)
        usable = _usable(rows["train_sample"])
        choices = None
        if task.scoring.scorer == "choice":
            candidates = choice_examples(task)
            choices = Choices(
                tuple(e for group in candidates.values() for e in group),
                rows["choices"],
                {
                    id_: tuple((e.id, (e.expected or "").strip()) for e in group)
                    for id_, group in candidates.items()
                },
            )
            _all_there(choices.rows, choices.examples, trainer.args)
        labels = trainer.train_dataset["labels"]
        packed = trainer.args.packing
        return cls(
            eval=rows["eval"],
            train_sample=tuple(row for row in rows["train_sample"] if row.id in usable),
            # What trl drops from the train set is not trained on, so not measured either.
            sample_examples=tuple(e for e in task.train_sample if e.id in usable),
            choices=choices,
            # The first token of a row is never predicted.
            labelled_tokens=sum(sum(label != -100 for label in row[1:]) for row in labels),
            dropped=0 if packed else len(task.train.examples) - len(trainer.train_dataset),
        )


def build_trainer(loan: Loan, args: SFTConfig, settings: Settings, task: Task) -> SFTTrainer:
    """The SFTTrainer of a plain script, which also prepares (but never evaluates) our eval sets."""
    lora = lora_config(settings, task.locate)
    if isinstance(lora.init_lora_weights, str) and lora.init_lora_weights != "gaussian":
        loan.keep_all()
    sets = {"eval": task.eval.examples, "train_sample": task.train_sample}
    if task.scoring.scorer == "choice":
        sets["choices"] = tuple(e for group in choice_examples(task).values() for e in group)
    args.eval_packing = False
    try:
        trainer = SFTTrainer(
            model=loan.model,
            args=args,
            train_dataset=datasets.Dataset.from_list([dict(e.row) for e in task.train.examples]),
            eval_dataset={
                role: datasets.Dataset.from_list([{**e.row, ID_COLUMN: e.id} for e in examples])
                for role, examples in sets.items()
            },
            processing_class=loan.tokenizer,
            peft_config=lora,
        )
    except (ValueError, TypeError, KeyError, RuntimeError, IndexError) as error:
        raise _refused(error, loan.model, settings, task) from error
    if len(trainer.train_dataset) == 0:
        raise DataError(
            f"no train example has a labelled token left within max_length {args.max_length}",
            where=task.locate("training.max_length") or task.locate("data.train"),
            cure="Raise training.max_length, or shorten the prompts.",
        )
    trainer.remove_callback(PrinterCallback)
    loan.keep_trainable()
    return trainer


def evaluation_points(
    stated: Mapping[str, Any], steps: int, steps_an_epoch: int
) -> frozenset[int]:
    """The steps after which the eval set is measured; the last step always is one.

    `eval_strategy` no, epoch and steps (with `eval_steps`, a ratio below 1) mean what they mean to
    a trainer; without it the points are spread evenly, one an epoch and at least four.
    """
    strategy = str(stated.get("eval_strategy", "auto"))
    if strategy == "no":
        return frozenset({steps})
    if strategy == "epoch":
        return frozenset({*range(steps_an_epoch, steps + 1, steps_an_epoch), steps})
    if strategy == "steps":
        every = float(stated.get("eval_steps") or stated.get("logging_steps") or 10)
        every = max(1, math.ceil(every * steps) if every < 1 else int(every))
        return frozenset({*range(every, steps + 1, every), steps})
    count = min(max(MIN_EVAL_POINTS, math.ceil(steps / max(steps_an_epoch, 1))), steps)
    return frozenset(round(steps * (i + 1) / count) for i in range(count))


def train_sample(train: DataSet, size: int) -> tuple[Example, ...]:
    """A sample of the train set, the same in every run: seeded, in the set's own order."""
    if size >= len(train.examples):
        return train.examples
    chosen = sorted(random.Random(0).sample(range(len(train.examples)), size))
    return tuple(train.examples[i] for i in chosen)


def choice_examples(task: Task) -> dict[str, list[Example]]:
    """For each eval example, itself once for each candidate, in place of its expected text."""
    groups: dict[str, list[Example]] = {}
    for example in task.eval.examples:
        expected = example.expected or ""
        lead = expected[: len(expected) - len(expected.lstrip())]
        texts = list(dict.fromkeys(c.strip() for c in example.choices or task.candidates))
        if expected.strip() not in texts:
            raise DataError(
                f"example {example.id!r} expects {expected.strip()!r}, which is not among its "
                f"choices ({', '.join(texts[:8])})",
                where=example.where,
                cure="Add it to scoring.choices, or to the example's own choices.",
            )
        groups[example.id] = [
            Example(f"{example.id}#{i}", "", _completed(example, lead + text), expected=text)
            for i, text in enumerate(texts)
        ]
    return groups


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the adapter on the CPU (it is small)."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put a copied adapter back."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def differ(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether any weight differs."""
    return any(not torch.equal(weight, other[name]) for name, weight in one.items())


def step_log(log: Mapping[str, Any]) -> StepLog | None:
    """A trainer's log entry as a step, if it is one."""
    if "loss" not in log or "learning_rate" not in log:
        return None
    norm = log.get("grad_norm")
    return StepLog(
        step=int(log["step"]),
        loss=float(log["loss"]),
        grad_norm=None if norm is None else float(norm),
        learning_rate=float(log["learning_rate"]),
    )


def steps_per_epoch(trainer: SFTTrainer) -> int:
    """Optimiser steps in one pass over the train set, counted as the trainer counts them.

    Computed, not asked of a data loader: making one could touch the random state.
    """
    args = trainer.args
    batches = len(trainer.train_dataset) / args.train_batch_size
    whole = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return max(1, math.ceil(whole / args.gradient_accumulation_steps))


def vocabulary_size(model: Any) -> int:
    """Rows of the output projection."""
    return int(model.get_output_embeddings().weight.shape[0])


def environment(args: SFTConfig) -> dict[str, str]:
    """Device, precision and versions: what can move a figure though no setting changed."""
    device = args.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "peft": peft.__version__,
    }


def peak_memory_mib() -> float:
    """The accelerator's peak since this was last asked, 0 on the CPU."""
    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress bars, hints and deprecation warnings off the screen."""
    verbosity = transformers.logging.get_verbosity()
    hf_bars = transformers.logging.is_progress_bar_enabled()
    data_bars = datasets.are_progress_bars_disabled()
    loggers = {name: logging.getLogger(name).level for name in ("trl", "peft", "accelerate")}
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


def _completed(example: Example, text: str) -> dict[str, Any]:
    """The example's row with `text` as what the assistant says."""
    row = dict(example.row)
    if "messages" in row:
        row["messages"] = [*row["messages"][:-1], {"role": "assistant", "content": text}]
    elif isinstance(row["completion"], str):
        row["completion"] = text
    else:
        row["completion"] = [{"role": "assistant", "content": text}]
    return row


def _usable(rows: Sequence[TokenRow]) -> frozenset[str]:
    """Ids of the rows with a label to predict; one in the first position alone never is."""
    return frozenset(row.id for row in rows if any(label != -100 for label in row.labels[1:]))


def _all_there(rows: Sequence[TokenRow], examples: Sequence[Example], args: SFTConfig) -> None:
    """trl drops rows whose labels are all cut off; a figure over fewer examples would be a lie."""
    usable = _usable(rows)
    missing = [e for e in examples if e.id not in usable]
    if missing:
        first = missing[0]
        raise DataError(
            f"{len(missing)} of {len(examples)} examples have no labelled token within max_length "
            f"{args.max_length}, the first is {first.id!r}",
            where=first.where,
            cure="Raise training.max_length, or shorten the prompt: such rows measure nothing.",
        )


def _refused(
    error: Exception, model: Any, settings: Settings, task: Task
) -> ConfigError | DataError:
    """What trl or peft raised while the trainer was built, in the user's words."""
    text = str(error).strip() or type(error).__name__
    if "arget modules" in text and "not found" in text:
        leaves = sorted(
            {
                name.rpartition(".")[2]
                for name, module in model.named_modules()
                if hasattr(module, "weight") and module.weight.dim() == 2 and "." in name
            }
        )
        return ConfigError(
            f"lora.target_modules {settings.lora.get('target_modules')!r} match no module of the "
            "model",
            where=task.locate("lora.target_modules") or task.locate("lora"),
            cure=f"This model has: {', '.join(leaves)}. Or use all-linear.",
        )
    if "DataParallel" in text:
        return ConfigError(
            "more than one GPU is visible to this one process",
            cure="Make one visible: CUDA_VISIBLE_DEVICES=0 pytest --ftloop",
        )
    return ConfigError(f"trl refuses these settings or data: {text}", where=task.locate("training"))


def runner(inputs: Inputs, config: LoopConfig, progress: Progress) -> Runner:
    """A runner for `loop.py`: the base model is loaded here, once, and lent to every run."""
    with quiet():
        sft_config(config.settings, tempfile.gettempdir(), config.locate)  # mistakes come first
        lora_config(config.settings, config.locate)
        base = _base(config, progress)
    expected = dict.fromkeys((e.expected or "").strip() for e in inputs.train.examples)
    task = Task(
        train=inputs.train,
        eval=inputs.eval,
        train_sample=train_sample(inputs.train, config.train_sample),
        scoring=config.scoring,
        scorer=inputs.scorer,
        candidates=config.scoring.choices or tuple(expected),
        locate=config.locate,
    )

    def run(settings: Settings, adapter: Path, base_eval_loss: float | None) -> Run:
        return run_lora(
            base, task, settings, progress, adapter=adapter, base_eval_loss=base_eval_loss
        )

    return run


def _base(config: LoopConfig, progress: Progress) -> Base:
    if not isinstance(config.model, str):
        tokenizer = config.tokenizer or load_tokenizer(config.model)
        return Base(config.model, tokenizer)
    name = config.model
    if name == "tiny":
        name = str(tiny_folder(progress))
    elif (config.folder / name).is_dir():
        name = str(config.folder / name)
    return load_base(name, config.settings.training, config.locate("model"), shown=config.model)
