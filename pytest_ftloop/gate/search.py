"""Find the baseline: at the stated commit, where the change starts, or in the log's history."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import PurePosixPath

from pytest_ftloop.core.errors import LogError, shown_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.history import (
    before_last_change,
    find,
    in_superproject,
    parent_of,
    submodule_at,
)
from pytest_ftloop.gate.baseline import (
    Baseline,
    Sought,
    baseline_at,
    baseline_in,
    is_uncommitted,
)
from pytest_ftloop.gate.ci_systems import in_ci
from pytest_ftloop.gate.reference import (
    STATED,
    Reference,
    is_request,
    reference,
    start_of_change,
)
from pytest_ftloop.log import LogView
from pytest_ftloop.log.files import FolderFiles

NOTHING_COMMITTED = frozenset({"no-git", "no-repository", "no-commit", "outside"})
"""Kinds of git error that mean there is nothing to compare with.

Normally that is reported and passes. It is an error in a pull or merge request, whose base the CI
system knows: there a checkout without git must not pass for a first version.
"""


MOST_VERSIONS = 50
"""Changes of a log that are looked at for the last other version, where nothing states the base."""

ONLY_VERSION = "the log has held no other version"
"""The end of the note on a log whose only version is the candidate."""

OTHER_VERSION = "the last commit whose log has another version"
"""The end of the note on a baseline that was found because nothing states one."""


def find_baseline(
    sought: Sought, stated: str | None, env: Mapping[str, str] | None = None
) -> Baseline:
    """Find the baseline of a loop.

    Raises `GitError` if a stated ref, or the base of a pull request, does not exist, or if a CI
    system checked out too little of the history.
    """
    env = os.environ if env is None else env
    try:
        repository = Repository.containing(sought.loop_folder)
        found = reference(repository, stated, env)
        if found.is_unstated:
            baseline = _unstated(repository, found, sought, env)
        else:
            baseline = baseline_at(repository, found, sought)
        if baseline.folder is None:
            return _in_log_elsewhere(repository, found, sought, env) or baseline
        if _is_itself(repository, found, sought, baseline):
            note = f"{found.shown} is the commit under test itself, so this compares nothing"
            return replace(baseline, context=(note, *baseline.context))
        return baseline
    except GitError as error:
        if stated is None and error.kind in NOTHING_COMMITTED and not is_request(env):
            return Baseline(why_none=error.message, is_first=error.kind == "no-commit")
        raise


def _is_itself(
    repository: Repository, found: Reference, sought: Sought, baseline: Baseline
) -> bool:
    """Whether the user named the last commit, and the candidate is what it holds."""
    return (
        found.how == STATED
        and baseline.is_version(sought.candidate)
        and found.commit == repository.resolve("HEAD")
        and not is_uncommitted(repository, sought.log_folder, *sought.files)
    )


def _unstated(
    repository: Repository, found: Reference, sought: Sought, env: Mapping[str, str]
) -> Baseline:
    """The baseline where nothing states the commit: never the candidate itself.

    The last commit for a candidate that is not committed yet. Else where its branch starts; on the
    default branch the last version in the history that is another one.
    """
    changed = is_uncommitted(repository, sought.log_folder, *sought.files)
    if changed and not in_ci(env):
        here = baseline_at(repository, found, sought)
        if not here.is_version(sought.candidate):
            return replace(here, is_working=True)
    if start := start_of_change(repository, found):
        baseline = baseline_at(repository, replace(start, note=found.note), sought)
        # A CI job that has just trained the candidate judges and logs it as any other.
        return replace(baseline, is_review=not (changed and in_ci(env)))
    return _last_other(repository, found, sought, env)


def _last_other(
    repository: Repository, found: Reference, sought: Sought, env: Mapping[str, str]
) -> Baseline:
    """The baseline in the last commit whose log stands for another version than the candidate."""
    head, note = found.commit, "nothing states where this change starts"
    note = f"{found.note}, and {note}" if found.note else note
    at, place = replace(found, note=_compared_with(note, found.shown)), None
    for _ in range(MOST_VERSIONS):
        baseline, place = _at_or_older(repository, at, sought, place)
        is_older = at.commit != head
        # An older commit without a version has no log of this loop, or a damaged one.
        is_other = baseline is not None and not baseline.is_version(sought.candidate)
        if baseline is not None and is_other and (baseline.iteration or not is_older):
            return replace(baseline, is_review=is_older)
        try:
            earlier = place and before_last_change(repository, at.commit, place)
        except GitError as error:
            if error.kind != "shallow" or in_ci(env):
                raise
            why = f"{note}, and the history of this shallow clone ends too early"
            return Baseline(why_none=f"{why} (git fetch --unshallow gets it)", is_review=True)
        if not earlier and baseline is not None and baseline.had_log:
            return replace(baseline, is_review=True)
        if not earlier:
            # The first version of all. What the log says of it is all that there is to know.
            only = baseline_at(repository, replace(found, note=f"{note}; {ONLY_VERSION}"), sought)
            return replace(only, is_review=True)
        shown = f"{'HEAD^ ' if earlier == parent_of(repository, head) else ''}({earlier[:7]})"
        shown = shown.strip("()") if shown.startswith("(") else shown
        at = Reference(earlier, shown, "another version", note=_compared_with(note, shown))
    why = f"{note}, and the last {MOST_VERSIONS} changes of the log hold no other version"
    return Baseline(why_none=why, is_review=True)


def _at_or_older(
    repository: Repository, at: Reference, sought: Sought, place: PurePosixPath | None
) -> tuple[Baseline | None, PurePosixPath | None]:
    """The baseline at a commit, and the folder of the log there, or else where it is later.

    None for an old log that is damaged.
    """
    with suppress(LogError) if place else nullcontext():
        baseline = baseline_at(repository, at, sought)
        return baseline, baseline.folder or place
    return None, place


def _compared_with(note: str, shown: str) -> str:
    return f"{note}, so it is compared with {shown}, {OTHER_VERSION}"


def _in_log_elsewhere(
    repository: Repository, found: Reference, sought: Sought, env: Mapping[str, str]
) -> Baseline | None:
    """The baseline in a log that is not in the loop's repository; None for one that is in it.

    The commits of the loop's repository can't tell what such a log held. One in a repository of its
    own, such as a submodule, has a history of its own; else the log itself tells what it accepted
    before the candidate.
    """
    log_folder = real(sought.log_folder)
    own: Repository | None = None
    try:
        own = Repository.containing(log_folder)
    except GitError as error:
        if error.kind != "no-repository":
            raise
    if own is None:
        return _in_log_itself(sought)
    if own.root == repository.root:
        return None
    inside = replace(sought, log_folder=log_folder, loop_folder=log_folder.parent.parent)
    around = in_superproject(own)
    if around and around[0].root == repository.root and not found.is_unstated:
        path = around[1]
        commit = submodule_at(repository, found.commit, path)
        if commit and find(own, commit):
            shown = f"the submodule {path} ({commit[:7]}) at {found.shown}"
            return baseline_at(own, replace(found, commit=commit, shown=shown), inside)
    # The CI system's variables name commits of the loop's repository.
    unstated = reference(own, None, env if around else {})
    if unstated.is_unstated:
        return _unstated(own, unstated, inside, {})
    return baseline_at(own, unstated, inside)


def _in_log_itself(sought: Sought) -> Baseline | None:
    """The baseline among what a log outside any repository accepted before the candidate."""
    if not any(i != sought.candidate for i in sought.iterations):
        return None
    outside = shown_path(sought.log_folder)
    note = f"the log {outside} is in no repository: compared with what it accepted before"
    found = Reference("", f"the log {outside}", "the log itself", note=note)
    view = LogView(FolderFiles(sought.log_folder))
    folder = PurePosixPath(sought.log_folder.name)
    return baseline_in(view, found, folder, sought, without=sought.candidate)
