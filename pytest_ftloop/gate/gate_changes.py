"""What a change does to its own gates: everything that can make them pass more, before and after.

A gate that is loosened in the same change as the model it judges proves nothing, so every report
shows this near the top. It fails nothing by itself: whether it is intended is for the reviewer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.bounds import read_bytes
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.files import real
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.metrics import GUARD
from pytest_ftloop.core.sources import INI_FILES
from pytest_ftloop.gate.loop_at import loop_at
from pytest_ftloop.gate.reference import reference
from pytest_ftloop.gate.row_changes import row_changes
from pytest_ftloop.gate.rule_changes import RULE_KEYS, GateChange, rule_changes
from pytest_ftloop.log.files import CommitFiles

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.baseline import Baseline

# Found by its name, not by the file's grammar: the setting itself, and the option in addopts.
_STATED_BASELINE = re.compile(
    r"""(?:^[ \t]*["']?ftloop_baseline["']?[ \t]*[=:]\s*|--ftloop-baseline["',=\s]+)"""
    r"""["']?([^\s"',\]]+)""",
    re.MULTILINE,
)


_NO_COMMIT = frozenset({"no-git", "no-repository", "no-commit"})


@dataclass(frozen=True)
class GateChanges:
    """What became different in a loop's gates since a commit.

    `against` names the commit for people. `unknown` is the reason why the loop file of the commit
    could not be compared, or empty.
    """

    against: str = ""
    changes: tuple[GateChange, ...] = ()
    unknown: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.changes or self.unknown)

    @property
    def loosened(self) -> bool:
        """Whether something can pass now that failed before, or may."""
        return bool(self.unknown) or any(change.loosened for change in self.changes)

    def loosened_at(self, gate: str) -> tuple[GateChange, ...]:
        """What loosens the gate of this name: its bound, or a key of it."""
        names = {gate, *(f"{gate}.{key}" for key in RULE_KEYS)}
        return tuple(c for c in self.changes if c.loosened and c.name in names)


def gate_changes(config: LoopConfig, candidate: Iteration, baseline: Baseline) -> GateChanges:
    """How the gates of a loop differ from those at the baseline's commit.

    Compared are the loop files, the eval sets as the logs have them, the holdout's file, and the
    pytest setting `ftloop_baseline`. Uncommitted changes count as committed ones do. It only
    reports, so what git can't answer is a reason in `unknown`, and no error.
    """
    before = baseline.iteration
    rows = (*row_changes(before, candidate), *_of_guards(before, candidate)) if before else ()
    try:
        repository = Repository.containing(config.folder)
        at = _of_this_repository(repository, baseline)
        found = GateChanges(against=at.shown)
        if config.lines:  # a loop made in Python has its gates in its test
            found = _of_loop_file(repository, config, candidate, at)
        ini = _of_ini_files(repository, config.folder, at)
    except GitError as error:
        # Without a commit nothing can have been changed.
        unknown = "" if error.kind in _NO_COMMIT else error.message
        return GateChanges(baseline.shown, rows, unknown)
    return replace(found, changes=(*found.changes, *rows, *ini))


def _of_this_repository(repository: Repository, baseline: Baseline) -> Baseline:
    """The baseline, or the start of the change if that log is kept in another place."""
    if baseline.view is None:  # nothing to compare with, perhaps in a submodule's own history
        is_here = bool(baseline.commit) and _has(repository, baseline.commit)
    else:
        files = baseline.view.files
        is_here = isinstance(files, CommitFiles) and files.repository.root == repository.root
    if is_here:
        return baseline
    start = reference(repository, None, os.environ)
    return replace(baseline, commit=start.commit, shown=start.shown, folder=None)


def _has(repository: Repository, commit: str) -> bool:
    try:
        return repository.resolve(commit) == commit
    except GitError:
        return False


def _of_loop_file(
    repository: Repository, config: LoopConfig, candidate: Iteration, baseline: Baseline
) -> GateChanges:
    """The changes in the loop file, and in the holdout that it names."""
    against, commit = baseline.shown, baseline.commit
    path = repository.relative(config.file)
    text = repository.texts(commit, [path]).get(path)
    if text == _text_of(config.file):
        return GateChanges(against, tuple(_of_holdout(repository, config, config, commit)))
    try:
        before = loop_at(repository, baseline, path, text)
        # Read again: the command line may have replaced gates in `config`.
        after = read_loop_file(config.file)
    except ConfigError as error:
        why = f"the loop file at {against} can't be read: {error.message}"
        return GateChanges(against, unknown=" ".join(why.split()))
    if before is not None:
        rules = rule_changes(before, after, candidate)
        return GateChanges(against, (*rules, *_of_holdout(repository, after, before, commit)))
    if baseline.folder is None:
        return GateChanges(against)  # a new loop
    # It had a log, so it had gates: in a file that is gone, or in a test.
    return GateChanges(against, unknown=f"{against} has no loop file of {baseline.folder.name}")


def _of_holdout(
    repository: Repository, config: LoopConfig, before: LoopConfig, commit: str
) -> Iterator[GateChange]:
    """Whether the rows of a holdout that is a file in the repository were edited."""
    source = config.holdout
    if before.holdout != source or not isinstance(source, str):
        return
    file = config.folder / source
    try:
        if file.is_file() and repository.differs(commit, [repository.relative(file)]):
            yield GateChange("data.holdout", source, f"{source}, edited", loosened=True)
    except GitError as error:
        if error.kind != "outside":
            raise


def _of_guards(before: Iteration, now: Iteration) -> Iterator[GateChange]:
    """The guards whose rows were edited; the loop files say which were added or removed."""
    for role, old in before.data.items():
        new = now.data.get(role)
        if role.startswith(f"{GUARD}.") and new and old.get("sha256") != new.get("sha256"):
            said = [f"{facts.get('rows', '?')} rows" for facts in (old, new)]
            name = f"data.guards.{role.removeprefix(f'{GUARD}.')}"
            yield GateChange(name, said[0], f"{said[1]}, edited", loosened=True)


def _of_ini_files(
    repository: Repository, folder: Path, baseline: Baseline
) -> tuple[GateChange, ...]:
    """The changes of `ftloop_baseline`, in every file where pytest could read it."""
    commits = [baseline.commit]
    if baseline.was_stated:
        # The setting may have named that commit: compare with the start of the change too.
        with suppress(GitError):
            commits.append(reference(repository, None, os.environ).commit)
    top = repository.root
    folders = [at for at in (real(folder), *real(folder).parents) if top in (at, *at.parents)]
    files = {repository.relative(at / name): at / name for at in folders for name in INI_FILES}
    now = {path: _text_of(file) for path, file in files.items() if file.is_file()}
    found: dict[str, GateChange] = {}
    for commit in dict.fromkeys(commits):
        for change in _stated_baselines(repository.texts(commit, files), now, files):
            found.setdefault(change.name, change)
    return tuple(found.values())


def _stated_baselines(
    before: Mapping[PurePosixPath, str],
    now: Mapping[PurePosixPath, str],
    paths: Iterable[PurePosixPath],
) -> Iterator[GateChange]:
    for path in paths:
        old, new = (
            ", ".join(_STATED_BASELINE.findall(texts.get(path, ""))) or "not set"
            for texts in (before, now)
        )
        if old != new:
            yield GateChange(f"ftloop_baseline in {path}", old, new, loosened=True)


def _text_of(file: Path) -> str:
    return read_bytes(file).decode(errors="replace").replace("\r\n", "\n")
