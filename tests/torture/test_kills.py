"""What breaks writes does break each, and sees them all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from itertools import count
from pathlib import Path

import pytest

from pytest_ftloop.core.files import write_atomically
from tests.torture.kills import Write, flipped, killed_at, refusing, torn, writes_of

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def test_every_write_is_seen(tmp_path: Path) -> None:
    """Files and folders that are made, written, renamed, copied and removed; no read."""
    one, two, folder = tmp_path / "one", tmp_path / "two", tmp_path / "folder"

    def do() -> None:
        folder.mkdir()
        one.write_text("text")
        one.read_text()
        shutil.copyfile(one, two)
        with two.open("ab") as file:
            file.write(b"more")
        two.replace(folder / "two")
        shutil.rmtree(folder)
        one.unlink()

    seen = [(w.what, Path(w.path).name) for w in writes_of(do, tmp_path)]
    assert [
        ("mkdir", "folder"),
        ("create", "one"),
        ("write", "one"),
        ("create", "two"),
        ("write", "two"),
        ("create", "two"),
        ("write", "two"),
        ("rename", "two"),
        ("remove", "two"),
        ("rmdir", "folder"),
        ("remove", "one"),
    ] == seen


def test_writes_elsewhere_do_not_count(tmp_path: Path) -> None:
    """Only what is below the stated folders, and no lock."""
    (tmp_path / "here").mkdir()

    def do() -> None:
        for name in ("there", "here/x.lock", "here/x"):
            (tmp_path / name).write_text("text")

    here = str(tmp_path / "here/x")
    assert [Write("create", here), Write("write", here)] == writes_of(do, tmp_path / "here")


@needs_fork
def test_killed_at_each_write(tmp_path: Path) -> None:
    """The process dies there for certain, before anything can be tidied; half is written."""
    file = tmp_path / "file"
    left = []
    for n in count(1):
        write = killed_at(n, lambda: write_atomically(file, "12345678"))
        if write is None:
            break
        found = {path.suffix or path.name: path.read_text() for path in tmp_path.iterdir()}
        left.append((write.what, found))
        for path in tmp_path.iterdir():
            path.unlink()
    assert [
        ("create", {}),
        ("write", {".tmp": "1234"}),
        ("sync", {".tmp": "12345678"}),
        ("rename", {".tmp": "12345678"}),
    ] == left[:4] or sys.platform != "linux"
    assert "12345678" == file.read_text()


@needs_fork
def test_a_failure_is_not_taken_for_a_kill() -> None:
    """What fails by itself is the test's failure, with its traceback."""
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        killed_at(1, lambda: 1 // 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES])
def test_refused_at_each_write(tmp_path: Path, number: int) -> None:
    """The error is that of the system; what was written before stays."""
    file = tmp_path / "file"
    for n in count(1):
        file.write_text("old")
        raised = None
        with refusing(n, number) as disk:
            try:
                write_atomically(file, "new")
            except OSError as error:
                raised = error
        if not disk.broken:
            break
        assert raised is not None
        assert (number, os.strerror(number)) == (raised.errno, raised.strerror)
        # The last write is to remove the temporary file, which the rename has moved by then.
        assert ("new" if disk.broken[0].what == "remove" else "old") == file.read_text()
    assert "new" == file.read_text()
    # A full disk still renames: there is one write less to refuse.
    assert n > 4 if number != errno.ENOSPC else n == 4


def test_a_disk_that_stays_full(tmp_path: Path) -> None:
    """All that needs room fails from then on; to remove is possible."""
    (tmp_path / "old").write_text("old")
    with refusing(2, errno.ENOSPC, lasts=True):
        (tmp_path / "first").touch()
        for name in ("second", "third"):
            with pytest.raises(OSError, match="No space"):
                (tmp_path / name).touch()
        (tmp_path / "old").unlink()
    assert ["first"] == [path.name for path in tmp_path.iterdir()]


def test_torn_and_flipped() -> None:
    """Each is another content, and one bit is one bit."""
    whole = bytes(range(64))
    assert whole not in list(torn(whole))
    assert len(set(torn(whole))) > 16
    for changed in flipped(whole):
        assert 1 == sum((a ^ b).bit_count() for a, b in zip(whole, changed, strict=True))
