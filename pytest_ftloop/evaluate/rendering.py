"""Render rows as trl does: what the model is trained on, what it is asked, what it should answer.

Training is trl's own; generation, scoring and the checks of the wiring ask here, with the arguments
that trl gives to the chat template.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.chat import Message, content_text, split
from pytest_ftloop.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pytest_ftloop.core.records import Example

PROBE = "ftloop"
"""An answer that stands for any other, to see what the template writes around it."""


@dataclass(frozen=True)
class Renderer:
    """Renders rows with a tokenizer, and with a chat template where trl does not use its own."""

    tokenizer: PreTrainedTokenizerBase
    chat_template: str | None = None

    def tokens(self, row: Mapping[str, Any], messages: Sequence[Message], **how: Any) -> list[int]:
        """The tokens of messages, with the row's tools and template arguments, as trl has them."""
        return list(self._apply(row, messages, tokenize=True, return_dict=True, **how)["input_ids"])

    def prompt(self, example: Example) -> list[int]:
        """The tokens that the model is asked with: the prompt as the trained row begins with it.

        That ends with the template's generation prompt. After an assistant's turn it is that turn
        itself where the template lets the answer continue it. Raises `DataError` for a row that the
        template refuses.
        """
        given, answer = split(example.row)
        if isinstance(given, str):
            return list(self.tokenizer(given)["input_ids"])
        if not given:
            return []
        with rendering(example):
            asked = self.tokens(example.row, given, add_generation_prompt=True)
            if given[-1]["role"] == "assistant" and self._is_continued(example.row, given, answer):
                return self.tokens(example.row, given, continue_final_message=True)
        return asked

    def answer(self, example: Example) -> list[int]:
        """The tokens of the answer: those of the trained row after the prompt, as trl labels them.

        Raises `DataError` for a row that the template refuses.
        """
        given, answer = split(example.row)
        if isinstance(answer, str):
            return list(self.tokenizer(answer)["input_ids"])
        with rendering(example):
            return self._after(example.row, given, answer)

    def expected(self, example: Example) -> str:
        """The text that the model should generate: the rendered answer, read as an output is.

        Of rows without messages it is the completion as it stands.
        """
        _, answer = split(example.row)
        if answer is None or isinstance(answer, str):
            return example.expected or ""
        return self.reading(example).text(self.answer(example))

    def reading(self, example: Example) -> Reading:
        """How tokens that follow the example's prompt are read."""
        given, answer = split(example.row)
        if answer is None or isinstance(answer, str):
            return Reading(self.tokenizer)
        last = answer[-1]
        bare = {"role": last["role"], "content": like(last.get("content"))}
        with rendering(example):
            after = self._after(example.row, given, [bare])
        return Reading(self.tokenizer).around(after)

    def missing(self, example: Example) -> str:
        """What the rendered row lacks of the answer, `text` or `tool calls`; empty if nothing.

        The template ignores what makes no difference when it is another. Raises `DataError` for a
        row that the template refuses.
        """
        given, answer = split(example.row)
        if answer is None or isinstance(answer, str) or not answer:
            return ""
        *others, last = answer
        with rendering(example):
            whole = self._apply(example.row, [*given, *answer], tokenize=False)

            def ignores(changed: Message) -> bool:
                return bool(
                    self._apply(example.row, [*given, *others, changed], tokenize=False) == whole
                )

            content, calls = last.get("content"), last.get("tool_calls")
            text = content_text(content)
            if text.strip() and ignores({**last, "content": like(content, text + PROBE)}):
                return "text"
            if calls and ignores({**last, "tool_calls": [_renamed(call) for call in calls]}):
                return "tool calls"
        return ""

    def _apply(self, row: Mapping[str, Any], messages: Sequence[Message], **how: Any) -> Any:
        tools = row.get("tools")
        arguments = {
            "chat_template": self.chat_template,
            "tools": read_json(tools) if isinstance(tools, str) else tools,
            **row.get("chat_template_kwargs", {}),
        }
        return self.tokenizer.apply_chat_template([*messages], **how, **arguments)

    def _after(
        self, row: Mapping[str, Any], given: Sequence[Message], answer: Sequence[Message]
    ) -> list[int]:
        whole = self.tokens(row, [*given, *answer])
        asked = self.tokens(row, given, add_generation_prompt=True) if given else []
        return whole[alike(asked, whole) :]

    def _is_continued(
        self, row: Mapping[str, Any], given: Sequence[Message], answer: Sequence[Message]
    ) -> bool:
        whole = self._apply(row, [*given, *answer], tokenize=False)
        if whole.startswith(self._apply(row, given, tokenize=False, add_generation_prompt=True)):
            return False
        try:
            continued = self._apply(row, given, tokenize=False, continue_final_message=True)
        except ValueError:  # the template changes the turn, so that its end is not found
            return False
        return bool(whole.startswith(continued))


