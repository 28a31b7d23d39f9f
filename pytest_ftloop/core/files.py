"""Files and folders that are written whole or not at all, whenever the process is ended."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file; text as UTF-8, its line ends as they are. Raises `OSError`."""
    with replacing(path) as making, making.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to make a file or a folder at, which takes its place at the end.

    Where the block raises, what was at `path` stays and what was made is removed. A killed process
    may leave a hidden `.*.tmp` behind. Raises `OSError`.
    """
    # Named by process and thread: no two of them ever write at one path.
    hidden = f".{path.name}.{os.getpid()}.{threading.get_ident()}"
    making, before = path.with_name(f"{hidden}.tmp"), path.with_name(f"{hidden}.old")
    try:
        yield making
        try:
            if making.is_dir() and path.exists():  # unlike a file, a folder replaces no other one
                path.rename(before)
            making.replace(path)
        except BaseException:
            if before.exists():
                before.rename(path)
            raise
    finally:
        for left in (making, before):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
