"""The baseline in a log at one commit: the version that a candidate is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pytest_ftloop.core.errors import FtloopError, shown_path
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.records import Iteration, SeedRun, is_unscored
from pytest_ftloop.core.runs import Measured, decisive, environment_changes
from pytest_ftloop.gate.judgements import IsHere, anchor_of, baseline_of
from pytest_ftloop.gate.reference import STATED, Reference
from pytest_ftloop.gate.standards import Standards
from pytest_ftloop.log import FOLDER, LogView
from pytest_ftloop.log.files import CommitFiles, below, folders_of_records
from pytest_ftloop.log.mended import mended


@dataclass(frozen=True)
class Baseline:
    """The committed log that a candidate is compared with, or why there is none.

    `shown` names its commit for people. `iteration` is the version to compare with, `anchor` the
    best iteration ever accepted (None if that is `iteration`, or if none was accepted). `why_none`
    is empty if there is an iteration. `is_first`: the commit has no log of this loop, so nothing
    can have got worse, unless the loop had a log before: `had_log` says where, if one was deleted
    or may be this loop's. `was_stated`: the user named the commit, which may be older than the log.

    `newest` is the version accepted last, if that has no run in the candidate's environment and
    `iteration` is an older one. `is_review`: nothing states the commit, and the candidate is
    committed already, so that there is nothing to train or to log. `context` is what a reader has
    to know of the choice. `has_candidate`: the commit has the candidate already, with the loop
    file's settings. `unlogged` says which version of the commit is the real standard, if its log
    was never committed; then nothing can be judged.
    """

    shown: str = ""
    commit: str = ""
    folder: PurePosixPath | None = None
    view: LogView | None = None
    iteration: Iteration | None = None
    anchor: Iteration | None = None
    why_none: str = ""
    is_first: bool = False
    had_log: str = ""
    was_stated: bool = False
    newest: Iteration | None = None
    is_review: bool = False
    is_working: bool = False
    """Whether it is the last commit, of which the candidate is a change that is not committed."""
    context: tuple[str, ...] = ()
    has_candidate: bool = False
    unlogged: str = ""

    @property
    def place(self) -> Path | None:
        """Where the log is, or was, in the working tree; None if there is none."""
        if self.view is None or self.folder is None or not isinstance(self.view.files, CommitFiles):
            return None
        return self.view.files.repository.root / self.folder

    def is_version(self, candidate: Iteration | None) -> bool:
        """Whether it is the candidate itself: the same training with the same figures."""
        own = self.iteration
        return (
            own is not None
            and candidate is not None
            and (own.fingerprint, own.metrics, own.environment)
            == (candidate.fingerprint, candidate.metrics, candidate.environment)
        )

    def of_newest(self) -> Baseline:
        """The same log with the version accepted last, whatever its environment."""
        if self.newest is None:
            return self
        return replace(self, iteration=self.newest, newest=None, context=self.context[1:])


@dataclass(frozen=True)
class Sought:
    """The loop whose baseline is sought.

    `log_folder` is its log now, `improvement_log/<loop>`. `iterations` and `seed_runs` are those in
    it: they identify the log of a loop that was renamed or moved. `candidate` is the iteration to
    compare. `files` are the loop file and the data: what determines the candidate beside the log.
    """

    log_folder: Path
    loop_folder: Path
    iterations: Sequence[Iteration]
    metric: str | None
    candidate: Iteration | None = None
    seed_runs: Sequence[SeedRun] = ()
    files: Sequence[Path] = ()


def baseline_in(
    view: LogView,
    found: Reference,
    folder: PurePosixPath,
    sought: Sought,
    without: Iteration | None = None,
) -> Baseline:
    """The baseline and the anchor in the log at a commit, as if it had no iteration `without`."""
    # One that is not scored yet is no version that could have been accepted.
    iterations = tuple(i for i in view.iterations() if not is_unscored(i))
    judgements = view.judgements()
    if without is not None:
        iterations = tuple(i for i in iterations if i.id != without.id)
        judgements = tuple(j for j in judgements if j.candidate != without.id)
    candidate = sought.candidate
    is_here = _is_here(view, sought, candidate) if candidate else None
    iteration = baseline_of(iterations, judgements, sought.metric, is_here)
    anchor = anchor_of(iterations, judgements, sought.metric, is_here)
    if anchor is not None and iteration is not None and anchor.id == iteration.id:
        anchor = None
    newest = baseline_of(iterations, judgements, sought.metric)
    context = (found.note,) if found.note else ()
    if newest is None or iteration is None or newest.id == iteration.id or candidate is None:
        newest = None
    else:
        changed = ", ".join(environment_changes(newest.environment, candidate.environment))
        passed_over = f"{newest.name} was accepted later, in another environment ({changed}); "
        passed_over += f"compared with {iteration.name}, the last one accepted in this environment"
        context = (passed_over, *context)
    return Baseline(
        found.shown,
        found.commit,
        folder,
        view,
        iteration,
        anchor,
        was_stated=found.how == STATED,
        newest=newest,
        context=context,
    )


def _is_here(view: LogView, sought: Sought, candidate: Iteration) -> IsHere:
    """Tells which iterations of a log have a run in the candidate's environment.

    Runs of the candidate itself do not count: they would be compared with themselves.
    """
    here = decisive(candidate.environment)
    logged: tuple[Measured, ...] = (*view.iterations(), *view.seed_runs(), *sought.seed_runs)
    runs = [run for run in logged if decisive(run.environment) == here]
    groups = {run.group for run in runs if run.group}
    repeated = {run.iteration for run in runs if isinstance(run, SeedRun)}
    as_baseline = {run.group for run in runs if isinstance(run, SeedRun) and run.role == "baseline"}

    def is_here(iteration: Iteration) -> bool:
        if decisive(iteration.environment) == here:
            return True
        if iteration.group and iteration.group == candidate.group:
            return iteration.group in as_baseline
        return iteration.group in groups or iteration.id in repeated

    return is_here


def baseline_at(repository: Repository, found: Reference, sought: Sought) -> Baseline:
    """The baseline in the log at a commit, or why there is none."""
    log_folder = sought.log_folder
    blobs, folder = _log_at(repository, found, log_folder, sought.loop_folder, sought.iterations)
    if folder is not None:
        files = CommitFiles(repository, found.commit, folder, below(blobs, folder))
        baseline = baseline_in(mended(files, log_folder), found, folder, sought)
        if folder.name == log_folder.name:
            return baseline
        note = f"{log_folder.name} continues {folder.name}: it is compared with the log of that"
        return replace(baseline, context=(*baseline.context, note))
    why = f"no log of {log_folder.name} at {found.shown}"
    if is_uncommitted(repository, log_folder):
        why += f"; {shown_path(log_folder)} is not committed"
    # A loop under a new name whose log was not moved along looks like a first version.
    if gone := _deleted_logs(repository, blobs):
        why += f"; deleted since then: {gone}"
    elif before := _deleted_before(repository, found, log_folder, sought.loop_folder):
        gone = f"the log was deleted in {before[:7]}"
        why += f"; {gone}"
    elif alike := _alike(Standards(repository, found, blobs), sought.iterations):
        gone = str(alike)
        why += f"; {gone} has these eval examples and no loop file: if this loop continues it, "
        why += "git mv it to this name"
    return Baseline(
        shown=found.shown,
        commit=found.commit,
        why_none=why,
        is_first=True,
        had_log=gone,
        was_stated=found.how == STATED,
        context=(found.note,) if found.note else (),
    )


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
    standards = Standards.at(repository, found)
    return standards.blobs, _moved_from(standards, iterations)


def _moved_from(standards: Standards, iterations: Sequence[Iteration]) -> PurePosixPath | None:
    """The log that a loop without one at the commit continues: it was renamed or moved.

    That is one that shares its iterations, or one on the same eval examples whose loop is gone. A
    log that another loop still writes is neither: it was copied. Nor is one whose loop had been
    given up at the commit; giving it up in the change that renames it is no way round.
    """
    ids = frozenset(iteration.id for iteration in iterations)
    root = standards.repository.root
    free = [folder for folder in standards.folders if not _is_in_use(root / folder)]
    shared = {folder: len(ids & standards.folders[folder]) for folder in free}
    moved = max(free, key=lambda folder: (shared[folder], str(folder)), default=None)
    if moved is not None and shared[moved]:
        return moved
    gone = [
        folder
        for folder in free
        if (standards.had_loop_file(folder) or not (root / folder).is_dir())
        and not standards.was_retired(folder)
    ]
    if not gone or not iterations:
        return None
    return standards.continued_by({row.content for row in iterations[-1].examples}, gone)


def _alike(standards: Standards, iterations: Sequence[Iteration]) -> PurePosixPath | None:
    """A log on the same eval examples whose loop is made in Python, so that it may be gone.

    Only a pytest run tells whether the loop is still there, beside this one, or was renamed to it.
    """
    root = standards.repository.root
    kept = [
        folder
        for folder in standards.folders
        if (root / folder).is_dir()
        and not standards.had_loop_file(folder)
        and not _is_in_use(root / folder)
        and not standards.is_retired(folder)
    ]
    if not kept or not iterations:
        return None
    return standards.continued_by({row.content for row in iterations[-1].examples}, kept)


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


def _deleted_before(
    repository: Repository, found: Reference, log_folder: Path, loop_folder: Path
) -> str:
    """The last commit that touched the loop's log, which it deleted; empty if there is none."""
    places = list(dict.fromkeys(_places(repository, log_folder, loop_folder)))
    return repository.last_change(found.commit, places)


def is_uncommitted(repository: Repository, *paths: Path) -> bool:
    """Whether any of these files and folders differs from the last commit."""
    inside = []
    for path in paths:
        with suppress(GitError):  # outside the repository
            if path.exists() and repository.relative(path):
                inside.append(path)
    try:
        return bool(repository.untracked_or_changed(inside))
    except GitError:
        return False
