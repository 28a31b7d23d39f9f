"""Read JSON and tool calls in texts as models write them, and compare them."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_FENCED = re.compile(r"```(?:json)?(.*)```", re.DOTALL | re.IGNORECASE)
"""JSON in a Markdown fence, as chat models write it."""

_OPENING = re.compile(r"[\[{]")
"""Where a JSON object or list may begin."""

_ARGUMENT = r"<parameter=[^>]*>.*?</parameter>|<arg_key>.*?</arg_key>\s*<arg_value>.*?</arg_value>"
"""A named argument of a tool call in the XML style of Qwen3-Coder, or in that of GLM-4.5."""

_ARGUMENTS = re.compile(rf"(?:(?:{_ARGUMENT})\s*)+", re.DOTALL)
"""Arguments in a row: those of one call."""


def parse(text: str) -> Any:
    """The JSON value that a text is, perhaps in a fence. Raises ValueError or RecursionError."""
    fenced = _FENCED.fullmatch(text.strip())
    return json.loads(fenced[1] if fenced else text, parse_constant=_refuse)


def values_and_texts(text: str) -> tuple[list[Any], list[str]]:
    """The JSON objects and lists in a text, and the words around them, each in its order.

    `<tool_call>{"name": "f"}</tool_call>` -> [{"name": "f"}], ["<tool_call>", "</tool_call>"].
    """
    decoder = json.JSONDecoder(parse_constant=_refuse)
    values, words, start, end = [], [], 0, 0
    while found := _OPENING.search(text, start):
        start = found.start()
        try:
            value, after = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start += 1
            continue
        values.append(value)
        words.append(" ".join(text[end:start].split()))
        start = end = after
    return values, [*words, " ".join(text[end:].split())]


def ordered(text: str) -> str:
    """The text with the XML-style arguments of each tool call sorted by their names."""

    def sort(found: re.Match[str]) -> str:
        return "\n".join(sorted(re.findall(_ARGUMENT, found[0], re.DOTALL)))

    return _ARGUMENTS.sub(sort, text)


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
