"""Temporary folders that do not outlive a killed process for long: a later run removes them."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "ftloop-run-"

MARK = ".ftloop-run"
"""A file in each of these folders: one that a user named alike is never removed."""

_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")

_OLD_S = 7 * 24 * 3600
"""Seconds after which a folder is a killed process's where folders can't be locked (Windows)."""


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new temporary folder, removed at the end; if the process is killed, by a later run."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    held = _locked(folder)
    try:
        (folder / MARK).touch()  # once it is locked: one with the mark and no lock is nobody's
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def sweep_temporary() -> None:
    """Remove the temporary folders of this user whose processes were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # removed by another process just now, or not ours to remove
            if _NAME.fullmatch(folder.name) and _is_ours(folder):
                _remove_if_left(folder)


def _is_ours(folder: Path) -> bool:
    if folder.is_symlink() or not (folder / MARK).is_file():
        return False
    return not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()


def _remove_if_left(folder: Path) -> None:
    held = _locked(folder)
    age = time.time() - folder.lstat().st_mtime
    if held is not None or (not _CAN_LOCK and age > _OLD_S):
        shutil.rmtree(folder, ignore_errors=True)
    if held is not None:
        os.close(held)


try:
    import fcntl
except ImportError:  # Windows
    _CAN_LOCK = False
else:
    _CAN_LOCK = True


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock until it is closed or the process ends.

    None if another process holds it, or where folders can't be locked.
    """
    if not _CAN_LOCK:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
