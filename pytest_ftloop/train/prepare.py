"""TORCH: build the SFTTrainer of a task, and read from it the examples as trl tokenised them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.core.chat import Message
from pytest_ftloop.core.errors import ConfigError, DataError
from pytest_ftloop.core.records import Example, Settings, Wiring
from pytest_ftloop.data.identity import split_revision
from pytest_ftloop.evaluate.evaluator import ID_COLUMN, Choices, Evaluator, TokenRow
from pytest_ftloop.evaluate.rendering import like
from pytest_ftloop.train.arguments import lora_config
from pytest_ftloop.train.base import Loan
from pytest_ftloop.train.boundary import boundary
from pytest_ftloop.train.ranks import ranks_here
from pytest_ftloop.train.refused import check_head, check_steps, explain_build
from pytest_ftloop.train.rendered import check_answers
from pytest_ftloop.train.rows import dataset_of, examples_dataset
from pytest_ftloop.train.task import Guard, Task
from pytest_ftloop.train.tokenised import TokenisingOnce
from pytest_ftloop.train.warm import start_of, warm
from pytest_ftloop.train.wiring import renderer_of, wiring_of

GENERATION_BATCH = 32
"""Examples whose outputs are generated together. Where memory is short the batch is halved."""


@dataclass(frozen=True)
class Prepared:
    """The examples as trl tokenised them, so that evaluation uses the same tokens as training.

    `sample_examples` belong to the rows `train_sample`. `labelled_tokens` counts those of the train
    set, `dropped` the train examples that trl dropped. `guards` are the guards' rows by guard.
    """

    eval: tuple[TokenRow, ...]
    train_sample: tuple[TokenRow, ...]
    sample_examples: tuple[Example, ...]
    choices: Choices | None
    labelled_tokens: int
    dropped: int
    wiring: Wiring
    guards: Mapping[str, GuardRows]

    @classmethod
    def of(
        cls, trainer: SFTTrainer, task: Task, added_tokens: frozenset[int] = frozenset()
    ) -> Prepared:
        """Read the rows from the trainer. Raises `DataError` for eval examples that trl dropped.

        `added_tokens` are the ids of tokens that the base model has not seen.
        """
        rows = {
            role: tuple(
                TokenRow(row[ID_COLUMN], row["input_ids"], row["labels"]) for row in prepared
            )
            for role, prepared in trainer.eval_dataset.items()
        }
        check_answers(renderer_of(trainer), task)
        _check_vocabulary(trainer, task)
        for role_rows in rows.values():
            _check_context(role_rows, trainer, task)
        _all_there(rows["eval"], task.eval.examples, trainer.args)
        usable = _usable(rows["train_sample"])
        choices = None
        if task.scoring.scorer == "choice":
            choices = choices_of(task, rows["choices"])
            _all_there(choices.rows, choices.examples, trainer.args)
        train_rows = zip(
            trainer.train_dataset["input_ids"], trainer.train_dataset["labels"], strict=True
        )
        _check_context([TokenRow("", ids, labels) for ids, labels in train_rows], trainer, task)
        labels = trainer.train_dataset["labels"]
        wiring = wiring_of(trainer, task, added_tokens)
        return cls(
            eval=rows["eval"],
            train_sample=tuple(row for row in rows["train_sample"] if row.id in usable),
            # Examples that trl dropped were not trained on, so they are not measured either.
            sample_examples=tuple(e for e in task.train_sample if e.id in usable),
            choices=choices,
            # The first token of a row is never predicted.
            labelled_tokens=sum(sum(label != -100 for label in row[1:]) for row in labels),
            dropped=wiring.dropped,
            wiring=wiring,
            guards={
                guard.name: GuardRows.of(guard, task, rows, trainer.args) for guard in task.guards
            },
        )


@dataclass(frozen=True)
class GuardRows:
    """The tokenised rows of a guard, and the candidates if it is scored by choice."""

    rows: tuple[TokenRow, ...]
    choices: Choices | None = None

    @classmethod
    def of(
        cls, guard: Guard, task: Task, rows: Mapping[str, tuple[TokenRow, ...]], args: SFTConfig
    ) -> GuardRows:
        """The guard's rows among those of a trainer's eval sets, checked as the eval set's."""
        own = rows[guard.role]
        _all_there(own, guard.rows.examples, args)
        if not guard.is_choice:
            return cls(own)
        choices = choices_of(guard.within(task), rows[guard.role_of_choices])
        _all_there(choices.rows, choices.examples, args)
        return cls(own, choices)


