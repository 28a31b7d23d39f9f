"""Tool calls in texts as chat templates write them, and how many of two lists are equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pytest_ftloop.core.bounds import read_json
from pytest_ftloop.core.chat import answers, tool_calls
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.call_formats import Call, formatted_calls
from pytest_ftloop.evaluate.json_values import same, values_and_texts

_PYTHON = {"True": True, "False": False, "None": None}
"""How some templates write these values in tags."""


def calls_in(text: str) -> list[Call]:
    """The tool calls that a text has, in order: in a template's format, or else in JSON."""
    values, _ = values_and_texts(text)
    return formatted_calls(text) or [call for value in values for call in _calls(value)]


def expected_calls(example: Example) -> list[Call]:
    """The calls of the example's answer: those of its messages, or of its expected text."""
    messages = answers(example.row)
    if not messages:
        return calls_in(example.expected or "")
    return [call for message in messages for said in tool_calls(message) for call in _calls(said)]


def shares(wanted: Sequence[Call], found: Sequence[Call]) -> tuple[float, float]:
    """The share of calls whose name is right, and of those whose arguments are right too.

    Calls are in any order. A call too many counts like one that is missing. 1, 1 where none is
    wanted and none was made.
    """
    most = max(len(wanted), len(found))
    if most == 0:
        return 1.0, 1.0
    names = Counter(call.name for call in wanted) & Counter(call.name for call in found)
    left, right = list(found), 0
    for call in wanted:
        equal = next((i for i, other in enumerate(left) if _equal(call, other)), None)
        if equal is not None:
            del left[equal]
            right += 1
    return names.total() / most, right / most


def _calls(value: Any) -> Iterator[Call]:
    """The calls that a JSON value is: one, a list, or below `tool_calls` or `function`."""
    # A stack, not recursion: a model can write lists in lists too deep to recurse.
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, Mapping) and isinstance(value.get("name"), str):
            yield Call(value["name"], _read(value.get("arguments", value.get("parameters"))))
        elif isinstance(value, Mapping):
            waiting += [value.get("tool_calls"), value.get("function")]


def _read(arguments: Any) -> Any:
    """Arguments, which may be JSON text; none are the same as an empty object."""
    if isinstance(arguments, str):
        with suppress(ValueError):
            arguments = read_json(arguments)
    return {} if arguments is None else arguments


def _equal(one: Call, other: Call) -> bool:
    if one.name != other.name:
        return False
    if not one.in_tags and not other.in_tags:
        return same(one.arguments, other.arguments)
    first, second = one.arguments, other.arguments
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return False
    return first.keys() == second.keys() and all(_as_text(first[k], second[k]) for k in first)


def _as_text(one: Any, other: Any) -> bool:
    """Whether an argument in a tag is another: the same text, or the same value in JSON or Python.

    Outer white space of a text does not count: templates put values on lines of their own.
    """
    first, second = _stripped(one), _stripped(other)
    return first == second or same(_value(first), _value(second))


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        return read_json(value)
    return _PYTHON.get(value, value)
