"""The standards: the logs that a commit holds, each of which some loop has to be judged by."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from pytest_ftloop.config import loop_yaml
from pytest_ftloop.config.loop_config import likely_name_in
from pytest_ftloop.core.errors import FtloopError, LogError, relative_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.git import Repository
from pytest_ftloop.gate.judgements import RETIRED, current_judgements
from pytest_ftloop.gate.reference import Reference
from pytest_ftloop.log import FOLDER, LogView
from pytest_ftloop.log.files import CommitFiles, FolderFiles, below, folders_of_records
from pytest_ftloop.log.mended import mended

CONTINUED_SHARE = 0.5
"""A loop continues the log of one that is gone if at least this share of the smaller eval set is in
both. A rename leaves all of it; two loops on other data have next to nothing in common."""


class UnjudgedError(LogError):
    """A loop has a log at the base, and nothing judges it now. `log` is that log's folder."""

    def __init__(self, message: str, *, log: str, cure: str) -> None:
        super().__init__(message, cure=cure)
        self.log = log


@dataclass(frozen=True)
class Standards:
    """The logs at a commit, each by its folder's path from the repository's root."""

    repository: Repository
    found: Reference
    blobs: Mapping[PurePosixPath, str]

    @classmethod
    def at(cls, repository: Repository, found: Reference) -> Standards:
        """The logs at a commit. No file is read yet."""
        return cls(repository, found, repository.files(found.commit))

    @cached_property
    def folders(self) -> Mapping[PurePosixPath, frozenset[str]]:
        """The folders of the logs, and the ids of the iterations in each."""
        return folders_of_records(self.blobs)

    def view(self, folder: PurePosixPath) -> LogView:
        """The log in a folder, as the commit has it; a damaged one as far as it can be read."""
        inside = below(self.blobs, folder)
        files = CommitFiles(self.repository, self.found.commit, folder, inside)
        return mended(files, self.repository.root / folder)

    def had_loop_file(self, folder: PurePosixPath) -> bool:
        """Whether a loop file wrote this log at the commit; else the loop is made in Python."""
        return any(
            name == folder.name and (file.parent == folder.parent.parent or not _is_beside(folder))
            for file, name in self._loop_files
        )

    def was_retired(self, folder: PurePosixPath) -> bool:
        """Whether the loop had been given up by hand at the commit."""
        return folder in self.folders and is_retired(self.view(folder))

    def is_retired(self, folder: PurePosixPath) -> bool:
        """Whether the loop was given up by hand, at the commit or since then."""
        now = LogView(FolderFiles(self.repository.root / folder))
        return is_retired(now) or self.was_retired(folder)

    def unjudged(
        self, scope: Sequence[Path], judged: Collection[Path], *, python: bool
    ) -> Iterator[PurePosixPath]:
        """The logs below the folders of `scope` that are not among the `judged`.

        With `python` the logs without a loop file are left out as long as they still exist: a
        command without pytest judges these by themselves.
        """
        seen = {real(folder) for folder in judged}
        inside = [real(folder) for folder in scope]
        for folder in sorted(self.folders):
            place = self.repository.root / folder
            # A loop's folder is two above its log's, in the usual place.
            home = place.parent.parent if _is_beside(folder) else place
            if real(place) in seen or not any(
                each in (place, home, *home.parents) for each in inside
            ):
                continue
            if python and place.is_dir() and not self.had_loop_file(folder):
                continue
            if not self.is_retired(folder):
                yield folder

    def error(self, folder: PurePosixPath) -> UnjudgedError:
        """What to say of a log that nothing judges."""
        place = shlex.quote(relative_path(self.repository.root / folder))
        return UnjudgedError(
            f"{folder.name}: has a log at {self.found.shown}, and nothing judges it now ({folder})",
            log=str(folder),
            cure="Restore its loop, or add the loop that continues it to what is judged. If it is "
            f"given up: ftloop accept --retire {place}, and commit the file that this writes.",
        )

    def continued_by(
        self, contents: Collection[str], gone: Sequence[PurePosixPath]
    ) -> PurePosixPath | None:
        """The one of these logs that was measured on the same eval examples, if there is one."""
        shares = {folder: self._share(folder, frozenset(contents)) for folder in gone}
        best = max(gone, key=lambda folder: (shares[folder], str(folder)), default=None)
        return best if best is not None and shares[best] >= CONTINUED_SHARE else None

    def _share(self, folder: PurePosixPath, contents: frozenset[str]) -> float:
        with suppress(FtloopError):  # a damaged log is no standard to follow
            for iteration in reversed(self.view(folder).iterations()):
                other = {row.content for row in iteration.examples}
                smaller = min(len(other), len(contents))
                return len(other & contents) / smaller if smaller else 0.0
        return 0.0

    @cached_property
    def _loop_files(self) -> Sequence[tuple[PurePosixPath, str]]:
        """The loop files at the commit, and the name of the loop in each."""
        files = [file for file in self.blobs if file.name.endswith(loop_yaml.SUFFIXES)]
        texts = self.repository.read([self.blobs[file] for file in files])
        return [(f, likely_name_in(t, f.name)) for f, t in zip(files, texts, strict=True)]


def _is_beside(folder: PurePosixPath) -> bool:
    """Whether a log is in its usual place, the folder `improvement_log` beside the loop file."""
    return folder.parent.name == FOLDER


def is_retired(view: LogView) -> bool:
    """Whether a log's loop was given up by hand."""
    with suppress(FtloopError):
        return any(j.kind == RETIRED for j in current_judgements(view.judgements()))
    return False