def build_trainer(
    loan: Loan, args: SFTConfig, settings: Settings, task: Task, *, trains: bool = True
) -> SFTTrainer:
    """The SFTTrainer of a plain script. It also tokenises our eval sets, but never evaluates.

    One that `trains` goes on from the task's adapter, if the settings say so.
    """
    lora = lora_config(settings, task.locate)
    start = start_of(settings, task.start, task.locate) if trains else None
    if isinstance(lora.init_lora_weights, str) and lora.init_lora_weights != "gaussian":
        loan.keep_all()  # PiSSA, OLoRA and others take their start out of the base weights
    sets = {"eval": task.eval.examples, "train_sample": task.train_sample}
    if task.scoring.scorer == "choice":
        sets["choices"] = tuple(e for group in choice_examples(task).values() for e in group)
    for guard in task.guards:
        sets[guard.role] = guard.rows.examples
        if guard.is_choice:
            groups = choice_examples(guard.within(task)).values()
            sets[guard.role_of_choices] = tuple(e for group in groups for e in group)
    args.eval_packing = False  # each example is measured on its own
    id_, revision = split_revision(loan.loaded_from)
    if revision:
        args.model_init_kwargs = {**(args.model_init_kwargs or {}), "revision": revision}
    explain = functools.partial(
        explain_build, model=loan.model, tokenizer=loan.tokenizer, settings=settings, task=task
    )
    with boundary("building the trainer", settings, task.locate, explain=explain, kind=ConfigError):
        warmed = warm(loan.model, lora, start, task.locate) if start else None
        trainer = TokenisingOnce(
            tokenised=loan.tokenised,
            model=warmed or id_ or loan.model,
            args=args,
            train_dataset=_train_rows(task, args),
            eval_dataset={role: examples_dataset(examples) for role, examples in sets.items()},
            processing_class=loan.tokenizer,
            peft_config=None if warmed else lora,
        )
    if len(trainer.train_dataset) == 0:
        raise DataError(
            f"max_length {args.max_length} leaves no labelled token in any train example",
            where=task.locate("training.max_length") or task.locate("data.train"),
            cure="Raise training.max_length, or shorten the prompts.",
        )
    check_steps(trainer, task)
    check_head(trainer, settings, task)
    trainer.remove_callback(PrinterCallback)  # it would print every log entry
    if not args.report_to:
        # Only trackers show the count of operations, for which each step goes over all weights.
        trainer.floating_point_ops = lambda _: 0
    loan.keep_trainable()
    return trainer


def evaluator_of(trainer: SFTTrainer, settings: Settings) -> Evaluator:
    """What measures the trainer's model. Outputs are generated in larger batches, if none is set.

    A step of generation works on one token per example, which leaves most of the device idle.
    """
    batch = trainer.args.per_device_eval_batch_size
    is_stated = "per_device_eval_batch_size" in settings.training
    return Evaluator(
        trainer.model,
        trainer.processing_class,
        batch,
        trainer.accelerator.autocast,
        trainer.chat_template,
        generation_batch=batch if is_stated else max(batch, GENERATION_BATCH),
        ranks=ranks_here(is_sharded=trainer.is_fsdp_enabled),
    )


