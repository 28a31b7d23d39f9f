"""Paragraphs and tables keep to their width."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import wcswidth

from pytest_ftloop.report.escape import columns_of, visible
from pytest_ftloop.report.layout import Column, paragraph, table
from tests.report.writings import WRITINGS

VISIBLE = st.text(st.characters(), max_size=60).map(visible)


def test_table_aligns_and_heads() -> None:
    """Numbers stand right, text left, under headers of two lines."""
    columns = [
        Column(("", "change"), ["start", "r 8 -> 16"]),
        Column(("eval", "loss"), ["12.5", "1.25"], right=True),
    ]
    assert [
        "           eval",
        "change     loss",
        "start      12.5",
        "r 8 -> 16  1.25",
    ] == table(columns, 80)


def test_table_narrows_then_drops() -> None:
    """The flexible column is shortened; where that is not enough the highest drop goes first."""
    columns = [
        Column(("", "#"), ["1"]),
        Column(("", "change"), ["learning_rate 2e-4"], least=10),
        Column(("", "id"), ["ab12cd34"], drop=1),
        Column(("", "seconds"), ["12.5"], drop=2),
    ]
    assert "1  learning_rate 2e-4  ab12cd34  12.5" == table(columns, 60)[-1]
    assert "1  learning_r...  ab12cd34  12.5" == table(columns, 35)[-1]
    assert "1  learning_r...  ab12cd34" == table(columns, 26)[-1]
    assert "1  learnin..." == table(columns, 13)[-1]


def test_table_counts_wide_characters_twice() -> None:
    """Columns stay aligned beside Chinese text."""
    columns = [Column(("", "tag"), ["\u5426\u5b9a", "no"]), Column(("", "n"), ["1", "2"])]
    assert ["\u5426\u5b9a  1", "no    2"] == table(columns, 40)[2:]


@pytest.mark.parametrize("texts", WRITINGS.values(), ids=WRITINGS)
@pytest.mark.parametrize("width", [80, 16, 12])
def test_rows_of_any_writing_end_alike(texts: tuple[str, ...], width: int) -> None:
    """No row leans, whichever script its texts are in, in full and cut to the terminal."""
    cells = [visible(text * 2) for text in texts]
    columns = [
        Column(("", "tag"), cells, least=6),
        Column(("", "n"), [str(number) for number in range(len(cells))], right=True),
    ]
    assert 1 == len({wcswidth(line) for line in table(columns, width)[1:]})


@given(st.lists(st.tuples(VISIBLE, VISIBLE), min_size=1, max_size=4), st.integers(1, 100))
def test_table_keeps_to_its_width(rows: list[tuple[str, str]], width: int) -> None:
    """No line is wider, whatever the cells hold."""
    first, second = zip(*rows, strict=True)
    columns = [Column(("", "a"), first, least=5), Column(("b", "c"), second, right=True, drop=1)]
    assert all(columns_of(line) <= width for line in table(columns, width))


def test_paragraph_breaks_at_spaces() -> None:
    """The lines after the first are indented alike."""
    assert ["  one two", "    three"] == paragraph("one two three", 10, "  ", "    ")


@given(VISIBLE, st.integers(8, 60))
def test_paragraph_keeps_to_its_width_and_loses_nothing(text: str, width: int) -> None:
    """Every line fits, words too long are broken, and all but spaces is there."""
    lines = paragraph(text, width, "> ", "  ")
    assert all(columns_of(line) <= width for line in lines)
    assert text.replace(" ", "") == "".join(lines)[1:].replace(" ", "")
