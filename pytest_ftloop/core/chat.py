"""A row's prompt and answer, and what messages say, without a chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_ftloop.core.bounds import read_json

Message = Mapping[str, Any]

ASKING = frozenset({"user", "human", "system", "developer", "tool", "function", "observation"})
"""Roles of turns that the model reads. What it should answer must have another role."""


def split(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """What the model is given and what it should answer, as text or messages; or None, None."""
    if "prompt" in row:
        return row["prompt"], row["completion"]
    if "messages" in row:
        return row["messages"][:-1], row["messages"][-1:]
    return None, None


def answers(row: Mapping[str, Any]) -> list[Message]:
    """The messages that the model should answer; none for the forms without messages."""
    _, answer = split(row)
    return list(answer) if isinstance(answer, list | tuple) else []


def transcript(messages: Sequence[Message]) -> str:
    """`role: text` of each message in a line of its own."""
    return "\n".join(f"{message['role']}: {said(message)}" for message in messages)


def said(message: Message) -> str:
    """What a message says: its text, then each tool call as JSON in a line of its own."""
    text = content_text(message.get("content"))
    calls = [json.dumps(call, ensure_ascii=False) for call in tool_calls(message)]
    return "\n".join([text] * bool(text or not calls) + calls)


def content_text(content: Any) -> str:
    """A message's content as text: parts are joined, null is empty."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, Sequence):
        return str(content)
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return "".join(str(part) for part in parts if part is not None)


def tool_calls(message: Message) -> list[Any]:
    """The name and arguments of each tool call; arguments that are JSON text are read."""
    return [_call(call) for call in message.get("tool_calls") or ()]


def _call(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(function, Mapping):
        return call
    return {"name": function.get("name"), "arguments": _read(function.get("arguments"))}


def _read(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return read_json(arguments)
    except ValueError:
        return arguments
