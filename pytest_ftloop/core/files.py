"""Write files and folders completely or not at all, even if the process is killed."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically; text as UTF-8, with its line breaks. Raises `OSError`."""
    with replacing(path) as making, making.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, for a new file or folder that replaces it at the end.

    If the block raises, `path` keeps its content and the new file or folder is removed. A killed
    process may leave a hidden `.*.tmp` behind. Raises `OSError`.
    """
    # The process and thread in the name keep two writers from using the same path.
    hidden = f".{path.name}.{os.getpid()}.{threading.get_ident()}"
    making, before = path.with_name(f"{hidden}.tmp"), path.with_name(f"{hidden}.old")
    try:
        yield making
        try:
            if making.is_dir() and path.exists():  # unlike a file, it can't replace one
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
