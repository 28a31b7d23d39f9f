"""What a change did: every report begins with it."""

from __future__ import annotations

import pytest

from pytest_ftloop.core.data_changes import DataChange, RowEdit
from pytest_ftloop.gate.difference import SettingChange
from pytest_ftloop.report.cause import cause_lines, edit_text

RATE = SettingChange("training.learning_rate", 1e-3, None)
HASHES = SettingChange("data.train", "6 rows, aaaa", "6 rows, bbbb")
ROWS = DataChange(
    "train", "6 rows: 1 relabelled", (RowEdit("relabelled", "t1", "p1", "yes", "no"),)
)


def test_settings_then_data() -> None:
    """Rows that are known stand for the hashes of their data set."""
    assert [
        "what this change did, against HEAD:",
        "  training.learning_rate 1e-3 -> not set",
        "  data.train 6 rows: 1 relabelled",
        '    t1 relabelled "yes" -> "no", "p1"',
    ] == cause_lines([RATE, HASHES], [ROWS], None, "HEAD", 80)
    assert "  data.train 6 rows, aaaa -> 6 rows, bbbb" in cause_lines([HASHES], [], None, "", 80)


def test_nothing_changed_is_one_line() -> None:
    """It says what was compared."""
    wanted = "unchanged, against HEAD: settings, data, model and scoring"
    assert [wanted] == cause_lines([], [], None, "HEAD", 80)


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (RowEdit("edited", "t1", "new", "old", "new"), 't1 edited "old" -> "new"'),
        (RowEdit("added", "t1", "p1", "", "yes"), 't1 added "yes", "p1"'),
        (RowEdit("removed", "t1", "p1", "yes", ""), 't1 removed "yes", "p1"'),
    ],
)
def test_a_row_before_and_after(edit: RowEdit, wanted: str) -> None:
    """Each kind of change shows the texts that it has."""
    assert wanted == edit_text(edit, 80)
