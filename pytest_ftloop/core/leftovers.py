"""What a killed process left of the files and folders that it was writing (`files.replacing`)."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_NAME = re.compile(
    r"\.(?P<of>.+)\.(?:(?P<machine>[0-9a-f]{6})-)?(?P<process>\d+)\.\d+\.(?P<kind>tmp|old)"
)

_LONG_S = 3600
"""Seconds without a change after which nobody writes it any more: a new process may have the number
of its writer, and of another machine's processes nothing is known."""


@dataclass(frozen=True)
class Leftover:
    """A hidden file or folder, and the path that it was to become or was moved from."""

    path: Path
    of: Path
    was_moved: bool

    def remove(self) -> None:
        """Remove it; what was moved away from a place that is empty now goes back there."""
        if self.was_moved and not os.path.lexists(self.of):
            self.path.rename(self.of)
        elif self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def sweep(folder: Path, of: str = "") -> None:
    """Remove from a folder what killed processes left there; with `of` only of this file or folder.

    Nothing that a running process, or one of another machine, is writing; nothing behind a link;
    and nothing whose name has another form. What can't be removed stays: that is no reason for a
    run to fail.
    """
    for leftover in _leftovers(folder, of):
        with suppress(OSError):
            leftover.remove()


def hidden_name(name: str) -> str:
    """The start of the names that this process and thread use for what is to become `name`.

    No two writers use the same one, nor do machines or containers that share a folder.
    """
    return f".{name}.{_machine()}-{os.getpid()}.{threading.get_ident()}"


@cache
def _machine() -> str:
    """A short hash of the machine, or of the container: its processes have their own numbers."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not on Linux
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:6]


def is_leftover(name: str) -> bool:
    """Whether a name is of the form that `files.replacing` gives to what it is writing."""
    return _NAME.fullmatch(name) is not None


def _leftovers(folder: Path, of: str) -> Iterator[Leftover]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(f".{of}"))
    except OSError:
        return
    # The old ones first: whether a new one is complete is not known.
    for name in sorted(names, key=lambda name: not name.endswith(".old")):
        match = _NAME.fullmatch(name)
        if match is None or (of and match["of"] != of):
            continue
        path = folder / name
        is_elsewhere = match["machine"] not in (None, _machine())
        if not _is_written(int(match["process"]), path, is_elsewhere=is_elsewhere):
            yield Leftover(path, folder / match["of"], match["kind"] == "old")


def _is_written(process: int, path: Path, *, is_elsewhere: bool) -> bool:
    """Whether a process, on this machine or elsewhere, may still be writing it."""
    if not is_elsewhere and not is_running(process):
        return False
    try:
        changed = max(p.lstat().st_mtime for p in (path, *_below(path)))
    except OSError:  # it was there a moment ago: its writer has just moved it to its place
        return True
    return time.time() - changed < _LONG_S


def _below(path: Path) -> Iterator[Path]:
    for parent, _, files in os.walk(path):
        yield from (Path(parent, file) for file in files)


def is_running(process: int) -> bool:
    """Whether there is a process of this number on this machine; on Windows always."""
    if os.name == "nt":  # where a signal would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's
    return True
