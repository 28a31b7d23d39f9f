"""Find the baseline: the version in the committed log that a candidate is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_ftloop.core.errors import FtloopError, shown_path
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.gate.judgements import anchor_of, baseline_of
from pytest_ftloop.gate.reference import Reference, is_request, reference
from pytest_ftloop.log import FOLDER, LogView
from pytest_ftloop.log.files import CommitFiles, below, folders_of_records
from pytest_ftloop.log.mended import mended

NOTHING_COMMITTED = frozenset({"no-git", "no-repository", "no-commit", "outside"})
"""Kinds of git error that mean there is nothing to compare with.

Normally that is reported and passes. It is an error in a pull or merge request, whose base the CI
system knows: there a checkout without git must not pass for a first version.
"""


@dataclass(frozen=True)
class Baseline:
    """The committed log that a candidate is compared with, or why there is none.

    `shown` names its commit for people. `iteration` is the version to compare with, `anchor` the
    best iteration ever accepted (None if that is `iteration`, or if none was accepted). `why_none`
    is empty if there is an iteration. `is_first`: this loop's log was never committed, so nothing
    can have got worse. `was_stated`: the user named the commit, which may be older than the log.
    """

    shown: str = ""
    commit: str = ""
    folder: PurePosixPath | None = None
    view: LogView | None = None
    iteration: Iteration | None = None
    anchor: Iteration | None = None
    why_none: str = ""
    is_first: bool = False
    was_stated: bool = False


def find_baseline(
    log_folder: Path,
    loop_folder: Path,
    iterations: Sequence[Iteration],
    metric: str,
    stated: str | None,
    env: Mapping[str, str] | None = None,
) -> Baseline:
    """Find the baseline of the loop whose log is in `log_folder` (`improvement_log/<loop>`).

    `iterations` are those in the log now: they identify the log of a loop that was renamed or
    moved. Raises `GitError` if a stated ref, or the base of a pull request, does not exist.
    """
    env = os.environ if env is None else env
    try:
        repository = Repository.containing(loop_folder)
        found = reference(repository, stated, env)
        blobs, folder = _log_at(repository, found, log_folder, loop_folder, iterations)
    except GitError as error:
        if stated is None and error.kind in NOTHING_COMMITTED and not is_request(env):
            return Baseline(why_none=error.message, is_first=error.kind == "no-commit")
        raise
    if folder is None:
        why = f"no log of {log_folder.name} at {found.shown}"
        if _is_uncommitted(repository, log_folder):
            why += f"; {shown_path(log_folder)} is not committed"
        # A loop under a new name whose log was not moved along looks like a first version.
        if gone := _deleted_logs(repository, blobs):
            why += f"; deleted since then: {gone}"
        return Baseline(
            shown=found.shown,
            commit=found.commit,
            why_none=why,
            is_first=True,
            was_stated=stated is not None,
        )
    files = CommitFiles(repository, found.commit, folder, below(blobs, folder))
    view = mended(files, log_folder)
    return baseline_in(view, metric, found, folder)


def baseline_in(view: LogView, metric: str, found: Reference, folder: PurePosixPath) -> Baseline:
    """The baseline and the anchor in the log at a commit."""
    iterations, judgements = view.iterations(), view.judgements()
    iteration = baseline_of(iterations, judgements, metric)
    anchor = anchor_of(iterations, judgements, metric)
    if anchor is not None and iteration is not None and anchor.id == iteration.id:
        anchor = None
    return Baseline(found.shown, found.commit, folder, view, iteration, anchor)


def _log_at(
    repository: Repository,
    found: Reference,
    log_folder: Path,
    loop_folder: Path,
    iterations: Sequence[Iteration],
) -> tuple[Mapping[PurePosixPath, str], PurePosixPath | None]:
    """The commit's files, and the folder of the loop's log among them; None if it has none."""
    # The folder beside the loop counts even if the log is written elsewhere (--ftloop-log) or a
    # symlink is in its place now: neither may be a way round the comparison.
    for place in _places(repository, log_folder, loop_folder):
        blobs = repository.files(found.commit, place)
        if place in folders_of_records(blobs):
            return blobs, place
    # Not in any known place: a loop was renamed or moved if a log shares its iterations, unless
    # another loop still writes that log, which was then copied.
    blobs = repository.files(found.commit)
    ids = frozenset(iteration.id for iteration in iterations)
    shared = {
        folder: len(ids & known)
        for folder, known in folders_of_records(blobs).items()
        if ids & known and not _is_in_use(repository.root / folder)
    }
    moved = max(shared, key=lambda folder: (shared[folder], str(folder)), default=None)
    return blobs, moved


def _places(repository: Repository, log_folder: Path, loop_folder: Path) -> Iterator[PurePosixPath]:
    """The folders that may hold the log in a commit, relative to the repository's root."""
    for place in (log_folder, loop_folder / FOLDER / log_folder.name):
        try:
            yield repository.relative(place)
        except GitError as error:
            if error.kind != "outside":
                raise
    # The same again without following a symlink at the log's own place.
    with suppress(GitError):
        yield repository.relative(loop_folder) / FOLDER / log_folder.name


def _is_in_use(log_folder: Path) -> bool:
    """Whether a loop file beside this log still writes it."""
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.config.loop_yaml import files_in

    beside = log_folder.parent.parent
    for file in files_in(beside) if beside.is_dir() else ():
        with suppress(FtloopError):  # a broken loop file is reported when it is run
            if read_loop_file(file).name == log_folder.name:
                return True
    return False


def _deleted_logs(repository: Repository, blobs: Mapping[PurePosixPath, str]) -> str:
    """The logs of a commit whose folders no longer exist, three at most."""
    folders = sorted(map(str, folders_of_records(blobs)))
    gone = [folder for folder in folders if not (repository.root / folder).is_dir()]
    more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
    return ", ".join(gone[:3]) + more


def _is_uncommitted(repository: Repository, log_folder: Path) -> bool:
    if not log_folder.is_dir():
        return False
    try:
        return bool(repository.untracked_or_changed([log_folder]))
    except GitError:
        return False
