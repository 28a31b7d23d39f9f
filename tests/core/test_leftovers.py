"""What killed processes leave is removed; what anyone may still be using is not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pytest_ftloop.core import temporary
from pytest_ftloop.core.files import replacing, write_atomically
from pytest_ftloop.core.leftovers import hidden_name, is_leftover, is_running, sweep
from pytest_ftloop.core.temporary import MARK, sweep_temporary, temporary_folder

DEAD, ALIVE = 999_999_999, os.getppid()

MACHINE, ELSEWHERE = hidden_name("x").split(".")[2].partition("-")[0], "0a0a0a"
"""This machine in names, and another that shares a folder with it, such as a CI container."""

HOURS_AGO = time.time() - 2 * 3600


def test_what_runs() -> None:
    """This process and its parent run; one that has ended does not."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert [True, True, False, False] == [
        is_running(p) for p in (os.getpid(), ALIVE, DEAD, ended.pid)
    ]


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        (f".x.yaml.{DEAD}.1.tmp", False),
        (f".x.yaml.{ALIVE}.1.tmp", True),
        (f".x.yaml.{MACHINE}-{DEAD}.1.tmp", False),
        (f".x.yaml.{MACHINE}-{ALIVE}.1.tmp", True),
        (f".x.yaml.{ELSEWHERE}-{DEAD}.1.tmp", True),
        (f".x.yaml.{DEAD}.tmp", True),  # of another form: somebody else's
        (".x.yaml.swp", True),
        ("x.yaml", True),
        (f"x.yaml.{DEAD}.1.tmp", True),
    ],
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_only_the_dead_are_swept(tmp_path: Path, name: str, stays: bool, kind: str) -> None:
    """By the process in the name: a file that another process is writing stays."""
    if kind == "file":
        (tmp_path / name).write_text("half")
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("half")
    sweep(tmp_path)
    assert stays == (tmp_path / name).exists()


@pytest.mark.parametrize("process", [ALIVE, f"{ELSEWHERE}-{DEAD}"])
def test_an_old_one_is_nobodys(tmp_path: Path, process: int | str) -> None:
    """A number is given again: what has not changed for an hour is not being written."""
    left = tmp_path / f".x.{process}.1.tmp"
    left.write_text("half")
    os.utime(left, (HOURS_AGO, HOURS_AGO))
    sweep(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_what_was_moved_away_comes_back(tmp_path: Path, replaced: bool) -> None:
    """Killed while a folder takes the place of another: the old one, or the new one, is whole."""
    (tmp_path / f".x.{DEAD}.1.old").mkdir()
    (tmp_path / f".x.{DEAD}.1.old/old").touch()
    (tmp_path / ("x" if replaced else f".x.{DEAD}.1.tmp")).mkdir()
    sweep(tmp_path)
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*"))
    assert (["x"] if replaced else ["x", "x/old"]) == found


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link of such a name is removed, and what it leads to is not."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/file").touch()
    (tmp_path / f".x.{DEAD}.1.tmp").symlink_to(tmp_path / "theirs", target_is_directory=True)
    sweep(tmp_path)
    assert ["theirs"] == [path.name for path in tmp_path.iterdir()]
    assert (tmp_path / "theirs/file").exists()


def test_what_is_being_written_has_the_form(tmp_path: Path) -> None:
    """The names of `replacing` are known as those of a writer of this machine, which runs."""
    with replacing(tmp_path / "x") as making:
        making.touch()
        assert is_leftover(making.name)
        sweep(tmp_path)
        assert making.exists()
    assert ["x"] == [path.name for path in tmp_path.iterdir()]


def test_the_next_writer_tidies(tmp_path: Path) -> None:
    """Whoever writes a path removes what another left of it, and of no other path."""
    for name in ("x", "xy"):
        (tmp_path / f".{name}.{DEAD}.1.tmp").touch()
    write_atomically(tmp_path / "x", "text")
    assert [f".xy.{DEAD}.1.tmp", "x"] == sorted(path.name for path in tmp_path.iterdir())


HOLDS = """
import os, signal
from pytest_ftloop.core.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "checkpoint").touch()
    print(folder, flush=True)
    input()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders can't be locked")
def test_temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process's folder is removed at once; not one that is used, or the user's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    users = tmp_path / "ftloop-run-abcdefgh"
    users.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        folder = Path(process.stdout.readline().strip())
        os.utime(folder, (HOURS_AGO, HOURS_AGO))
        os.utime(users, (HOURS_AGO, HOURS_AGO))
        sweep_temporary()
        assert (folder / MARK).exists()
        process.kill()
        process.wait()
    os.utime(folder)
    sweep_temporary()
    assert [users] == list(tmp_path.iterdir())


def test_a_temporary_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, after an error too; and where folders can't be locked."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        with temporary_folder() as folder:
            (folder / "x").mkdir()
            raise ZeroDivisionError

    for can_lock in (temporary._CAN_LOCK, False):
        monkeypatch.setattr(temporary, "_CAN_LOCK", can_lock)
        with pytest.raises(ZeroDivisionError):
            fail()
        assert [] == list(tmp_path.iterdir())
