"""TORCH: load an exported adapter or merged model as its user would, and measure it.

Nothing of the loop's own run is used: weights, tokenizer and chat template are those of the export.
The evaluation is the loop's, so that what differs is the export.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.records import ExampleResult, Settings
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.evaluate.evaluator import ID_COLUMN, Evaluator, TokenRow
from pytest_ftloop.train.arguments import device_and_precision
from pytest_ftloop.train.boundary import boundary
from pytest_ftloop.train.environment import device_name
from pytest_ftloop.train.measured import scored_eval
from pytest_ftloop.train.prepare import choice_examples, choices_of
from pytest_ftloop.train.quiet import quiet
from pytest_ftloop.train.rows import examples_dataset
from pytest_ftloop.train.task import Task

TOKENISING = (
    "max_length",
    "truncation_mode",
    "completion_only_loss",
    "assistant_only_loss",
    "dataset_text_field",
    "dataset_kwargs",
    "per_device_eval_batch_size",
)
"""The settings that decide which tokens of a row have a loss. Tokens and template that training set
(`eos_token`, `chat_template_path`) must come from the export."""


PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True)
class Loaded:
    """A model loaded from an export, and its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Measured:
    """The results of an exported model, in the order of the task's eval examples.

    `precision` is that of its weights (fp32, bf16, ...; `quantised` if some are), `device` the
    accelerator's name or `cpu`.
    """

    examples: tuple[ExampleResult, ...]
    precision: str
    device: str


def load_adapter(folder: Path, settings: Settings) -> Loaded:
    """The adapter of an export on the base that its config names, as the model card shows it.

    A base that training quantised is quantised in the same way.
    """
    trusted = bool(settings.training.get("trust_remote_code", False))
    stated = settings.training.get("model_init_kwargs") or {}
    quantised = {k: v for k, v in stated.items() if k == "quantization_config"}
    config = PeftConfig.from_pretrained(str(folder))
    base = AutoModelForCausalLM.from_pretrained(
        config.base_model_name_or_path,
        revision=config.revision,
        trust_remote_code=trusted,
        **quantised,
    )
    tokenizer = _tokenizer(folder, trusted)
    # Training added tokens: the adapter holds weights for them.
    if len(tokenizer) > base.get_input_embeddings().num_embeddings:
        base.resize_token_embeddings(len(tokenizer))
    return Loaded(PeftModel.from_pretrained(base, str(folder)), tokenizer)


def load_merged(folder: Path, settings: Settings) -> Loaded:
    """The merged model of an export."""
    trusted = bool(settings.training.get("trust_remote_code", False))
    model = AutoModelForCausalLM.from_pretrained(str(folder), trust_remote_code=trusted)
    return Loaded(model, _tokenizer(folder, trusted))


def load_afresh(
    folder: Path, settings: Settings, progress: Progress, *, merged: bool = False
) -> Loaded:
    """Load the adapter in `folder`, or the merged model. Raises `TrainingError` if it can't be."""
    with _doing(f"loading the {'merged model' if merged else 'adapter'}", settings, progress):
        return (load_merged if merged else load_adapter)(folder, settings)


def measure_afresh(
    exported: Loaded, settings: Settings, task: Task, progress: Progress
) -> Measured:
    """Measure an exported model on `task.eval`. Raises `TrainingError` if it can't be used."""
    with _doing("measuring the exported model", settings, progress):
        return _measured(exported, settings.training, task, progress)


@contextlib.contextmanager
def _doing(what: str, settings: Settings, progress: Progress) -> Iterator[None]:
    """Say what is being done, and name it in what a library raises."""
    progress.working(what)
    try:
        with quiet(), boundary(what, settings, lambda _: None):
            yield
    except torch.OutOfMemoryError:
        raise TrainingError(f"out of memory while {what}") from None
    finally:
        progress.done()


def _tokenizer(folder: Path, trusted: bool) -> PreTrainedTokenizerBase:
    # Without its files transformers takes one from elsewhere, or makes one that knows no text.
    if not (folder / "tokenizer_config.json").is_file():
        raise TrainingError("the tokenizer is missing: there is no tokenizer_config.json")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trusted)
    if not tokenizer("a").input_ids:
        raise TrainingError("the tokenizer is missing: it has no vocabulary")
    return tokenizer


def _measured(
    exported: Loaded, training: Mapping[str, Any], task: Task, progress: Progress
) -> Measured:
    precision = precision_of(exported.model)
    with temporary_folder() as folder:
        trainer = _tokenising(exported, training, task, str(folder))
        rows, choices = _rows(trainer.train_dataset), None
        _check_all_there(rows, task)
        if trainer.eval_dataset is not None:
            choices = choices_of(task, _rows(trainer.eval_dataset))
        evaluator = Evaluator(
            trainer.model,
            trainer.processing_class,
            trainer.args.per_device_eval_batch_size,
            contextlib.nullcontext,
            trainer.chat_template,
        )
        losses = evaluator.losses(rows, task.eval.examples, progress)
        results = scored_eval(evaluator, losses, task, choices, progress)
        return Measured(results, precision, device_name(trainer.args.device))


def _tokenising(
    exported: Loaded, training: Mapping[str, Any], task: Task, folder: str
) -> SFTTrainer:
    """An SFTTrainer that never trains: it tokenises the rows, and moves the model to its device.

    Its train rows are the eval examples, its eval rows the candidates of the scorer `choice`.
    """
    stated = {name: training[name] for name in TOKENISING if name in training}
    device = {"use_cpu": True} if training.get("use_cpu") else device_and_precision({})
    args = SFTConfig(
        output_dir=folder,
        report_to="none",
        **stated,
        **device | {"bf16": False, "fp16": False, "gradient_checkpointing": False},
    )
    candidates = None
    if task.scoring.scorer == "choice":
        groups = choice_examples(task).values()
        candidates = examples_dataset(e for group in groups for e in group)
    return SFTTrainer(
        model=exported.model,
        args=args,
        train_dataset=examples_dataset(task.eval.examples),
        eval_dataset=candidates,
        processing_class=exported.tokenizer,
    )


def _rows(prepared: Any) -> tuple[TokenRow, ...]:
    return tuple(TokenRow(row[ID_COLUMN], row["input_ids"], row["labels"]) for row in prepared)


def _check_all_there(rows: tuple[TokenRow, ...], task: Task) -> None:
    """Raise `TrainingError` if trl dropped a row that it kept in training."""
    there = {row.id for row in rows}
    missing = [e.id for e in task.eval.examples if e.id not in there]
    if missing:
        raise TrainingError(
            f"{len(missing)} examples have no labelled token: the first is {missing[0]!r}"
        )


def precision_of(model: torch.nn.Module) -> str:
    """The type that most weights are stored in: fp32, bf16, fp16; or `quantised`."""
    counts: Counter[torch.dtype] = Counter()
    for parameter in model.parameters():
        counts[parameter.dtype] += parameter.numel()
    (dtype, _), *_ = counts.most_common(1)
    return PRECISIONS.get(dtype, "quantised")
