"""The forms of rows that trl accepts: the columns that it reads, checked but unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.chat import said, split, transcript
from pytest_ftloop.core.errors import DataError, Location
from pytest_ftloop.data.messages import chatml, check_messages, without_nulls

_sorted_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode

TRL_COLUMNS = ("prompt", "completion", "messages", "text", "tools", "chat_template_kwargs")
"""The columns that trl reads, of rows that it tokenises."""

TOKEN_COLUMNS = ("input_ids", "labels", "completion_mask", "assistant_masks")
"""The columns that trl reads of rows that are tokenised already."""


def trl_row(row: Mapping[str, Any], where: Location, columns: Columns) -> dict[str, Any]:
    """The columns that trl reads, checked. The order of the forms is that of trl."""
    names = {*TRL_COLUMNS, columns.text}
    kept = {name: value for name, value in row.items() if name in names and value is not None}
    if "prompt" not in kept and "completion" not in kept and "messages" not in kept:
        if row.get("conversations") is not None:
            messages = chatml(row["conversations"], where)
            check_messages(messages, "conversations", where)
            kept["messages"] = messages
        elif columns.text not in kept and row.get("input_ids") is not None:
            return _token_row(row, where)
    if "prompt" in kept or "completion" in kept:
        _check_pair(kept, where)
    elif "messages" in kept:
        check_messages(kept["messages"], "messages", where)
    elif columns.text in kept:
        _check_text(kept[columns.text], columns.text, where)
    else:
        raise DataError(
            f"wanted the columns prompt and completion, messages, conversations, input_ids, or "
            f"{columns.text}; found {', '.join(str(name) for name in row) or 'none'}",
            where=where,
            cure="Rename the columns, or write a function module:function that returns such rows.",
        )
    _check_template_columns(kept, where)
    return _with_template(kept, columns)


def hashed(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's content hash covers: an explicit null key of a message counts as absent."""
    return {name: without_nulls(value) for name, value in row.items()}


def content_of(said: Mapping[str, Any]) -> str:
    """The content hash of a row. Raises `UnicodeEncodeError` for half a surrogate pair."""
    return hashlib.sha256(_sorted_json(said).encode()).hexdigest()[:12]


def texts(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The prompt and the expected output as text; None, None for texts and tokens."""
    prompt, answer = split(row)
    if prompt is None or answer is None:
        return None, None
    if isinstance(prompt, str):
        return prompt, answer
    return transcript(prompt), "\n".join(said(message) for message in answer)


def form(row: Mapping[str, Any]) -> str:
    """The form of a row, as errors name it."""
    if "prompt" in row:
        return "prompt/completion" + ("" if isinstance(row["prompt"], str) else " as messages")
    if "input_ids" in row:
        return "input_ids" + "".join(f"/{name}" for name in TOKEN_COLUMNS[1:] if name in row)
    return "messages" if "messages" in row else "text"


def _check_pair(row: Mapping[str, Any], where: Location) -> None:
    for name in ("prompt", "completion"):
        if name not in row:
            has = "messages" in row
            raise DataError(
                f"wanted the columns prompt and completion, found no {name}",
                where=where,
                cure="Remove the other column to train on messages." if has else "",
            )
        if isinstance(row[name], str):
            continue
        if not isinstance(row[name], list | tuple):
            found = type(row[name]).__name__
            raise DataError(
                f"wanted text or a list of messages in {name}, found {found}", where=where
            )
        check_messages(row[name], name, where)
    if isinstance(row["prompt"], str) != isinstance(row["completion"], str):
        raise DataError("prompt and completion must both be text or both messages", where=where)
    if not row["completion"]:
        raise DataError("the completion is empty: there is nothing to learn", where=where)


def _check_text(text: Any, name: str, where: Location) -> None:
    if not isinstance(text, str):
        raise DataError(f"wanted text in {name}, found {type(text).__name__}", where=where)
    if not text.strip():
        raise DataError("the text is empty: there is nothing to learn", where=where)


def _check_template_columns(row: Mapping[str, Any], where: Location) -> None:
    """Check what trl passes to the chat template besides messages."""
    given = row.get("chat_template_kwargs", {})
    if not isinstance(given, Mapping):
        raise DataError(
            f"wanted an object in chat_template_kwargs, found {type(given).__name__}", where=where
        )
    tools = row.get("tools")
    if isinstance(tools, str):
        try:
            tools = read_json(tools)
        except ValueError as error:
            raise DataError(f"tools is text, but not JSON: {error}", where=where) from None
    if tools is not None and not isinstance(tools, list | tuple):
        raise DataError(f"wanted a list in tools, found {type(tools).__name__}", where=where)


def is_of_messages(row: Mapping[str, Any]) -> bool:
    """Whether a row is rendered with a chat template."""
    return isinstance(row.get("prompt", row.get("messages")), list | tuple)


def _with_template(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The row with the loop's arguments of the chat template, as far as it has none of its own.

    In the row they reach training and generation alike, and are part of the data's identity.
    """
    if (not columns.template and columns.tools is None) or not is_of_messages(row):
        return row
    added: dict[str, Any] = {} if columns.tools is None else {"tools": columns.tools}
    if columns.template:
        own = row.get("chat_template_kwargs", {})
        row = {**row, "chat_template_kwargs": {**columns.template, **own}}
    return {**added, **row}


def _token_row(row: Mapping[str, Any], where: Location) -> dict[str, Any]:
    """A row that is tokenised already: `input_ids` with `labels`, or with trl's masks."""
    found = {name: row[name] for name in TOKEN_COLUMNS if row.get(name) is not None}
    kept = {name: _numbers(value, name, where) for name, value in found.items()}
    tokens = len(kept["input_ids"])
    for name, numbers in kept.items():
        if len(numbers) != tokens:
            raise DataError(
                f"{name} has {len(numbers)} numbers, input_ids has {tokens}", where=where
            )
    if tokens < 2:
        raise DataError(f"input_ids has {tokens} tokens, so there is none to predict", where=where)
    return kept


def _numbers(value: Any, name: str, where: Location) -> list[int]:
    """A list, tuple or array of integers as a list."""
    tolist: Callable[[], Any] = getattr(value, "tolist", lambda: value)
    numbers = tolist()
    if isinstance(numbers, list | tuple) and all(type(n) is int for n in numbers):
        return list(numbers)
    raise DataError(f"wanted a list of integers in {name}, found {value!r:.60}", where=where)
