"""TORCH: check what trl made of the train rows: what is learned, what was cut, where answers start.

Every row of the train sample is compared with the row that it would be without `max_length`. The
labels are those that the collator passes to the model, not those that the settings should give.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasets
from jinja2 import TemplateError
from trl import SFTTrainer

from pytest_ftloop.config.scoring import needs_generation
from pytest_ftloop.core.records import Example, Wiring
from pytest_ftloop.evaluate.evaluator import ID_COLUMN, TokenRow
from pytest_ftloop.evaluate.labelled import UNLABELLED
from pytest_ftloop.evaluate.rendering import Renderer, alike
from pytest_ftloop.train.rows import examples_dataset

if TYPE_CHECKING:
    from pytest_ftloop.train.task import Task


def wiring_of(
    trainer: SFTTrainer, task: Task, added_tokens: frozenset[int] = frozenset()
) -> Wiring:
    """The wiring of a trainer that was built for a task. Trains nothing, draws no random number.

    `added_tokens` are the ids of tokens that the base model has not seen.
    """
    trained = {row.id: row for row in _token_rows(trainer.eval_dataset["train_sample"])}
    whole = trained | _uncut(trainer, task.train_sample, trained)
    if trainer.args.packing and trainer.args.packing_strategy != "bfd":
        trained = whole  # such packing does not cut: a long row continues in the next pack
    ends = _end_ids(trainer)
    seen = [_see(trainer, e, trained.get(e.id), whole[e.id], ends) for e in task.train_sample]
    tokens, layers = _untrained(trainer, trained.values(), added_tokens)
    return Wiring(
        examples=len(task.train.examples),
        dropped=(
            0 if trainer.args.packing else len(task.train.examples) - len(trainer.train_dataset)
        ),
        sampled=len(seen),
        generates=needs_generation(task.scoring),
        ended=sum(row.ended for row in seen),
        masked_ends=sum(row.masked_end for row in seen),
        cut=sum(row.cut for row in seen),
        lost_ends=sum(row.lost_end for row in seen),
        labels=sum(row.labels for row in seen),
        lost_labels=sum(row.lost_labels for row in seen),
        prompt_labels=sum(row.prompt_labels for row in seen),
        split_prompts=sum(row.split_prompt for row in seen),
        max_length=trainer.args.max_length,
        untrained_tokens=tokens,
        untrained_layers=layers,
    )


@dataclass(frozen=True)
class _Seen:
    """The wiring of one example; the fields are counted in `Wiring`. `labels` counts uncut ones."""

    ended: bool
    masked_end: bool
    cut: bool
    lost_end: bool
    labels: int
    lost_labels: int
    prompt_labels: int
    split_prompt: bool


def _see(
    trainer: SFTTrainer,
    example: Example,
    trained: TokenRow | None,
    whole: TokenRow,
    ends: frozenset[int],
) -> _Seen:
    # `prepared` are the labels that trl made; `learned` are those that the collator leaves.
    learned = _learned(trainer, trained) if trained else []
    prepared = [label for label in trained.labels[1:] if label != UNLABELLED] if trained else []
    answers, split = _answers(trainer, example, whole)
    # The first token of a row is never predicted.
    labelled = [i for i, label in enumerate(whole.labels) if i and label != UNLABELLED]
    outside = [i for i in labelled if not any(start <= i < end for start, end in answers)]
    has_end = any(whole.labels[i] in ends for i in labelled)
    return _Seen(
        ended=any(label in ends for label in learned),
        masked_end=any(label in ends for label in prepared)
        and not any(label in ends for label in learned),
        cut=trained is None or len(whole.input_ids) > len(trained.input_ids),
        lost_end=has_end and not any(label in ends for label in prepared),
        labels=len(labelled),
        lost_labels=len(labelled) - len(prepared),
        prompt_labels=len(outside) if answers else 0,
        split_prompt=split,
    )


def renderer_of(trainer: SFTTrainer) -> Renderer:
    """Renders rows as the trainer does."""
    return Renderer(trainer.processing_class, trainer.chat_template)


def _token_rows(prepared: datasets.Dataset) -> list[TokenRow]:
    return [TokenRow(row[ID_COLUMN], row["input_ids"], row["labels"]) for row in prepared]


def _untrained(
    trainer: SFTTrainer, rows: Collection[TokenRow], added: frozenset[int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The added tokens in the rows without trained weights, and the layers that hold these.

    What the model reads needs an embedding, what it is to write a row of the output layer too.
    """
    model = trainer.model
    layers = (
        (model.get_input_embeddings(), {id_ for row in rows for id_ in row.input_ids} & added),
        (model.get_output_embeddings(), {id_ for row in rows for id_ in row.labels} & added),
    )
    untrained = [
        (layer, ids)
        for layer, ids in layers
        if ids and not any(weights.requires_grad for weights in layer.parameters())
    ]
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    ids = sorted(set().union(*(ids for _, ids in untrained)))
    return (
        tuple(trainer.processing_class.convert_ids_to_tokens(ids)),
        tuple(names[id(layer)] for layer, _ in untrained),
    )


