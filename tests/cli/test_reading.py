"""Commands that judge, show, diff, report, accept and export import nothing of the user's code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.reading import read_inputs
from tests.loops import BETTER, EVAL, SAME, TRAIN, WORSE

if TYPE_CHECKING:
    from tests.loops import Loops

Capture = pytest.CaptureFixture[str]

READING = (
    ["gate"],
    ["gate", "--staged"],
    ["gate", "HEAD~1..HEAD"],
    ["diff"],
    ["diff", "HEAD~1...HEAD"],
    ["run", "--replay"],
    ["log"],
    ["show", "best"],
    ["suggest"],
    ["report", "-o", "page.html"],
    ["ci", "--out", "out"],
    ["accept", "best"],
    ["accept", "best", "--baseline"],
    ["export", "best"],
)
"""Every command that reads a log of a loop."""

CODE = """\
from pathlib import Path
def note():
    Path({marker!r}).touch()
note()
def score(output, expected, example):
    note()
    return output == expected
def train():
    note()
    return {train!r}
def held_out():
    note()
    return {eval!r}
def adjust(chain):
    note()
    return {{}}
def figure(outputs, expected, rows):
    note()
    return 1.0
"""
"""Code of a loop that leaves a mark where it is imported or called."""


@pytest.fixture
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that is the mark."""
    return tmp_path_factory.mktemp("marks") / "imported"


def write(loops: Loops, marker: Path, rate: str, where: str, source: str = "") -> None:
    """A loop whose code is at one place of its loop file."""
    more = "loop: {iterations: 1}\n"
    data, scoring = "data: {train: train.jsonl, eval: eval.jsonl}", ""
    if where == "scorer":
        scoring = "scoring: {scorer: 'code_of_loop:score'}\n"
    elif where == "train":
        data = "data: {train: 'code_of_loop:train', eval: eval.jsonl}"
    elif where == "metric":
        scoring = "metrics: {mine: 'code_of_loop:figure'}\n"
    elif where == "both":
        data = "data: {train: 'code_of_loop:train', eval: 'code_of_loop:held_out'}"
    else:
        more = "loop: {iterations: 1, policy: 'code_of_loop:adjust'}\n"
    loops.write(rate=rate, loop="{iterations: 1}")
    text = (loops.root / "x.ftloop.yaml").read_text()
    text = text.replace("data: {train: train.jsonl, eval: eval.jsonl}", data)
    text = text.replace("loop: {iterations: 1}\n", more) + scoring
    loops.put("x.ftloop.yaml", text)
    code = CODE.format(marker=str(marker), train=TRAIN, eval=EVAL) + source
    loops.put("code_of_loop.py", code)


@pytest.mark.parametrize("where", ["scorer", "train", "both", "policy", "metric"])
def test_no_command_that_reads_imports_code(
    loops: Loops, marker: Path, where: str, capsys: Capture
) -> None:
    """Of the working tree, the index and a commit, wherever the loop file names a function."""
    write(loops, marker, SAME, where)
    loops.train()
    loops.commit()
    write(loops, marker, WORSE, where, "# another version\n" if where == "policy" else "")
    loops.train()
    loops.commit()
    assert marker.is_file(), "training runs the code"
    marker.unlink()
    for command in READING:
        sys.modules.pop("code_of_loop", None)  # else a second import would run nothing
        code = main(command)
        out, err = capsys.readouterr()
        assert not marker.exists(), command
        assert "Traceback" not in out + err
        if command[0] in ("gate", "ci"):
            assert (1, True) == (code, "regressed" in out), (command, out, err)
        elif command[0] not in ("export", "suggest"):
            assert code in (0, 1), (command, out, err)


@pytest.mark.parametrize("where", ["train", "both"])
def test_settings_without_a_log_are_out_of_date(loops: Loops, marker: Path, where: str) -> None:
    """Also where the rows are a function's: all else that the loop file states is compared."""
    write(loops, marker, SAME, where)
    loops.train()
    assert 0 == main(["gate"])
    write(loops, marker, WORSE, where)
    assert 3 == main(["gate"])


def test_rows_that_were_not_made_are_told(loops: Loops, marker: Path, capsys: Capture) -> None:
    """A note says which function was not run, in text and in JSON."""
    write(loops, marker, SAME, "train")
    loops.train()
    loops.commit()
    capsys.readouterr()
    note = "the data function code_of_loop:train was not run"
    assert 0 == main(["gate"])
    assert note in capsys.readouterr().out
    assert 0 == main(["gate", "--json"])
    assert note in json.dumps(json.loads(capsys.readouterr().out))


def test_a_changed_scorer_is_seen_in_its_text(loops: Loops, marker: Path, capsys: Capture) -> None:
    """Code that can't even be imported makes the log out of date, and is not run."""
    write(loops, marker, SAME, "scorer")
    loops.train()
    write(loops, marker, SAME, "scorer", "raise SystemExit('run!')\n")
    marker.unlink()
    capsys.readouterr()
    assert 3 == main(["gate"])
    assert "the code of code_of_loop:score" in capsys.readouterr().err
    assert not marker.exists()


def test_a_gate_that_needs_code_does_not_hold_without_it(
    loops: Loops, marker: Path, capsys: Capture
) -> None:
    """A metric that decides and is a function: the verdict is incomplete, and says who runs it."""
    for rate in (SAME, BETTER):
        write(loops, marker, rate, "metric")
        text = (loops.root / "x.ftloop.yaml").read_text()
        text = text.replace("regression: {}", "regression: {metrics: [eval_loss, mine]}")
        loops.put("x.ftloop.yaml", text)
        loops.train()
        loops.commit()
    marker.unlink()
    sys.modules.pop("code_of_loop", None)
    capsys.readouterr()
    assert 3 == main(["gate", "HEAD~1..HEAD"])
    out = capsys.readouterr().out
    assert "incomplete" in out
    assert "mine is computed by code_of_loop:figure, which runs in pytest --ftloop-replay" in (
        " ".join(out.split())
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    "guard",
    ["'code_of_loop:held_out'", "{source: eval.jsonl, scoring: {scorer: 'code_of_loop:score'}}"],
)
def test_guards_are_read_without_code(loops: Loops, marker: Path, guard: str) -> None:
    """Neither a guard's rows nor its scoring is run to know its identity."""
    write(loops, marker, SAME, "scorer")
    text = (loops.root / "x.ftloop.yaml").read_text()
    loops.put("x.ftloop.yaml", text.replace("eval.jsonl}", f"eval.jsonl, guards: {{g: {guard}}}}}"))
    config = read_loop_file(loops.root / "x.ftloop.yaml")
    inputs = read_inputs(config, ImprovementLog(loops.root / "improvement_log" / "x"))
    assert ["g"] == list(inputs.guard_identities)
    assert not marker.exists()
