"""Check that the chat template takes each row, and renders the answer that it should teach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.core.chat import Message, answers
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.rendering import Renderer

if TYPE_CHECKING:
    from pytest_ftloop.train.task import Task


def check_templates(renderer: Renderer, examples: Sequence[Example]) -> None:
    """Raise `DataError` for the first row that the chat template refuses."""
    if renderer.tokenizer.chat_template is None:
        return  # no row's fault
    for example in examples:
        if answers(example.row):
            renderer.answer(example)


def check_answers(renderer: Renderer, task: Task) -> None:
    """Raise `DataError` for a row whose answer the chat template leaves out.

    All rows of the eval set and of the train sample are rendered; of the others those whose answer
    is more than a text, which every template renders.
    """
    unusual = [e for e in task.train.examples if any(map(_is_unusual, answers(e.row)))]
    for example in {e.id: e for e in (*unusual, *task.train_sample)}.values():
        _check_answer(renderer, example)
    for example in task.eval.examples:
        _check_answer(renderer, example)


def _is_unusual(answer: Message) -> bool:
    return not isinstance(answer.get("content"), str) or bool(answer.get("tool_calls"))


def _check_answer(renderer: Renderer, example: Example) -> None:
    missing = renderer.missing(example)
    if not missing:
        return
    parts = missing == "text" and not isinstance(answers(example.row)[-1]["content"], str)
    raise DataError(
        f"the chat template renders nothing of the {missing} that example {example.id!r} expects",
        where=example.where,
        cure=(
            "It takes no list of parts: give the content as one text."
            if parts
            else f"Take a model whose template knows {missing} in answers, or set "
            "training.chat_template_path."
        ),
    )
