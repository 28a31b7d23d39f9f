"""Commands that a verdict or an error names run as printed where there are several loops."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pytest_ftloop.cli import main
from tests.cli.cli_cases import Capture
from tests.gitfakes import GitRepo
from tests.loops import IN_DOUBT, WORSE, Loops


def two_loops(loops: Loops, rate: str) -> None:
    """The loops x and y in folders of their own; y is at another rate now."""
    for name in "xy":
        loops.write(name, f"{name} loops/")
    loops.train()
    loops.commit()
    loops.write("y", "y loops/", rate=rate)
    loops.train()


@pytest.mark.parametrize("command", [["gate"], ["diff"], ["run", "--replay", "-v"]], ids=" ".join)
def test_of_a_verdict(loops: Loops, capsys: Capture, command: list[str]) -> None:
    """Calibrating is named with the loop's file, quoted, and calibrates that loop alone."""
    two_loops(loops, IN_DOUBT)
    capsys.readouterr()
    main(command)
    text = " ".join(capsys.readouterr().out.split())
    assert "ftloop calibrate 'y loops/y.ftloop.yaml'" in text
    assert not re.search(r"ftloop calibrate (?!'[xy] loops/)", text)
    (calibrate,) = {*re.findall(r"ftloop (calibrate 'y loops/y.ftloop.yaml')", text)}
    assert 0 == main(shlex.split(calibrate))
    assert {"y"} == {line.split()[0] for line in loops.trained()[-2:]}
    capsys.readouterr()
    main(command)
    assert "ftloop calibrate 'y loops" not in " ".join(capsys.readouterr().out.split())


def test_of_rows_that_were_changed(
    loops: Loops, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restoring a data file is named from the working folder, and gives its rows back."""
    two_loops(loops, WORSE)
    rows = loops.root / "y loops" / "train.jsonl"
    before = rows.read_text(encoding="utf-8")
    rows.write_text(before.replace('" c1"', '" other"'), encoding="utf-8", newline="\n")
    loops.train()
    monkeypatch.chdir("x loops")
    capsys.readouterr()
    main(["gate", "../y loops"])
    out = capsys.readouterr().out
    assert "what to do: restore data.train, set training.learning_rate back to 1e-3:\n" in out
    (restore,) = re.findall(r"^  git (checkout .+)$", out, re.MULTILINE)
    assert restore.endswith(" -- '../y loops/train.jsonl'")
    assert before != rows.read_text(encoding="utf-8")
    git = GitRepo(Path.cwd())
    git.git(*shlex.split(restore))
    assert before == rows.read_text(encoding="utf-8")


@pytest.mark.parametrize("kept", [True, False], ids=["at the commit", "older than it"])
def test_rows_are_restored_from_a_commit_that_has_them(
    loops: Loops, capsys: Capture, kept: bool
) -> None:
    """Where the baseline's commit has other rows than were trained on, no command is named."""
    loops.version()
    rows = loops.root / "train.jsonl"
    text = rows.read_text(encoding="utf-8")
    if not kept:
        rows.write_text(text.replace('" c1"', '" older"'), encoding="utf-8", newline="\n")
        loops.commit()
    loops.write(rate=WORSE)
    rows.write_text(text.replace('" c1"', '" other"'), encoding="utf-8", newline="\n")
    loops.train()
    capsys.readouterr()
    main(["gate"])
    out = capsys.readouterr().out
    assert "what to do: restore data.train, set training.learning_rate back to 1e-3" in out
    assert ("  git checkout " in out) is kept


def test_of_a_version_that_is_committed(loops: Loops, capsys: Capture) -> None:
    """Accepting is named with the loop's file: without it the command asks which loop."""
    two_loops(loops, WORSE)
    first = loops.repo.git("rev-parse", "HEAD").strip()
    loops.commit()
    loops.repo.git("tag", "base", first)
    capsys.readouterr()
    main(["run", "--replay", "-v", "--baseline", "base"])
    text = " ".join(capsys.readouterr().out.split())
    assert "ftloop accept best 'y loops/y.ftloop.yaml' --baseline" in text


def test_of_a_log_that_nothing_judges(
    loops: Loops, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retiring a log is named by a path from the working folder."""
    two_loops(loops, WORSE)
    loops.commit()
    Path("y loops/y.ftloop.yaml").unlink()
    monkeypatch.chdir("x loops")
    capsys.readouterr()
    main(["gate", "HEAD~1", "../y loops"])
    err = capsys.readouterr().err
    (retire,) = re.findall(r"ftloop (accept --retire .+), and commit", err)
    assert "accept --retire '../y loops/improvement_log/y'" == retire
    assert 0 == main(shlex.split(retire))