def _uncut(
    trainer: SFTTrainer, sample: Sequence[Example], trained: Mapping[str, TokenRow]
) -> dict[str, TokenRow]:
    """The rows that may have been cut or dropped, prepared again without `max_length`."""
    limit = trainer.args.max_length
    short = {id_ for id_, row in trained.items() if limit is None or len(row.input_ids) < limit}
    doubtful = [e for e in sample if e.id not in short]
    if not doubtful:
        return {}
    args = copy.copy(trainer.args)
    args.max_length = None
    prepared = trainer._prepare_dataset(
        examples_dataset(doubtful),
        trainer.processing_class,
        args,
        packing=False,
        formatting_func=None,
        dataset_name="train_sample",
    )
    return {row.id: row for row in _token_rows(prepared)}


def _learned(trainer: SFTTrainer, row: TokenRow) -> list[int]:
    """The labels of a row that reach the model if it is padded to a longer row."""
    # Padded, because a collator may mask every pad token, which can also be the end token.
    longer = {"input_ids": [*row.input_ids, 0], "labels": [*row.labels, 0]}
    batch = trainer.data_collator([{"input_ids": row.input_ids, "labels": row.labels}, longer])
    labels = batch["labels"].flatten()[1 : len(row.labels)]
    return [label for label in labels.tolist() if label != UNLABELLED]


def _end_ids(trainer: SFTTrainer) -> frozenset[int]:
    """The tokens that end generation in `Evaluator`."""
    ends = trainer.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return frozenset({*ends, trainer.processing_class.eos_token_id} - {None})


def _answers(
    trainer: SFTTrainer, example: Example, whole: TokenRow
) -> tuple[list[tuple[int, int]], bool]:
    """The start and end of each answer in a row, in tokens; and whether the last prompt is split.

    A prompt is split if the row does not begin with the tokens that the prompt has at inference.
    There are no answers for plain text, nor for messages that the template refuses to render in
    part.
    """
    found, split = [], False
    try:
        for before, after in _turns(renderer_of(trainer), example):
            start = alike(before, whole.input_ids)
            end = len(whole.input_ids) if after is None else alike(after, whole.input_ids)
            found.append((start, end))
            split = start < len(before)
    except TemplateError:
        return [], False
    return found, split


def _turns(renderer: Renderer, example: Example) -> list[tuple[list[int], list[int] | None]]:
    """For each answer, the tokens before it and those up to its end (None: the end of the row)."""
    row = example.row
    if "messages" not in row:
        return [(renderer.prompt(example), None)] if "prompt" in row else []
    messages = row["messages"]
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [
        (
            renderer.tokens(row, messages[:i], add_generation_prompt=True) if i else [],
            renderer.tokens(row, messages[: i + 1]) if i + 1 < len(messages) else None,
        )
        for i in turns
    ]
