"""The files of a log, wherever they are; and how one is written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from pytest_ftloop.core.bounds import MOST_BYTES, MOST_BYTES_OF_RECORD, read_bytes, size_text
from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import DamagedLogError, Location, LogError, shown_path
from pytest_ftloop.core.files import leads_out, real
from pytest_ftloop.core.git import Repository

FOLDER = "improvement_log"
"""The folder beside a loop file that holds its log and those of its neighbours."""

POINTER = b"version https://git-lfs.github.com/spec/v1"
"""The start of what git has in place of a file that Git LFS keeps."""


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
        try:
            content = read_bytes(self.folder / name, _most(name))
        except OSError as error:
            raise LogError(
                f"can't be read: {error.strerror}", where=Location(self.shown(name))
            ) from None
        return _text_of(content, name, self.shown(name))

    def shown(self, name: str) -> str:
        """The path as the user would type it."""
        return shown_path(self.folder / name)


def _names(folder: Path, prefix: str, *, deeper: bool) -> Iterator[str]:
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and not entry.name.startswith("."):  # an editor's lock is hidden
                raise _link(folder / entry.name)
            if entry.is_file(follow_symlinks=False):
                yield prefix + entry.name
            elif deeper and entry.is_dir(follow_symlinks=False):
                yield from _names(folder / entry.name, f"{prefix}{entry.name}/", deeper=False)


def check_folder(folder: Path) -> None:
    """Raise a `LogError` for a log that is a link to elsewhere: it can come by a pull request.

    The folder that holds the logs is whatever the user names, but for the one beside a loop file.
    """
    for place in (folder, folder.parent) if folder.parent.name == FOLDER else (folder,):
        if leads_out(place):
            raise _link(place)


def _link(path: Path) -> LogError:
    return LogError(
        "wanted a file or folder of the log, found a link",
        where=Location(shown_path(path)),
        cure="A log has no links. Remove it; to keep logs elsewhere, name the folder with "
        "--ftloop-log DIR (--log DIR).",
    )


class UnwritableError(LogError):
    """A log can't be written; `is_full`: because its disk is full."""

    is_full = False


def unwritable(folder: Path, error: OSError) -> UnwritableError:
    """The error for a log folder that can't be written."""
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    made = UnwritableError(
        f"the improvement log can't be written: {error.strerror}",
        where=Location(shown_path(folder)),
        cure="Make room on its disk, or name another folder with --ftloop-log DIR."
        if is_full
        else "Mend the folder's permissions, or name another with --ftloop-log DIR.",
    )
    made.is_full = is_full
    return made


def _most(name: str) -> int:
    """The maximum size of a file of a log, in bytes."""
    return MOST_BYTES_OF_RECORD if name.endswith(".yaml") else MOST_BYTES


def _text_of(content: bytes, name: str, shown: str) -> str:
    """A file's text with `LF` line ends, without the mark that some editors put before it."""
    if len(content) > _most(name):
        raise damaged(shown, f"it is larger than {size_text(_most(name))}")
    if content.startswith(POINTER):
        raise DamagedLogError(
            "it is a pointer of Git LFS, not the file itself (git lfs pull gets it)",
            where=Location(shown),
            cure="Install git-lfs, then run git lfs install and git lfs pull (in actions/checkout: "
            "lfs: true).",
        )
    try:
        return content.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise damaged(shown, str(error)) from None


def damaged(shown: str, why: str, line: int | None = None, *, cure: str = "") -> DamagedLogError:
    """The error for a file that is not what was written."""
    if not cure and re.match("[0-9a-f]{7}:", shown):
        cure = "It is committed so: name another commit with --ftloop-baseline."
    elif not cure:
        cure = (
            f"Restore it (git checkout -- {shlex.quote(shown)}, or from an earlier commit), or "
            "delete it with its table and run pytest --ftloop."
        )
    return DamagedLogError(why, where=Location(shown, line), cure=cure)


@dataclass(frozen=True)
class CommitFiles:
    """The files below a folder of a commit. `blobs` are git's names of them, by path below it."""

    repository: Repository
    commit: str
    folder: PurePosixPath
    blobs: Mapping[str, str]
    _ahead: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def names(self) -> frozenset[str]:
        """The files there are."""
        return frozenset(self.blobs)

    def read(self, name: str) -> str:
        """One file's text."""
        content = self._ahead.get(name) or self._records.get(name)
        if content is None:
            content = self._contents([name])[name]
        if content.startswith(POINTER):
            content = self.repository.filtered(self.blobs[name], self.folder / name, "lfs")
        return _text_of(content, name, self.shown(name))

    def read_ahead(self, names: Sequence[str]) -> None:
        """Read these files from one call of git at most, where they were not before."""
        self._ahead.update(self._contents([name for name in names if name not in self._ahead]))

    def shown(self, name: str) -> str:
        """The file and its commit, as git writes it: `1a2b3c4:improvement_log/x/001-....yaml`."""
        return f"{self.commit[:7]}:{self.folder / name}"

    @cached_property
    def _records(self) -> Mapping[str, bytes]:
        """All records, from one call of git at most; tables are read when they are looked at."""
        return self._contents([name for name in self.blobs if name.endswith(".yaml")])

    def _contents(self, names: Sequence[str]) -> dict[str, bytes]:
        found = self.repository.contents({self.folder / name: self.blobs[name] for name in names})
        return dict(zip(names, found.values(), strict=True))


def folders_of_records(
    blobs: Mapping[PurePosixPath, str],
) -> dict[PurePosixPath, frozenset[str]]:
    """The folders that hold records of iterations, and the ids of those."""
    found: dict[PurePosixPath, set[str]] = {}
    for path in blobs:
        if match := RECORD_NAME.fullmatch(path.name):
            found.setdefault(path.parent, set()).add(match[2])
    return {folder: frozenset(ids) for folder, ids in found.items()}


def below(blobs: Mapping[PurePosixPath, str], folder: PurePosixPath) -> dict[str, str]:
    """The files below a folder, by their path from it."""
    return {
        str(path.relative_to(folder)): blob
        for path, blob in blobs.items()
        if folder in path.parents
    }


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[Path]:
    """Hold the lock of a log's folder; gives the lock's file. `waiting` is told if it has to wait.

    It lies in the cache: a committed folder holds records only.
    """
    from filelock import FileLock, Timeout  # takes its time, and most runs find nothing to write

    name = hashlib.sha256(os.fsencode(real(folder))).hexdigest()[:32]
    locks = cache_folder() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        raise LogError(
            f"the cache folder can't be written: {error.strerror}",
            where=Location(str(locks)),
            cure="Name another with the environment variable FTLOOP_CACHE.",
        ) from None
    try:
        yield Path(lock.lock_file)
    finally:
        lock.release()


RECORD_NAME = re.compile(r"(\d{3,7})-([0-9a-f]{8})(?:-([0-9a-f]{4}))?\.yaml")
"""An iteration's record; schema 1 had no tag. Names in `verdicts/` and `seeds/` begin with the
eight digits of an id, which may all be decimal: a number has fewer."""
