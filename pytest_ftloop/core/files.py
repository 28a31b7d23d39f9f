"""Write files and folders completely or not at all, even if the process is killed."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_ftloop.core.errors import FtloopError, Location, shown_path
from pytest_ftloop.core.leftovers import hidden_name, sweep


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically; text as UTF-8, with its line breaks. Raises `OSError`."""
    with replacing(path) as making, making.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def real(path: Path) -> Path:
    """The absolute path without links, as far as there are such files.

    Not `Path.resolve`, which raises a `RuntimeError` for links that lead to each other, up to 3.12.
    """
    return Path(os.path.realpath(path))


def leads_out(path: Path) -> bool:
    """Whether a path is a link to something that is not below its own folder, or to nothing."""
    return path.is_symlink() and (not path.exists() or real(path.parent) not in real(path).parents)


def plain_files(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, found without following a link.

    Raises `FtloopError` for a link, and for what is neither file nor folder: what such a name leads
    to is not the folder's.
    """
    found: list[Path] = []
    for place in [folder] if folder.is_symlink() else sorted(folder.iterdir()):
        mode = place.lstat().st_mode
        if stat.S_ISDIR(mode):
            found += plain_files(place)
        elif stat.S_ISREG(mode):
            found.append(place)
        else:
            what = "a link" if stat.S_ISLNK(mode) else "neither file nor folder"
            raise FtloopError(
                f"wanted files only, found {what}",
                where=Location(shown_path(place)),
                cure="Remove it, or put the file itself in its place.",
            )
    return found


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, for a new file or folder that replaces it at the end.

    If the block raises, `path` keeps its content and the new file or folder is removed. What a
    killed process leaves, the next to write this path removes (`leftovers`). Raises `OSError`.
    """
    sweep(path.parent, path.name)
    hidden = hidden_name(path.name)
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
