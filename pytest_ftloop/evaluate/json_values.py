"""Read JSON and tool calls in texts as models write them, and compare them."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from pytest_ftloop.core.bounds import read_json

_FENCED = re.compile(r"```(?:json)?(.*)```", re.DOTALL | re.IGNORECASE)
"""JSON in a Markdown fence, as chat models write it."""

_OPENING = re.compile(r"[\[{]")
"""Where a JSON object or list may begin."""

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
"""A string, which may break off, or a bracket of JSON."""

_WINDOW, _LONGEST_WORD = 2000, len("-Infinity")

_REFUSED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|(NaN|-?Infinity|\d{4301,})', re.DOTALL)
"""A string, or what `json` reads without saying where it refuses it: a constant, a huge number."""

_ARGUMENTS = tuple(
    (re.compile(argument, re.DOTALL), re.compile(rf"(?:{argument}\s*)+", re.DOTALL), closing)
    for argument, closing in (
        (r"<parameter=[^<>\n]*>.*?</parameter>", "</parameter>"),
        (r"<arg_key>[^<>\n]*</arg_key>\s*<arg_value>.*?</arg_value>", "</arg_value>"),
    )
)
"""A named argument of a tool call in the XML style of Qwen3-Coder and in that of GLM-4.5;
several in a row, which belong to one call; and what closes one."""


def parse(text: str) -> Any:
    """The JSON value that a text is, perhaps in a fence. Raises `ValueError`."""
    fenced = _FENCED.fullmatch(text.strip())
    return read_json(fenced[1] if fenced else text, _refuse)


def values_and_texts(text: str) -> tuple[list[Any], list[str]]:
    """The JSON objects and lists in a text, and the words around them, each in its order.

    `<tool_call>{"name": "f"}</tool_call>` -> [{"name": "f"}], ["<tool_call>", "</tool_call>"].
    Values in a string of a value that breaks off are not looked for, nor any after one that is
    nested too deep to read.
    """
    values, words, start, end = [], [], 0, 0
    while found := _OPENING.search(text, start):
        start = found.start()
        try:
            spans = [(start, *value_at(text, start))]
        except RecursionError:
            break
        except ValueError as error:
            stop = _stopped_at(error, text, start)
            # What is open where one value breaks off breaks off there, too: it is not tried again,
            # which would take the square of the time.
            spans = [(inner, *value_at(text, inner)) for inner in _complete(text, start, stop)]
            start = max(stop, start + 1)
        for opening, value, after in spans:
            values.append(value)
            words.append(" ".join(text[end:opening].split()))
            end = after
            start = max(start, after)
    return values, [*words, " ".join(text[end:].split())]


def value_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins here, and where it ends. ValueError, RecursionError for none."""
    size = _WINDOW
    while True:
        # In a window that grows: an error of `json` takes time in proportion to the text before it.
        window = text[start : start + size]
        try:
            value, length = _DECODER.raw_decode(window)
        except json.JSONDecodeError as error:
            is_cut = error.pos > len(window) - _LONGEST_WORD or "Unterminated" in error.msg
            if not is_cut or start + size >= len(text):
                raise
        else:
            return value, start + length
        size *= 8


def _stopped_at(error: ValueError, text: str, start: int) -> int:
    """Where a value that begins at `start` breaks off."""
    if isinstance(error, json.JSONDecodeError):
        return start + error.pos
    return next((m.start(1) for m in _REFUSED.finditer(text, start) if m[1]), start)


def _complete(text: str, start: int, stop: int) -> list[int]:
    """Where the outermost complete values begin in a value that breaks off at `stop`."""
    waiting: list[int] = []
    complete: list[int] = []
    for token in _TOKEN.finditer(text, start, stop):
        if token[0] in "[{":
            waiting.append(token.start())
        elif token[0] in "]}":
            opening = waiting.pop()
            while complete and complete[-1] > opening:
                complete.pop()
            complete.append(opening)
    return complete


def until_last(pattern: re.Pattern[str], text: str, closing: str) -> list[tuple[str, str]]:
    """The (name, body) of each match of a tag's pattern, in time in proportion to the text.

    An opening tag after the last closing one would be searched to the end for nothing.
    """
    end = text.rfind(closing) + len(closing)
    return pattern.findall(text, 0, end) if end >= len(closing) else []


def ordered(text: str) -> str:
    """The text with the XML-style arguments of each tool call sorted by their names."""
    for argument, several, closing in _ARGUMENTS:
        # As in `until_last`, nothing after the last closing tag can be an argument.
        end = text.rfind(closing) + len(closing)
        if end >= len(closing):

            def sort(found: re.Match[str], argument: re.Pattern[str] = argument) -> str:
                return "\n".join(sorted(argument.findall(found[0])))

            text = several.sub(sort, text[:end]) + text[end:]
    return text


def are_calls(values: list[Any]) -> bool:
    """Whether JSON values, some at least, are tool calls with their names: objects or lists."""
    calls = [c for value in values for c in (value if isinstance(value, list) else [value])]
    return bool(calls) and all(isinstance(c, dict) and "name" in c for c in calls)


def same(left: Any, right: Any) -> bool:
    """Whether JSON values are equal: 1 equals 1.0, but not true. Keys may be in any order."""
    # A stack, not recursion: a model can write JSON that is nested too deep to recurse.
    pairs = [(left, right)]
    while pairs:
        a, b = pairs.pop()
        if isinstance(a, dict) and isinstance(b, dict):
            if a.keys() != b.keys():
                return False
            pairs += [(a[key], b[key]) for key in a]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return False
            pairs += zip(a, b, strict=True)
        elif isinstance(a, bool) is not isinstance(b, bool) or a != b:
            return False
    return True


def wrong_fields(wanted: Any, found: Any) -> tuple[list[str], int]:
    """The paths of the wanted fields that are wrong or missing in `found`, and how many there are.

    A field is a value that holds no others, at any depth: `customer.name`, `items[0].price`. An
    empty object or list is one too, and so is a value that is neither. What `found` has besides
    does not count.
    """
    wrong: list[str] = []
    total = 0
    # A stack, not recursion: a model can write JSON that is nested too deep to recurse.
    waiting: list[tuple[str, Any, Any]] = [("", wanted, found)]
    while waiting:
        path, value, other = waiting.pop()
        if isinstance(value, dict) and value:
            has = other if isinstance(other, dict) else {}
            parts = [(_below(path, key), v, has.get(key, MISSING)) for key, v in value.items()]
        elif isinstance(value, list) and value:
            items = other if isinstance(other, list) else []
            items = [*items, *[MISSING] * (len(value) - len(items))]
            parts = [(f"{path}[{i}]", v, items[i]) for i, v in enumerate(value)]
        else:
            total += 1
            wrong += [] if other is not MISSING and same(value, other) else [path or "value"]
            continue
        waiting += reversed(parts)
    return wrong, total


MISSING = object()
"""Stands for a field that the output does not have; null is a value of its own."""


def json_fault(wanted: str, found: str) -> str:
    """What is wrong with an output that should be JSON: `not JSON`, or the paths of wrong fields.

    Empty if it has every wanted field, or if what was wanted is not JSON.
    """
    try:
        value = parse(wanted)
    except (ValueError, RecursionError):
        return ""
    try:
        wrong, _ = wrong_fields(value, parse(found))
    except (ValueError, RecursionError):
        return "not JSON"
    return ", ".join(wrong)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