def _train_rows(task: Task, args: SFTConfig) -> datasets.Dataset:
    """The train rows with an id column, which trl ignores. Packing merges rows: then without."""
    if args.packing:
        return dataset_of(e.row for e in task.train.examples)
    return examples_dataset(task.train.examples)


def choice_examples(task: Task) -> dict[str, list[Example]]:
    """For each eval example, one copy per candidate, with it in place of the expected text."""
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


def choices_of(task: Task, rows: tuple[TokenRow, ...]) -> Choices:
    """The candidates of each eval example, of which trl made `rows`."""
    candidates = choice_examples(task)
    return Choices(
        tuple(e for group in candidates.values() for e in group),
        rows,
        {
            id_: tuple((e.id, (e.expected or "").strip()) for e in group)
            for id_, group in candidates.items()
        },
    )


def _completed(example: Example, text: str) -> dict[str, Any]:
    """The example's row with `text` as the answer."""
    row = dict(example.row)
    if "messages" in row:
        row["messages"] = [*row["messages"][:-1], _said(row["messages"][-1], text)]
    elif isinstance(row["completion"], str):
        row["completion"] = text
    else:
        row["completion"] = [_said(row["completion"][-1], text)]
    return row


def _said(message: Message, text: str) -> Message:
    """A message of the same role and form of content that says `text`."""
    return {"role": message["role"], "content": like(message.get("content"), text)}


def _check_vocabulary(trainer: SFTTrainer, task: Task) -> None:
    """Raise `DataError` for a row of tokens that the model does not have.

    Otherwise it would be an index error deep in torch.
    """
    # By the weights: peft's wrappers of embeddings have them, but not all have their size.
    size = trainer.model.get_input_embeddings().weight.shape[0]
    for example in (*task.train.examples, *task.eval.examples, *task.guarded):
        strange = [i for i in example.row.get("input_ids", ()) if not 0 <= i < size]
        if strange:
            raise DataError(
                f"input_ids has {strange[0]}, but the model's tokens are 0 to {size - 1}",
                where=example.where,
                cure="Tokenise the rows with this model's tokenizer.",
            )


def _check_context(rows: Sequence[TokenRow], trainer: SFTTrainer, task: Task) -> None:
    """Raise `DataError` for a row longer than the model's learned positions.

    Otherwise it would be an index error deep in torch.
    """
    room = _learned_positions(trainer.model)
    longest = max((len(row.input_ids) for row in rows), default=0)
    if room is not None and longest > room:
        row = next(row for row in rows if len(row.input_ids) == longest)
        all_ = (*task.guarded, *task.eval.examples, *task.train.examples)
        named = {e.id: e for e in all_}.get(row.id)
        raise DataError(
            f"an example has {longest} tokens, but the model takes at most {room}",
            where=named.where if named else task.locate("training.max_length"),
            cure=f"Set training.max_length: {room} or lower, or shorten the texts.",
        )


def _learned_positions(model: Any) -> int | None:
    """The number of positions with an embedding; None if the model computes positions."""
    room = getattr(model.config, "max_position_embeddings", None)
    sizes = {m.num_embeddings for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    return room if room in sizes else None


def _usable(rows: Sequence[TokenRow]) -> frozenset[str]:
    """Ids of the rows with a label to predict. The first token of a row is never predicted."""
    return frozenset(row.id for row in rows if any(label != -100 for label in row.labels[1:]))


def _all_there(rows: Sequence[TokenRow], examples: Sequence[Example], args: SFTConfig) -> None:
    """Raise `DataError` if trl dropped a row: a figure over fewer examples would be wrong."""
    usable = _usable(rows)
    missing = [e for e in examples if e.id not in usable]
    if missing:
        first = missing[0]
        raise DataError(
            f"{len(missing)} of {len(examples)} examples have no labelled token within max_length "
            f"{args.max_length}; the first is {first.id!r}",
            where=first.where,
            cure="Raise training.max_length, or shorten the prompt: such rows can't be measured.",
        )
