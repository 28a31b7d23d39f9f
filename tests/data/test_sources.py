"""How files are written, content hashes, and splitting off an eval set."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.errors import DataError, Location
from pytest_ftloop.data.examples import load, split_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.core.records import DataSet

    Write = Callable[[str, str | bytes], Path]
from tests.data.data_rows import CSV, ROWS, at, jsonl, refused, rows_of

# how files are written


@pytest.mark.parametrize(
    "written",
    [
        "\ufeff" + jsonl(ROWS),
        jsonl(ROWS).replace("\n", "\r\n"),
        "\n\n" + jsonl(ROWS).replace("\n", "\n  \n"),
        jsonl(ROWS).rstrip("\n"),
        "".join(json.dumps(row) + "\n" for row in ROWS),
    ],
    ids=["BOM", "CRLF", "blank lines", "no last line end", "escaped"],
)
def test_jsonl_as_editors_write_it(written: str, write: Write) -> None:
    """Byte order mark, CRLF, blank lines and escapes make no other examples."""
    assert rows_of(ROWS).sha256 == rows_of(write("t.jsonl", written)).sha256


@pytest.mark.parametrize(
    "written",
    ["\ufeff" + CSV, CSV.replace("\n", "\r\n"), "\n" + CSV + "\n\n", CSV.rstrip("\n")],
    ids=["BOM", "CRLF", "blank lines", "no last line end"],
)
def test_csv_as_spreadsheets_write_it(written: str, write: Write) -> None:
    """Byte order mark, CRLF and blank lines make no other examples."""
    assert rows_of(ROWS).sha256 == rows_of(write("t.csv", written)).sha256


def test_unicode_line_separators_are_text(write: Write) -> None:
    """U+2028, NEL and form feed inside a string don't end a line."""
    rows = [{"text": "a\u2028b\u0085c"}, {"text": "d"}]
    assert [row["text"] for row in rows] == [
        e.row["text"] for e in rows_of(write("t.jsonl", jsonl(rows))).examples
    ]


def test_long_cells(write: Write) -> None:
    """A cell may hold a whole document, beyond the csv module's own limit."""
    text = "word " * 50_000
    assert text == rows_of(write("t.csv", f"text\n{text}\n")).examples[0].row["text"]


@pytest.mark.parametrize(
    ("name", "content", "place", "message"),
    [
        (
            "t.jsonl",
            b'{"text": "a"}\n{"text": "\xff"}\n',
            "t.jsonl:2",
            "not UTF-8: byte 24 is 0xff",
        ),
        ("t.csv", "text\nä\n".encode("utf-16"), "t.csv:1", "not UTF-8: byte 0 is 0xff"),
        ("t.jsonl", '{"text": "a"}\n\n{"text": }\n', "t.jsonl:3", "not JSON: Expecting value at c"),
        ("t.jsonl", '{"text": "a"} {"text": "b"}\n', "t.jsonl:1", "not JSON: Extra data at column"),
        ("t.jsonl", '["text"]\n', "t.jsonl:1", "wanted a row with named columns, found list"),
        ("t.jsonl", "[" * 100_000, "t.jsonl:1", "JSON that can't be read"),
        ("t.jsonl", '{"n": ' + "9" * 5000 + "}", "t.jsonl:1", "JSON that can't be read"),
        ("t.json", '[\n{"text": "a"}\n{"text": "b"}]', "t.json:3", "not JSON"),
        ("t.json", jsonl(ROWS), "t.json:2", "not JSON: Extra data"),
        ("t.json", '{"data": []}', "t.json:None", "wanted a list of rows, found dict"),
        ("t.json", '[{"text": "a"}, 3]', "t.json, row 2:None", "wanted a row with named columns"),
        ("t.csv", "prompt,completion\na,b,c\n", "t.csv:2", "wanted 2 cells, found 3"),
        ("t.csv", "prompt,completion\na\n", "t.csv:2", "wanted 2 cells, found 1"),
        ("t.csv", 'prompt,completion\n"a\nb\nc",d\n\na\n', "t.csv:6", "wanted 2 cells, found 1"),
        ("t.csv", 'prompt,completion\na,b\n"a\nb",c,d\n', "t.csv:3", "wanted 2 cells, found 3"),
        ("t.csv", 'prompt,completion\na,b\n"a\nb,c\n', "t.csv:3", "not CSV: unexpected end of da"),
        ("t.csv", 'prompt,completion\n"a"b,c\n', "t.csv:2", "not CSV: "),
        ("t.csv", 'prompt,completion\n"a\nb",\n', "t.csv:2", "the completion is empty"),
        ("t.csv", "text,text\na,b\n", "t.csv:1", "two columns are named 'text'"),
        ("t.csv", "question,answer\na,b\n", "t.csv:2", "found question, answer"),
        ("t.parquet", b"PAR1 not really", "t.parquet:None", "not parquet: "),
    ],
)
def test_broken_files(
    name: str, content: str | bytes, place: str, message: str, write: Write
) -> None:
    """A broken file is named with the line where the faulty row begins."""
    error = refused(write(name, content))
    assert message in error.message
    assert place == at(error)


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.json", "t.parquet"])
@pytest.mark.parametrize(
    ("make", "why"), [(os.mkfifo, "it is a device or a pipe, not a file"), (Path.mkdir, "Is a dir")]
)
def test_what_is_no_file_is_not_taken_for_missing(
    name: str, make: Any, why: str, tmp_path: Path
) -> None:
    """A pipe and a folder are told as such, and not opened."""
    make(tmp_path / name)
    error = refused(tmp_path / name)
    assert f"can't be read: {why}" in error.message
    assert f"{name}:None" == at(error)


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.jsonl", "\n \n"), ("t.json", "[]"), ("t.csv", "text\n"), ("t.csv", ""), ("t.jsonl", "")],
)
def test_no_rows(name: str, content: str, write: Write, tmp_path: Path) -> None:
    """A file without rows is an error at the loop file's line."""
    write(name, content)
    where = Location("s.ftloop.yaml", 3)
    with pytest.raises(DataError, match="has no rows") as caught:
        load(name, "eval", tmp_path, Columns(), where)
    assert where == caught.value.where


