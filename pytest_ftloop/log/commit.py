"""A log as it is in a commit: read from git's object store, nothing is checked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from pytest_ftloop.git import Repository
from pytest_ftloop.log.files import damaged
from pytest_ftloop.log.improvement import RECORD_NAME


@dataclass(frozen=True)
class CommitFiles:
    """The files below a folder of a commit. `blobs` are git's names of them, by path below it."""

    repository: Repository
    commit: str
    folder: PurePosixPath
    blobs: Mapping[str, str]

    def names(self) -> frozenset[str]:
        """The files there are."""
        return frozenset(self.blobs)

    def read(self, name: str) -> str:
        """One file's text."""
        content = self._records.get(name)
        if content is None:
            (content,) = self.repository.read([self.blobs[name]])
        try:
            return content.decode().replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise damaged(self.shown(name), str(error)) from None

    def shown(self, name: str) -> str:
        """The file and its commit, as git writes it: `1a2b3c4:improvement_log/x/001-....yaml`."""
        return f"{self.commit[:7]}:{self.folder / name}"

    @cached_property
    def _records(self) -> Mapping[str, bytes]:
        """All records, from one call of git; tables are read when they are looked at."""
        names = [name for name in self.blobs if name.endswith(".yaml")]
        found = self.repository.read([self.blobs[name] for name in names])
        return dict(zip(names, found, strict=True))


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
