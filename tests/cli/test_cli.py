"""The command `ftloop`: its exit codes, what it finds, and what it prints."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.cli.main import COMMANDS
from pytest_ftloop.log import ImprovementLog
from tests.cli.cli_cases import LOOP, Capture
from tests.processes import LONG_S


def python(code: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **options)


# the whole


def test_help_has_every_command_with_an_example(capsys: Capture) -> None:
    """--help lists the commands; each command's own help shows how it is used."""
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert 0 == exited.value.code
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^    {command.name} +{re.escape(command.help)}$", out, re.MULTILINE)
        with pytest.raises(SystemExit):
            main([command.name, "--help"])
        assert f"examples:\n  ftloop {command.name}" in capsys.readouterr().out


def test_version(capsys: Capture) -> None:
    """--version is the installed distribution's."""
    assert 0 == main(["--version"])
    expected = f"pytest-ftloop {importlib.metadata.version('pytest-ftloop')}\n"
    assert expected == capsys.readouterr().out


def test_no_command_is_a_usage_error(capsys: Capture) -> None:
    """`ftloop` alone says what there is, on stderr."""
    assert 2 == main([])
    assert "commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["lgo"],
        ["run", "--iterations", "0"],
        ["run", "--iterations", "x"],
        ["run", "--retrain", "--replay"],
        ["run", "-q", "-v"],
        ["run", "--retr"],
        ["log", "--format", "html"],
        ["show"],
    ],
)
def test_usage_errors(argv: list[str], capsys: Capture) -> None:
    """What argparse refuses exits with 2 and a usage line."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    assert 2 == exited.value.code
    assert capsys.readouterr().err.startswith("usage: ftloop")


@pytest.mark.parametrize("command", [["run"], ["log"], ["show", "1"]])
def test_path_that_is_not_there(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    """A PATH that does not exist is named, in one message on stderr."""
    assert 2 == main([*command, str(tmp_path / "no")])
    assert ("", f"{tmp_path}/no: no such file or folder\n") == capsys.readouterr()


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["run"], "no loop file (*.ftloop.yaml) found in "),
        (["log"], "neither a loop file (*.ftloop.yaml) nor an improvement log found in "),
        (["show", "1"], "neither a loop file (*.ftloop.yaml) nor an improvement log found in "),
    ],
)
def test_nothing_found(command: list[str], wanted: str, tmp_path: Path, capsys: Capture) -> None:
    """A folder without loops is an error that says how to begin."""
    assert 2 == main([*command, str(tmp_path)])
    out, err = capsys.readouterr()
    assert "" == out
    assert f"{wanted}{tmp_path}\n" in err
    assert "'ftloop init'" in err


@pytest.mark.parametrize("command", [["run"], ["log"], ["show", "1"]])
def test_broken_loop_file(command: list[str], make_loop: Any, capsys: Capture) -> None:
    """A mistake in the loop file is shown with file, line and cure, without a traceback."""
    file = make_loop(text=LOOP + "mdel: tiny\n")
    assert 2 == main([*command, str(file)])
    out, err = capsys.readouterr()
    assert "" == out
    assert f"{file}:4: unknown key 'mdel'\n  Did you mean 'model'?\n" == err


def test_our_bugs_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, make_loop: Any, capsys: Capture
) -> None:
    """A bug exits with 2, since 1 would mean a failed gate, and shows where it was."""
    monkeypatch.setattr(ImprovementLog, "read", lambda self: 1 // 0)
    assert 2 == main(["log", str(make_loop())])
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_a_traceback_on_request(
    monkeypatch: pytest.MonkeyPatch, make_loop: Any, capsys: Capture
) -> None:
    """FTLOOP_TRACEBACK=1 shows where an error was raised, above its message."""
    file = make_loop(text=LOOP + "mdel: tiny\n")
    monkeypatch.setenv("FTLOOP_TRACEBACK", "1")
    assert 2 == main(["run", str(file)])
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(f"{file}:4: unknown key 'mdel'\n  Did you mean 'model'?\n")


def test_reading_a_log_imports_nothing_heavy(tmp_path: Path, fill: Any, make_loop: Any) -> None:
    """`ftloop log` and `ftloop show` need neither torch nor pandas, nor what they bring."""
    fill(0.4)
    make_loop()
    code = """
import sys
from pytest_ftloop.cli import main
assert 0 == main(["log"]) == main(["show", "1"])
heavy = {"torch", "transformers", "datasets", "pandas", "numpy", "trl", "peft", "tabulate"}
print("HEAVY", sorted(heavy & set(sys.modules)))
"""
    done = python(code, tmp_path)
    assert "HEAVY []" == done.stdout.splitlines()[-1], done.stderr


def test_module_is_the_command(tmp_path: Path) -> None:
    """`python -m pytest_ftloop` is `ftloop`, exit code included."""
    command = [sys.executable, "-m", "pytest_ftloop", "log", "no"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (2, "", "no: no such file or folder\n") == (done.returncode, done.stdout, done.stderr)


def test_reader_that_leaves(tmp_path: Path, fill: Any) -> None:
    """A broken pipe (`ftloop log | head -1`) is silent."""
    fill(*[0.5] * 30)
    command = [sys.executable, "-m", "pytest_ftloop", "log"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (141, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_interrupted(tmp_path: Path, make_loop: Any) -> None:
    """Ctrl-C is one line, after what was told of the data, and exit code 130."""
    make_loop()
    code = """
import sys, time
from pytest_ftloop.cli import main
from pytest_ftloop.loop import backend
def train(*_, **__):
    print("READY", flush=True)
    time.sleep(600)
backend.LocalBackend.train = train
sys.exit(main(["run"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert "READY\n" == process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONG_S)
    assert 130 == process.returncode
    told, _, last = err.rstrip("\n").rpartition("\n")
    assert told.startswith("ftloop sentiment: warning small-eval-set: ")
    assert last.startswith("interrupted: finished iterations are")
    assert "Traceback" not in err


def test_text_that_the_terminal_lacks(tmp_path: Path, fill: Any) -> None:
    """A terminal that is not UTF-8 gets escapes and ASCII curves, not an error."""
    fill(0.4, environment={"device": "Grüße 日本"})
    code = "import sys; from pytest_ftloop.cli import main; sys.exit(main(['show', '1']))"
    done = python(code, tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (0, "") == (done.returncode, done.stderr)
    assert r"Gr\xfc\xdfe" in done.stdout
    assert done.stdout.isascii()
