"""A table that is not ours is one error with its file and line, whatever its record's hash is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.log import FolderFiles
from pytest_ftloop.log.table import COLUMNS, ExampleTable, Table, examples_csv, sha256_of
from tests.fakes import fake_example

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [fake_example("e1"), fake_example("e2")]


def read(folder: Path, text: str) -> list[object]:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    said = Table(len(ROWS), sha256_of(text))
    return list(ExampleTable(FolderFiles(folder), "t.csv", said))


def test_written_table_is_read(tmp_path: Path) -> None:
    """What is written is what is read."""
    assert ROWS == read(tmp_path, examples_csv(ROWS))


@pytest.mark.parametrize(
    ("before", "after", "line", "said"),
    [
        ("id,content", "name,content", 1, "wanted the columns id,content"),
        (",output\n", ",output,more\n", 1, "wanted the columns id,content"),
        ("e2,", "e2,another,", 3, "no row of a table: too many values"),
        ("e2,", "", 3, "no row of a table: not enough values"),
        (",yes,", ",perhaps,", 2, "no row of a table: 'perhaps'"),
    ],
)
def test_table_of_another_shape(
    tmp_path: Path, before: str, after: str, line: int, said: str
) -> None:
    """A header, a row or a cell that we do not write names its file and line."""
    text = examples_csv(ROWS)
    assert before in text
    with pytest.raises(LogError) as caught:
        read(tmp_path, text.replace(before, after, 1))
    assert f"t.csv:{line}: damaged log file: {said}" in str(caught.value)


@pytest.mark.parametrize("column", ["loss", "tokens", "correct"])
def test_text_where_a_number_belongs(tmp_path: Path, column: str) -> None:
    """A figure that is no number is an error, not a traceback."""
    lines = examples_csv(ROWS).split("\n")
    cells = lines[2].split(",")
    cells[COLUMNS.index(column)] = "many"
    with pytest.raises(LogError, match=r"t\.csv:3: damaged log file: no row of a table: .*many"):
        read(tmp_path, "\n".join([*lines[:2], ",".join(cells), *lines[3:]]))
