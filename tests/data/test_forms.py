"""Further forms of rows: ShareGPT, tokens, tool calls, parts; columns for scorers; mixtures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.sources import Mixture
from pytest_ftloop.core.errors import DataError
from tests.data.data_rows import ROWS, jsonl, refused, rows_of

if TYPE_CHECKING:
    from tests.data.data_rows import Write

USER = {"role": "user", "content": "Hi"}
CALLS = [
    {"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": "é"}}},
    {"type": "function", "function": {"name": "g", "arguments": '{"x": null}'}},
]
WRITTEN = '{"name": "f", "arguments": {"b": 1, "a": "é"}}\n{"name": "g", "arguments": {"x": null}}'


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"content": "", "tool_calls": CALLS}, WRITTEN),
        ({"content": None, "tool_calls": CALLS}, WRITTEN),
        ({"tool_calls": CALLS}, WRITTEN),
        ({"content": "Wait.", "tool_calls": CALLS}, f"Wait.\n{WRITTEN}"),
        (
            {"content": "", "tool_calls": [{"name": "f", "arguments": {}}]},
            '{"name": "f", "arguments": {}}',
        ),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": ["a", "b"]}, "ab"),
        ({"content": None}, ""),
    ],
)
def test_what_an_answer_says(answer: dict[str, Any], expected: str) -> None:
    """Parts are joined, tool calls are JSON, null is empty; the row stays as it was written."""
    row = {"messages": [USER, {"role": "assistant", **answer}]}
    (example,) = rows_of([row]).examples
    assert ("user: Hi", expected) == (example.prompt, example.expected)
    assert row == example.row


def test_nulls_in_a_file_are_the_authors(write: Write, tmp_path: Path) -> None:
    """A null key written in a file reaches trl; the content is that of the row without it."""
    called = {"role": "assistant", "content": "Hello", "tool_calls": None}
    plain = {"messages": [USER, {"role": "assistant", "content": "Hello"}]}
    write("t.jsonl", jsonl([{"messages": [USER, called]}]))
    (example,) = rows_of("t.jsonl", tmp_path).examples
    assert called == example.row["messages"][1]
    assert rows_of([plain]).examples[0].content == example.content


def test_sharegpt() -> None:
    """`from` and `value` are roles and contents that templates know."""
    said = [("system", "s"), ("human", "Hi"), ("gpt", "Hello"), ("observation", "o"), ("gpt", "x")]
    row = {"conversations": [{"from": name, "value": text} for name, text in said]}
    roles = ["system", "user", "assistant", "tool", "assistant"]
    (example,) = rows_of([row]).examples
    assert [
        {"role": role, "content": text} for role, (_, text) in zip(roles, said, strict=True)
    ] == example.row["messages"]
    assert "x" == example.expected
    named = {"conversations": [USER, {"role": "assistant", "content": "Hello"}]}
    assert named["conversations"] == rows_of([named]).examples[0].row["messages"]


TOKENS = {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8]}


def test_tokens() -> None:
    """Rows that are tokenised already keep their tokens and labels, and have no texts."""
    import numpy as np

    (example,) = rows_of([{**TOKENS, "attention_mask": [1, 1, 1, 1]}]).examples
    assert (TOKENS, None, None) == (example.row, example.prompt, example.expected)
    assert "5 6 7 8" == example.prompt_text
    arrays = {name: np.array(numbers) for name, numbers in TOKENS.items()}
    assert TOKENS == rows_of([arrays]).examples[0].row
    masked = {"input_ids": [5, 6], "completion_mask": [0, 1]}
    assert masked == rows_of([masked]).examples[0].row
    both = {"text": "a", "input_ids": [5, 6]}
    assert {"text": "a"} == rows_of([both]).examples[0].row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [{"from": "bing", "value": "x"}]}, "'bing', which is no known role"),
        ({"conversations": [{"from": "human", "text": "x"}]}, 'wanted turns {"from", "value"}'),
        ({"conversations": []}, "conversations is an empty list"),
        ({"conversations": "Hi"}, "wanted a list of messages in conversations, found str"),
        ({"messages": [USER], "tools": "[{"}, "tools is text, but not JSON"),
        ({"messages": [USER], "tools": {"name": "f"}}, "wanted a list in tools, found dict"),
        ({"messages": [USER], "chat_template_kwargs": [1]}, "wanted an object in chat_template"),
        ({"input_ids": [5, "6"]}, "wanted a list of integers in input_ids"),
        ({"input_ids": 5}, "wanted a list of integers in input_ids, found 5"),
        ({**TOKENS, "labels": [5]}, "labels has 1 numbers, input_ids has 4"),
        ({"input_ids": [5]}, "input_ids has 1 tokens, so there is none to predict"),
        ({"prompt": "p", "messages": [USER]}, "found no completion"),
    ],
)
def test_faulty_row(row: dict[str, Any], message: str) -> None:
    """A row that trl could not train on is refused with its number."""
    error = refused([row])
    assert message in error.message
    assert "list, row 1" == str(error.where)


def test_kept_columns() -> None:
    """Columns of `data.keep` are for scorers: trl does not get them."""
    row = {"prompt": "p", "completion": "c", "answers": ["c", "d"]}
    (example,) = rows_of([row], keep=("answers",)).examples
    (plain,) = rows_of([row]).examples
    assert {"answers": ["c", "d"]} == example.kept
    assert {"prompt": "p", "completion": "c"} == example.row == plain.row


def test_a_kept_column_that_no_row_has() -> None:
    """It is an error in the sets that are scored; the train set may lack it."""
    row = {"prompt": "p", "completion": "c"}
    assert {} == rows_of([row], keep=("answers",)).examples[0].kept
    with pytest.raises(DataError, match=r"'answers' of data\.keep is in no eval row"):
        rows_of([row], role="eval", keep=("answers",))


def test_mixtures(write: Write, tmp_path: Path) -> None:
    """Each source gives its rows as often as its weight says, in order; ids stay unique."""
    write("a.jsonl", jsonl(ROWS))
    others = [{"id": str(n), "prompt": f"p{n}", "completion": "c"} for n in range(10)]
    write("b.jsonl", jsonl(others))
    mixture = Mixture((("a.jsonl", 1.0), ("b.jsonl", 0.5), ("a.jsonl", 2.0)))
    mixed = rows_of(mixture, tmp_path)
    ids = [example.id for example in mixed.examples]
    assert "a.jsonl + 0.5 * b.jsonl + 2 * a.jsonl" == mixed.source
    assert ["a", "b", "c"] == ids[:3]
    assert 3 + 5 + 6 == len(ids) == len(set(ids))
    assert [f"{name}-{n}" for n in (2, 3) for name in "abc"] == ids[-6:]
    assert sorted(ids[3:-6], key=int) == ids[3:-6]
    assert mixed.sha256 == rows_of(mixture, tmp_path).sha256
    lighter = Mixture((("a.jsonl", 1.0), ("b.jsonl", 0.4), ("a.jsonl", 2.0)))
    assert mixed.sha256 != rows_of(lighter, tmp_path).sha256


def test_the_place_of_a_mixed_row(write: Write, tmp_path: Path) -> None:
    """A faulty row of a mixture is named with its own file and line."""
    write("a.jsonl", jsonl(ROWS))
    write("b.jsonl", jsonl([ROWS[0], {"prompt": "p"}]))
    error = refused(Mixture((("a.jsonl", 1.0), ("b.jsonl", 1.0))), tmp_path)
    assert "b.jsonl" in str(error.where)
    assert 2 == (error.where and error.where.line)
