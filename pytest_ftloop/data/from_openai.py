"""Rows of a file for hosted fine-tuning as rows that chat templates take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.errors import DataError, Location


@dataclass(frozen=True)
class Converted:
    """The rows, and how many were changed in which way."""

    rows: tuple[Mapping[str, Any], ...]
    changes: Mapping[str, int]


def from_openai(text: str, file: str) -> Converted:
    """The rows of a file with one JSON object with `messages` per line.

    Raises `DataError` for the first line that is none.
    """
    rows: list[tuple[dict[str, Any], Location]] = []
    changes = Counter[str]()
    # Not splitlines(): a JSON string may contain U+2028 and similar characters unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = Location(file, number)
        try:
            row = read_json(line)
        except ValueError as error:
            raise DataError(f"not JSON: {error}", where=where) from None
        if not isinstance(row, dict) or not _is_chat(row.get("messages")):
            is_pair = isinstance(row, dict) and "preferred_output" in row
            raise DataError(
                'wanted {"messages": [{"role": ..., "content": ...}, ...]}',
                where=where,
                cure="These are preferences: a loop learns answers, such as the preferred ones."
                if is_pair
                else "--from reads chat rows; name rows of another form in data: {train: ...}.",
            )
        rows.append((_row(row, changes, where), where))
    if not rows:
        raise DataError("the file has no rows", where=Location(file))
    if any("prompt" in row for row, _ in rows):  # all rows of a file have one form
        rows = [(_as_pair(row, where), where) for row, where in rows]
    return Converted(tuple(row for row, _ in rows), dict(changes))


def _as_pair(row: dict[str, Any], where: Location) -> dict[str, Any]:
    """A row of messages as prompt and completion, which is the same if it has one answer only."""
    if "prompt" in row:
        return row
    messages = row["messages"]
    answers = [message for message in messages if message["role"] == "assistant"]
    if len(answers) != 1 or messages[-1] is not answers[0]:
        raise DataError(
            "other rows have weights, so that only their last answer is learnt; this one has "
            f"{len(answers)} answers without weights",
            where=where,
            cure="Make one row for each answer to learn, which ends with it.",
        )
    rest = {key: value for key, value in row.items() if key != "messages"}
    return {"prompt": messages[:-1], "completion": messages[-1:], **rest}


def _is_chat(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages)
    )


def _row(row: dict[str, Any], changes: Counter[str], where: Location) -> dict[str, Any]:
    weights = [m.get("weight", 1) for m in row["messages"] if m["role"] == "assistant"]
    messages = [_message(message, changes, where) for message in row["messages"]]
    tools = list(_listed(row, "tools", where))
    if functions := _listed(row, "functions", where):
        tools += [{"type": "function", "function": function} for function in functions]
        changes["functions became tools"] += 1
    rest = {"tools": tools} if tools else {}
    if 0 not in weights:
        return {"messages": messages, **rest}
    if weights[-1] == 0 or messages[-1]["role"] != "assistant" or any(weights[:-1]):
        raise DataError(
            "weight: wanted 1 for the last answer only, or for every answer",
            where=where,
            cure="Make one row for each answer to learn, which ends with it.",
        )
    changes["weights became prompt and completion: the last answer is learnt"] += 1
    return {"prompt": messages[:-1], "completion": messages[-1:], **rest}


def _message(message: dict[str, Any], changes: Counter[str], where: Location) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key != "weight"}
    if kept["role"] == "function":
        kept["role"] = "tool"
    if kept["role"] == "developer":  # templates of open models know it as system, or drop it
        kept["role"] = "system"
        changes["the role developer became system"] += 1
    _check_parts(kept.get("content"), where)
    if call := kept.pop("function_call", None):
        kept["tool_calls"] = [{"type": "function", "function": call}]
        changes["function calls became tool calls"] += 1
    if calls := _listed(kept, "tool_calls", where):
        kept["tool_calls"] = [_call(call, where) for call in calls]
    if kept.get("tool_calls") is None:
        kept.pop("tool_calls", None)
    kept.setdefault("content", "")
    return kept


def _check_parts(content: Any, where: Location) -> None:
    """Raise `DataError` for content that is no text, such as an image."""
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text":
            raise DataError(
                f"wanted text, found content of the type {kind!r}",
                where=where,
                cure="A loop trains on text: remove the row, or put what it shows into words.",
            )


def _listed(holder: Mapping[str, Any], key: str, where: Location) -> list[Any]:
    """A list under a key; empty where the key is missing or null."""
    found = holder.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise DataError(f"wanted a list in {key}, found {type(found).__name__}", where=where)
    return found


def _call(call: Any, where: Location) -> dict[str, Any]:
    """A call with its arguments as JSON, which templates write, not as text of JSON."""
    try:
        function = dict(call["function"])
        if isinstance(arguments := function.get("arguments"), str):
            function["arguments"] = read_json(arguments or "{}")
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"a tool call can't be read: {error!r}", where=where) from None
    return {**call, "function": function}
