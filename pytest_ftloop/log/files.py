"""The files of a log, wherever they are; and how one is written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_ftloop.errors import Location, LogError, shown_path


class Files(Protocol):
    """Texts by name, the name being a path below the log's folder with `/` in it."""

    def names(self) -> frozenset[str]:
        """The files there are."""

    def read(self, name: str) -> str:
        """One file's text, with `LF` line ends. A `LogError` says why it can't be read."""

    def shown(self, name: str) -> str:
        """What to call a file in messages."""


@dataclass(frozen=True)
class FolderFiles:
    """Files in a folder, one level of folders below it included."""

    folder: Path

    def names(self) -> frozenset[str]:
        """The files there are; none where the folder is not there."""
        return frozenset(_names(self.folder, "", deeper=True))

    def read(self, name: str) -> str:
        """One file's text. A checkout with CRLF line ends reads the same."""
        path = self.folder / name
        try:
            return path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise damaged(self.shown(name), str(error)) from None
        except OSError as error:
            raise LogError(
                f"can't be read: {error.strerror}", where=Location(self.shown(name))
            ) from None

    def shown(self, name: str) -> str:
        """The path as the user would type it."""
        return shown_path(self.folder / name)


def _names(folder: Path, prefix: str, *, deeper: bool) -> Iterator[str]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                yield prefix + entry.name
            elif deeper and entry.is_dir():
                yield from _names(folder / entry.name, f"{prefix}{entry.name}/", deeper=False)


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, whenever the process is ended."""
    # Named by process, so two of them never write one temporary file; hidden from `read`.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(folder: Path, error: OSError) -> LogError:
    """The error for a log folder that can't be written."""
    return LogError(
        f"the improvement log can't be written: {error.strerror}",
        where=Location(shown_path(folder)),
        cure="Mend the folder's permissions, or name another with --ftloop-log DIR.",
    )


def damaged(shown: str, why: str, line: int | None = None) -> LogError:
    """The error for a file that is not what was written."""
    if re.match("[0-9a-f]{7}:", shown):
        cure = "It is committed so: name another commit with --ftloop-baseline."
    else:
        cure = (
            f"Restore it (git checkout -- {shown}), or delete it with its table and run "
            "pytest --ftloop."
        )
    return LogError(f"damaged log file: {why}", where=Location(shown, line), cure=cure)
