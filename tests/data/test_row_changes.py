"""What changed between two versions of a data set, counted in rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.sources import Columns
from pytest_ftloop.core.data_changes import RowEdit
from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.data.examples import load
from pytest_ftloop.data.row_changes import (
    data_change,
    row_changes,
    rows_of_examples,
    rows_of_results,
)

Rows = Sequence[Mapping[str, Any]]

ROWS = [{"id": f"r{n}", "prompt": f"p{n}", "completion": f" c{n}", "tags": "x"} for n in range(4)]


def with_(number: int, **changes: str) -> Rows:
    return [{**row, **(changes if n == number else {})} for n, row in enumerate(ROWS)]


CASES: Mapping[str, tuple[Rows, str]] = {
    "removed": (ROWS[1:], "4 -> 3 rows: 1 removed"),
    "added": ([*ROWS, {**ROWS[0], "id": "new", "prompt": "new"}], "4 -> 5 rows: 1 added"),
    "relabelled": (with_(1, completion=" other"), "4 rows: 1 relabelled"),
    "edited": (with_(1, prompt="other"), "4 rows: 1 edited"),
    "tags": (with_(1, tags="y"), "4 rows: 1 with other tags"),
    "id": (with_(1, id="other"), "4 rows: 1 with another id"),
    "order": (ROWS[::-1], "4 rows: their order changed"),
    "replaced": (with_(1, id="new", prompt="p", completion=" c"), "4 rows: 1 added, 1 removed"),
    "copied": ([*ROWS, {**ROWS[0], "id": "copy"}], "4 -> 5 rows: 1 added"),
    "all others": (
        [{"id": "a", "prompt": "b", "completion": " c"}],
        "4 -> 1 rows: 1 added, 4 removed",
    ),
    "several": (
        [*with_(2, completion=" other")[1:], {"id": "n", "prompt": "n", "completion": " n"}],
        "4 rows: 1 added, 1 removed, 1 relabelled",
    ),
}


@pytest.mark.parametrize("from_table", [False, True], ids=["examples", "table"])
@pytest.mark.parametrize("case", CASES)
def test_changes(case: str, from_table: bool) -> None:
    """Every kind of change is counted, also if the old rows are those of a log's table."""
    after, text = CASES[case]
    old, new = (load(rows, "eval", Path(), Columns()).examples for rows in (ROWS, after))
    before = rows_of_examples(old)
    if from_table:
        results = [
            ExampleResult(
                e.id, e.content, e.tags, 1.0, 1, 1, True, (e.expected or "").strip(), "out"
            )
            for e in old
        ]
        before = rows_of_results(results)
    assert text == row_changes(before, rows_of_examples(new))


def test_rows_without_ids() -> None:
    """Their ids are hashes of the content: an edited row is recognised by its prompt."""
    rows = [{k: v for k, v in row.items() if k != "id"} for row in ROWS]
    other = [{**rows[0], "completion": " other"}, *rows[1:3]]
    old, new = (load(each, "train", Path(), Columns()).examples for each in (rows, other))
    text = row_changes(rows_of_examples(old), rows_of_examples(new))
    assert "4 -> 3 rows: 1 removed, 1 relabelled" == text


def test_texts() -> None:
    """Plain texts have nothing to pair by but their content."""
    old, new = (
        load([{"text": text} for text in texts], "train", Path(), Columns()).examples
        for texts in ("abc", "abd")
    )
    text = row_changes(rows_of_examples(old), rows_of_examples(new))
    assert "3 rows: 1 added, 1 removed" == text


def test_another_question_under_the_same_id() -> None:
    """A row with another prompt and another answer was edited, not relabelled."""
    after = with_(1, prompt="other", completion=" other")
    old, new = (load(rows, "eval", Path(), Columns()).examples for rows in (ROWS, after))
    assert "4 rows: 1 edited" == row_changes(rows_of_examples(old), rows_of_examples(new))


def test_rows_before_and_after() -> None:
    """Up to three rows are shown, one of each kind in turn, each with its text before and after."""
    after = [*with_(1, completion=" other")[1:], {"id": "n", "prompt": "n", "completion": " n"}]
    old, new = (load(rows, "eval", Path(), Columns()).examples for rows in (ROWS, after))
    change = data_change("train", rows_of_examples(old), rows_of_examples(new))
    assert "4 rows: 1 added, 1 removed, 1 relabelled" == change.text
    assert [
        RowEdit("relabelled", "r1", "p1", "c1", "other"),
        RowEdit("removed", "r0", "p0", "c0", ""),
        RowEdit("added", "n", "n", "", "n"),
    ] == list(change.edits)


def test_different_relabellings_come_first() -> None:
    """Three rows of one mistake would hide that there is a second one."""
    labels = ["a", "a", "a", "b", "a", "c"]
    rows = [{"id": f"r{n}", "prompt": f"p{n}", "completion": f" {x}"} for n, x in enumerate(labels)]
    other = [{**row, "completion": " x"} for row in rows]
    old, new = (load(each, "train", Path(), Columns()).examples for each in (rows, other))
    change = data_change("train", rows_of_examples(old), rows_of_examples(new))
    assert ["r0", "r3", "r5"] == [edit.id for edit in change.edits]
    assert ["a", "b", "c"] == [edit.before for edit in change.edits]
