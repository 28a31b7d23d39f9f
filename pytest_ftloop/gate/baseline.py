"""What a candidate is compared with: the log as the last committed version has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pytest_ftloop.core.errors import FtloopError, shown_path
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.gate.reference import Reference, is_request, reference
from pytest_ftloop.gate.standing import anchor_of, baseline_of
from pytest_ftloop.log import FOLDER, LogView
from pytest_ftloop.log.files import CommitFiles, below, folders_of_records

NOTHING_COMMITTED = frozenset({"no-git", "no-repository", "no-commit", "outside"})
"""Where git has nothing to compare with. That is said, and is no error, but where a change is to be
judged that the CI system knows the base of: a checkout without git must not pass for a first one.
"""


@dataclass(frozen=True)
class Baseline:
    """The committed log that a candidate is judged by, or why there is none.

    `shown` says which commit. `iteration` is what its log stands for, `anchor` the best iteration
    ever accepted (None where that is the same, or none was). `why_none` is empty when there is an
    iteration; `is_first` says that a log was never committed, so nothing can have got worse.
    `was_stated` is whether the user named the commit, which may be older than the log.
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
    """The baseline of a loop whose log is in `log_folder` (`improvement_log/<loop>`).

    `iterations` are those in the log now: by them the log of a loop that was renamed or moved is
    found. Raises `GitError` for a stated ref, or a pull request's base, that is not there.
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
        if gone := _gone(repository, blobs):
            why += f"; gone since then: {gone}"
        return Baseline(
            shown=found.shown,
            commit=found.commit,
            why_none=why,
            is_first=True,
            was_stated=stated is not None,
        )
    view = LogView(CommitFiles(repository, found.commit, folder, below(blobs, folder)))
    return baseline_in(view, metric, found, folder)


def baseline_in(view: LogView, metric: str, found: Reference, folder: PurePosixPath) -> Baseline:
    """What the log at a commit stands for."""
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
    """The commit's files and the folder of the loop's log among them; None where it has none."""
    # A log written elsewhere (--ftloop-log) is compared with the one beside the loop all the same,
    # and one that is a symlink now with the folder that was there: nobody escapes by that.
    for place in _places(repository, log_folder, loop_folder):
        blobs = repository.files(found.commit, place)
        if place in folders_of_records(blobs):
            return blobs, place
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
    """Where a commit may have the log, from the repository's root."""
    for place in (log_folder, loop_folder / FOLDER / log_folder.name):
        try:
            yield repository.relative(place)
        except GitError as error:
            if error.kind != "outside":
                raise
    with suppress(GitError):
        yield repository.relative(loop_folder) / FOLDER / log_folder.name


def _is_in_use(log_folder: Path) -> bool:
    """Whether another loop file writes this log: then it was copied, not renamed or moved."""
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.config.loop_yaml import files_in

    beside = log_folder.parent.parent
    for file in files_in(beside) if beside.is_dir() else ():
        with suppress(FtloopError):  # a broken loop file is told where it is run
            if read_loop_file(file).name == log_folder.name:
                return True
    return False


def _gone(repository: Repository, blobs: Mapping[PurePosixPath, str]) -> str:
    """The logs of a commit that are no more: a loop under a new name may be one of them."""
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
