"""An error about the holdout names its place, and quotes no row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.core.errors import DataError, FtloopError, ScoringError
from tests.loop.lab import HOLDOUT, SECRET, Lab

WORD = "xyzzy"
"""A word of each text of the holdout, also where an error cuts the text."""

ROW = HOLDOUT[0]

MODULE = f"""
def rows():
    raise ValueError("row 3: {SECRET}")

def scorer(output, expected, example):
    if "{WORD}" in expected:
        raise ValueError(f"can't read {{expected}}")
    return True

def odd(output, expected, example):
    return expected if "{WORD}" in expected else True

def metric(outputs, expected, rows):
    if "{WORD}" in rows[0]["prompt"]:
        raise ValueError(expected[0])
    return 0.5

def no_number(outputs, expected, rows):
    return expected[0] if "{WORD}" in rows[0]["prompt"] else 0.5
"""

BAD_ROWS: dict[str, dict[str, Any]] = {
    "a message without role": {"messages": [{"content": SECRET}]},
    "a message that is text": {"messages": [SECRET]},
    "a turn without value": {"conversations": [{"from": "human", "text": SECRET}]},
    "a turn of nobody": {"conversations": [{"from": SECRET, "value": "x"}]},
    "tokens that are text": {"input_ids": [SECRET]},
    "an id twice": {**ROW, "id": SECRET},
    "a mixed form": {"text": SECRET},
}


def judged(lab: Lab, holdout: Any, **more: Any) -> str:
    """What is printed of the error that judging ends with."""
    with pytest.raises((DataError, ScoringError)) as caught:
        lab.judged(holdout=holdout, more=more)
    assert caught.value.__cause__ is None  # it would be in the text of FTLOOP_TRACEBACK
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("rows.jsonl", bad) for bad in BAD_ROWS.values()),
        *((name, BAD_ROWS["a message that is text"]) for name in ("rows.json", "live")),
    ],
    ids=[*BAD_ROWS, "in a list", "of a live object"],
)
def test_a_row_that_is_no_example(lab: Lab, name: str, bad: dict[str, Any]) -> None:
    """The place is named, with the file's line, and the row is not quoted."""
    rows = [{**ROW, "id": SECRET}, bad] if "id" in bad else [bad, bad]
    if "text" in bad:
        rows = [ROW, bad]
    source: Any = rows
    if name != "live":
        lines = [json.dumps(row) for row in rows]
        text = "\n".join(lines) if name.endswith("l") else f"[{','.join(lines)}]"
        Path(lab.folder, name).write_text(text)
        source = name
    said = judged(lab, source)
    assert WORD not in said
    assert "holdout" in said
    if name == "rows.jsonl":
        assert f"{name}:{2 if 'id' in bad or 'text' in bad else 1}" in said


@pytest.mark.parametrize(
    "more",
    [
        {"scoring": {"scorer": "json"}},
        {"scoring": {"scorer": "number"}},
        {"scoring": {"scorer": "helper:scorer"}},
        {"scoring": {"scorer": "helper:odd"}},
        {"metrics": {"m": "helper:metric"}},
        {"metrics": {"m": "helper:no_number"}},
    ],
    ids=str,
)
def test_a_row_that_can_not_be_scored(lab: Lab, more: dict[str, Any]) -> None:
    """Nor does an error of a scorer or a metric quote a row, an expected text or an answer."""
    Path(lab.folder, "helper.py").write_text(MODULE)
    eval_ = [{"id": f"e{n}", "prompt": "q", "completion": f" {n}"} for n in range(3)]
    holdout = [{**row, "completion": f" {SECRET}"} for row in HOLDOUT]
    said = judged(lab, holdout, eval=eval_, **more)
    assert WORD not in said
    assert "holdout" in said


def test_a_function_of_rows_that_raises(lab: Lab) -> None:
    """What the function raised is not printed, but of what kind it was."""
    Path(lab.folder, "helper.py").write_text(MODULE)
    said = judged(lab, "helper:rows")
    assert WORD not in said
    assert "ValueError" in said


def test_a_file_that_is_not_there(lab: Lab) -> None:
    """An error that is about no row is printed as it is."""
    with pytest.raises(FtloopError, match=r"data file .*nowhere.jsonl does not exist"):
        lab.judged(holdout="nowhere.jsonl")