@given(
    st.text() | st.from_regex(r'(\{"text": "\w"\}\n|"|,|\n|\[)*'),
    st.sampled_from([".jsonl", ".json", ".csv"]),
)
def test_any_file_gives_examples_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: str, kind: str
) -> None:
    """Whatever a file holds, the answer is examples or a DataError."""
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    try:
        found = rows_of(path)
    except DataError:
        return
    assert found.examples


# hashes


@pytest.mark.parametrize(
    "changed",
    [
        [ROWS[1], ROWS[0], ROWS[2]],
        ROWS[:2],
        [{**ROWS[0], "id": "z"}, *ROWS[1:]],
        [{**ROWS[0], "tags": ["easy"]}, *ROWS[1:]],
        [{**ROWS[0], "completion": "4 "}, *ROWS[1:]],
    ],
    ids=["order", "rows", "id", "tags", "content"],
)
def test_hash_sees(changed: list[dict[str, Any]]) -> None:
    """The set's hash changes with order, rows, ids, tags and content."""
    assert rows_of(ROWS).sha256 != rows_of(changed).sha256


@pytest.mark.parametrize(
    "same",
    [
        [{**row, "note": "not trained on"} for row in ROWS],
        [dict(reversed(row.items())) for row in ROWS],
    ],
    ids=["other columns", "order of columns"],
)
def test_hash_does_not_see(same: list[dict[str, Any]]) -> None:
    """Columns that are neither trained on nor ours, and the order of columns, change nothing."""
    assert rows_of(ROWS).sha256 == rows_of(same).sha256


def test_hash_is_stable() -> None:
    """The hash is the same in every version of the tool: logs rest on it."""
    train = rows_of([{"id": "a", "prompt": "p", "completion": "é", "tags": ["x"]}])
    assert "52b0f5b226d6" == train.examples[0].content
    assert "174555a6798e" == train.sha256[:12]


# splitting off


def numbered(count: int) -> DataSet:
    return rows_of([{"id": n, "text": f"row {n}"} for n in range(count)])


@given(st.integers(2, 200), st.floats(0.01, 0.9), st.integers(0, 5))
def test_split_off(count: int, fraction: float, seed: int) -> None:
    """A split divides the rows: nothing lost, nothing twice, the order kept, at least one each."""
    whole = numbered(count)
    if max(1, round(count * fraction)) >= count:
        with pytest.raises(DataError, match="leaves none to train on"):
            split_off(whole, fraction, seed)
        return
    train, held = split_off(whole, fraction, seed)
    assert max(1, round(count * fraction)) == len(held.examples)
    assert whole.examples == tuple(
        sorted((*train.examples, *held.examples), key=lambda e: int(e.id))
    )
    assert ("train", "eval") == (train.role, held.role)
    assert 3 == len({whole.sha256, train.sha256, held.sha256})


def test_split_off_is_seeded_and_stable() -> None:
    """The same seed splits off the same rows, on every machine and Python; another seed others."""
    whole = numbered(20)
    train, held = split_off(whole, 0.2, 0)
    assert ["1", "8", "12", "13"] == [e.id for e in held.examples]
    assert (train, held) == split_off(whole, 0.2, 0)
    assert held.sha256 != split_off(whole, 0.2, 1)[1].sha256
    assert ("list without 0.2, seed 0", "0.2 of list, seed 0") == (train.source, held.source)