@dataclass(frozen=True)
class Reading:
    """Reads tokens as text: without special tokens and what the template writes around an answer.

    That is an empty think block, a channel's name, an end marker that is no special token, the
    brackets around a list of parts: `lead` and `tail`. `marked` is the lead with special tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    marked: str = ""
    lead: str = ""
    tail: str = ""

    def around(self, bare: Sequence[int]) -> Reading:
        """The reading of outputs where `bare` are the tokens of the answer `PROBE`."""
        marked, found, _ = self._decoded(bare, special=True).partition(PROBE)
        lead, _, tail = self._decoded(bare).partition(PROBE)
        # A template that does not render such an answer writes nothing around it.
        return replace(self, marked=marked, lead=lead, tail=tail) if found else self

    def text(self, ids: Sequence[int]) -> str:
        """The tokens as text. Without the whole lead at its beginning none of it is taken away."""
        plain = self._decoded(ids)
        if self.marked.strip() and re.match(_words(self.marked), self._decoded(ids, special=True)):
            plain = re.sub(rf"\A{_words(self.lead)}", "", plain)
        if self.tail.strip():
            plain = re.sub(rf"{_words(self.tail)}\Z", "", plain)
        return plain.strip()

    def _decoded(self, ids: Sequence[int], *, special: bool = False) -> str:
        return str(self.tokenizer.decode([*ids], skip_special_tokens=not special))


@contextlib.contextmanager
def rendering(example: Example) -> Iterator[None]:
    """Raise what a chat template raises as a `DataError` with the example's place."""
    try:
        yield
    except Exception as error:  # a template is a program of its author's: it may raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the chat template refuses the example {example.id!r}: {reason[0]}",
            where=example.where,
            cure=f"{_cure_of(example)}, or set training.chat_template_path to a template that "
            "takes them.",
        ) from error


def _cure_of(example: Example) -> str:
    """What to change in the messages that a template refuses."""
    given, answer = split(example.row)
    messages = [*(given or ()), *(answer or ())]
    if any(isinstance(m, Mapping) and m.get("content", "") is None for m in messages):
        # transformers takes such a content out of the message, so the template finds none at all.
        return 'Write the content that is null as ""'
    return "Change its messages"


def like(content: Any, text: str = PROBE) -> Any:
    """Another text in the form of this content: text, or a list of parts."""
    parts = isinstance(content, Sequence) and not isinstance(content, str)
    return [{"type": "text", "text": text}] if parts else text


def _renamed(call: Any) -> Any:
    """A tool call of another function."""
    if not isinstance(call, Mapping):
        return f"{call}{PROBE}"
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _renamed(call["function"])}
    return {**call, "name": f"{call.get('name')}{PROBE}"}


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of equal tokens that two rows begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _words(text: str) -> str:
    """A pattern for the words of a text with any white space around and between them."""
    return r"\s*".join(["", *map(re.escape, text.split()), ""])
