"""Outputs that are long and of no use: each scorer is done with them in a fraction of a second."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.records import Example
from pytest_ftloop.evaluate.json_values import values_and_texts
from pytest_ftloop.evaluate.scorers import load_scorer

LENGTH = 40_000

LONG = {
    "opening brackets": "[" * 100_000,
    "objects in objects": '{"a":' * LENGTH,
    "lists in lists": "[" * LENGTH + "]" * LENGTH,
    "lists that break off": ("[" * 500 + "x ") * (LENGTH // 500),
    "strings that open": '["' * (LENGTH // 2),
    "a constant far inside": "[" * 900 + "0," * LENGTH + "NaN",
    "a huge number far inside": "[" * 900 + "0," * LENGTH + "1" * 5000,
    "functions that open": "<function=a>" * (LENGTH // 10),
    "parameters that open": "<function=a>" + "<parameter=a>" * (LENGTH // 10) + "</function>",
    "tags that break off": "<parameter=" * (LENGTH // 10),
    "keys that open": "<arg_key>" * (LENGTH // 10),
    "values that open": "<arg_key>a</arg_key><arg_value>" * (LENGTH // 30),
    "calls that open": "<tool_call>a" * (LENGTH // 12),
    "names without an end": "[f(" + "a='" * (LENGTH // 3),
    "fences": "```json" * (LENGTH // 7),
    "digits": "1" * LENGTH,
    "white space": " " * LENGTH,
    "listed calls that open": "<|tool_call_start|>[f(a=" * (LENGTH // 24),
    "built-in calls that open": "<|python_tag|>f.call(a=" * (LENGTH // 24),
    "white space for a key": "<|tool_call>call:f{" + " " * LENGTH,
    "white space after a key": "<|tool_call>call:f{a" + " " * LENGTH,
    "recipients that open": "to=functions." * (LENGTH // 13),
    "channels that open": "to=functions.f<|channel|>" * (LENGTH // 25),
}

JSON_CALL = '{"name": "f", "arguments": {"a": 1}}'
TAG_CALL = "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>"
ASKED: dict[str, Any] = {
    "prompt": [],
    "completion": [
        {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
    ],
}


@pytest.mark.parametrize("output", LONG.values(), ids=LONG.keys())
def test_a_long_output_fails_fast(output: str) -> None:
    """No built-in scorer takes time in proportion to the square of an output, nor fails."""
    start = time.process_time()
    for row, expected in (({}, JSON_CALL), (ASKED, JSON_CALL), (ASKED, TAG_CALL)):
        for scorer in ("exact", "contains", "json", "tool_call", "f1"):
            example = Example("e", "c", row, expected=expected)
            assert not load_scorer(Scoring(scorer))(example, output).passed
    load_scorer(Scoring("number"))(Example("e", "c", {}, expected="2"), output)
    # 16 scorings take below 1 s together; with a part that is quadratic, a single one took 2 to 90.
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('[1, {"a": 2}, oops {"b": 3}', [{"a": 2}, {"b": 3}]),
        ("[[1], [2], [3, [4]", [[1], [2], [4]]),
        ('{"a": [1, {"b": 2}], "c" oops', [[1, {"b": 2}]]),
        ('[NaN, [1]] {"a": 1}', [[1], {"a": 1}]),
        ('[[1], NaN] {"a": 1}', [[1], {"a": 1}]),
        ("[" + "1" * 5000 + "] [1]", [[1]]),
        ('{"a": "[1]", oops', []),
        ('{"a": "]]} \n", "b": 1} [1]', [[1]]),  # a line break is not JSON in a string
        ('{"a": [[0], "x}] \\q"]} [1]', [[0], [1]]),
        ('{"a": "}} \\u12', []),
        ('He said "use [1]"', [[1]]),
        ("[" * 5000 + "] [1]", []),
        ("[0] " + "[" * 5000, [[0]]),
        ('["' + "x" * 5000 + '"] [1]', [["x" * 5000], [1]]),
        ('["' + "x" * 5000 + " [1]", [[1]]),
    ],
)
def test_values_of_texts_that_are_not_json(text: str, values: list[Any]) -> None:
    """Complete objects and lists are found, also in one that breaks off, in their order."""
    assert values == values_and_texts(text)[0]


@given(st.text('[]{}":,\\\n 1aN', max_size=40))
def test_any_text_is_searched_for_values(text: str) -> None:
    """No text is a mistake; what is not within a value are its words, in their order."""
    values, words = values_and_texts(text)
    assert len(words) == len(values) + 1
    rest = iter("".join(text.split()))
    assert all(c in rest for c in "".join("".join(words).split()))
