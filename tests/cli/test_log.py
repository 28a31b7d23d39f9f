"""`ftloop log`."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from tests.cli.cli_cases import Capture
from tests.report.markdown_rows import rows_of

# log


@pytest.mark.parametrize("path", ["", "sentiment.ftloop.yaml"])
def test_log_of_a_loop(
    path: str, tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """A loop file, or the folder it is in, gives its table."""
    make_loop()
    fill(0.9, 0.4)
    assert 0 == main(["log", str(tmp_path / path)])
    lines = capsys.readouterr().out.splitlines()
    assert f"sentiment: 2 iterations in {tmp_path}/improvement_log/sentiment" == lines[0]
    assert [["1", "00000001"], ["2", "00000002"]] == [line.split()[:2] for line in lines[-2:]]


@pytest.mark.parametrize("path", ["improvement_log", "improvement_log/sentiment", ""])
def test_log_without_a_loop_file(path: str, tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A log folder, one loop's folder in it, or their parent: a loop made in Python has no file."""
    fill(0.4)
    assert 0 == main(["log", str(tmp_path / path)])
    assert capsys.readouterr().out.startswith("sentiment: 1 iteration in ")


def test_log_of_two_loops(tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture) -> None:
    """Two loops, one without a file: a table each as text, one list as JSON, one table as CSV."""
    make_loop()
    fill(0.9, 0.4)
    fill(0.7, loop="other", folder="below")
    main(["log", str(tmp_path)])
    assert ["sentiment: 2 iterations", "other: 1 iteration"] == re.findall(
        r"^\w+: \d iterations?", capsys.readouterr().out, re.MULTILINE
    )
    main(["log", str(tmp_path), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    expected = [("sentiment", 1, 0.9), ("sentiment", 2, 0.4), ("other", 1, 0.7)]
    assert expected == [(row["loop"], row["number"], row["eval_loss"]) for row in rows]
    main(["log", str(tmp_path), "--format", "csv"])
    read = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert expected == [(r["loop"], int(r["number"]), float(r["eval_loss"])) for r in read]
    main(["log", str(tmp_path), "--format", "markdown"])
    assert 2 == [row[0] for row in rows_of(capsys.readouterr().out)].count("number")


@pytest.mark.parametrize(
    ("form", "expected"),
    [("text", "sentiment: no iterations in "), ("markdown", "sentiment: no iterations in ")],
)
def test_empty_log(form: str, expected: str, make_loop: Any, capsys: Capture) -> None:
    """A log without iterations is said in a sentence, and is no error."""
    assert 0 == main(["log", str(make_loop()), "--format", form])
    assert capsys.readouterr().out.startswith(expected)


def test_empty_log_folder(tmp_path: Path, capsys: Capture) -> None:
    """An improvement_log folder with nothing in it is an empty log."""
    (tmp_path / "improvement_log").mkdir()
    assert 0 == main(["log", str(tmp_path / "improvement_log")])
    assert "no iterations in " in capsys.readouterr().out


def test_loop_file_named_like_a_record(make_loop: Any, fill: Any, capsys: Capture) -> None:
    """A loop file whose name begins with a number does not make its folder a log."""
    file = make_loop("2024-run")
    fill(0.4, loop="2024-run")
    assert 0 == main(["log", str(file.parent)])
    assert capsys.readouterr().out.startswith("2024-run: 1 iteration in ")


def test_empty_log_for_programs(make_loop: Any, capsys: Capture) -> None:
    """Without iterations JSON is an empty list, CSV a header."""
    file = make_loop()
    assert 0 == main(["log", str(file), "--format", "json"])
    assert [] == json.loads(capsys.readouterr().out)
    assert 0 == main(["log", str(file), "--format", "csv"])
    assert capsys.readouterr().out.startswith("loop,number,id,")


def test_damaged_log(tmp_path: Path, fill: Any, capsys: Capture) -> None:
    """A damaged record is an error with its cure; the other loops are shown all the same."""
    fill(0.4)
    (damaged,) = fill(0.4, loop="bad").folder.glob("001-00000001-*.yaml")
    damaged.write_text("schema: 3\n")
    assert 2 == main(["log", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.startswith("sentiment: 1 iteration")
    assert err.startswith(f"{damaged}: damaged log file")


def test_log_beside_a_broken_loop_file(
    tmp_path: Path, make_loop: Any, fill: Any, capsys: Capture
) -> None:
    """A broken loop file in the folder is reported; its log can be read yet."""
    make_loop(text="data: 3\n")
    fill(0.4)
    assert 0 == main(["log", str(tmp_path)])
    out, err = capsys.readouterr()
    assert out.startswith("sentiment: 1 iteration")
    assert "sentiment.ftloop.yaml:1: " in err
