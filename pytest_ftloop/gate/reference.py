"""Find the commit whose log holds the baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.git import FETCH_ALL, GitError, Repository
from pytest_ftloop.core.history import (
    UNRELATED,
    branch_refs,
    find,
    in_superproject,
    parent_of,
    start_of_branch,
    submodule_at,
)
from pytest_ftloop.gate.ci_systems import Change, change_of

_RANGE = re.compile(r"(?P<base>.*?)(?P<dots>\.{2,})(?P<head>.*)", re.DOTALL)

STATED = "stated"
"""How a commit was chosen that the user named."""


@dataclass(frozen=True)
class Reference:
    """The commit to compare with, how to print it, and how it was chosen.

    `is_unstated`: neither the user nor the CI system states where the change starts, and `commit`
    is the last one, which may hold the change itself: see `start_of_change`. `note` is what a
    reader has to know of the choice. `default` is the default branch's name, if it is stated.
    """

    commit: str
    shown: str
    how: str
    is_unstated: bool = False
    note: str = ""
    default: str = ""


@dataclass(frozen=True)
class Range:
    """Two commits to compare. Base None: the default one. Head None: the files as they are now."""

    base: str | None
    head: str | None
    merge_base: bool = False
    """Whether the base is the merge base of both (`A...B`) rather than `base` itself."""


def reference(repository: Repository, stated: str | None, env: Mapping[str, str]) -> Reference:
    """The stated ref; else the commit where the CI system says the change starts; else the last.

    The CI system's environment `env` is read only if no ref was stated.
    """
    if stated is not None:
        return _stated(repository, stated)
    head = repository.resolve("HEAD")
    change = change_of(env)
    unstated = Reference(
        head, _shown("HEAD", head), "the last commit", is_unstated=True, default=change.default
    )
    if outer := in_superproject(repository):
        # The CI system describes a change of the repository around it.
        return _in_submodule(repository, *outer, env) if change.name else unstated
    if _is_elsewhere(repository, change):
        note = f"the {change.name} that the CI system describes is one of another repository"
        return replace(unstated, note=note)
    if change.is_request:
        if not change.target and not change.bases:
            note = f"the CI system does not state where the {change.name} is to be merged"
            return replace(unstated, note=note)
        found = _start_of(repository, change)
        if found.commit != head:
            return found
        # Comparing a commit with itself would pass whatever it holds.
        return replace(unstated, note=f"{found.shown} is the commit under test itself")
    for base in change.bases:
        commit = find(repository, base)
        if commit and commit != head:
            how = "what the branch held before the push"
            return Reference(commit, _shown("before the push", commit), how)
    if change.bases and find(repository, change.bases[0]) is None:
        note = f"the commit before the push, {change.bases[0][:7]}, is not in this clone"
        return replace(unstated, note=note)
    return unstated


def start_of_change(repository: Repository, found: Reference) -> Reference | None:
    """Where a change starts whose start nothing states; None if only its history can tell.

    That is the last commit in common with the default branch; for a submodule, what that commit of
    the repository around it names.
    """
    if outer := in_superproject(repository):
        around, path = outer
        start = start_of_branch(around, "HEAD")
        commit = submodule_at(around, start[1], path) if start else None
        if start and commit and find(repository, commit):
            return _at_submodule(commit, path, _merge_base_reference(*start).shown)
    start = start_of_branch(repository, found.commit, (found.default,))
    return _merge_base_reference(*start) if start else None


def reference_of(repository: Repository, head: str, env: Mapping[str, str]) -> Reference:
    """The commit to compare a named commit with: HEAD or the base, unless it is that itself."""
    tip, found = repository.resolve(head), reference(repository, None, env)
    if found.commit != tip:
        return found  # as git reads `..B`, from HEAD
    start = start_of_branch(repository, tip, (found.default,))
    if start:
        return _merge_base_reference(*start)
    parent = parent_of(repository, tip)
    if parent is None:
        raise GitError(
            f"wanted the commit before {head}, found that it is the first one",
            kind="no-commit",
            cure="Name the commit to compare with: BASE..HEAD.",
        )
    return Reference(parent, _shown(f"{head}^", parent), "the commit before it")


def is_request(env: Mapping[str, str]) -> bool:
    """Whether this is a change to another branch: a pull or merge request, or a queued one."""
    return change_of(env).is_request


def split_range(text: str) -> Range:
    """Read `BASE`, `BASE..HEAD`, `BASE..`, `..HEAD`, or `A...B` (their merge base, and B)."""
    match = _RANGE.fullmatch(text)
    base, dots, head = match.group("base", "dots", "head") if match else (text, "", "")
    wrong = (
        len(dots) > 3
        or ".." in head
        or not (base or head)
        or (dots == "..." and not base)
        or any(ref != ref.strip() or ref.startswith(("-", ".")) for ref in (base, head))
        or not text.isprintable()
    )
    if wrong:
        raise ConfigError(
            f"wanted one commit or a range of two, found {text!r}",
            cure="For example: main, main..HEAD, main.. or main...HEAD.",
        )
    return Range(base or None, head or None, merge_base=dots == "...")


def _stated(repository: Repository, stated: str) -> Reference:
    # No branch or tag has '..' in its name. In braces (`HEAD^{/fix..}`) it is text to search for.
    if not stated.strip() or ".." in stated.partition("{")[0]:
        raise ConfigError(
            f"wanted one commit, branch or tag as the baseline, found {stated!r}",
            cure="Name one, such as main or HEAD~1. Without the option it is the commit where the "
            "change starts.",
        )
    commit = repository.resolve(stated)
    return Reference(commit, _shown(stated, commit), STATED)


def _in_submodule(
    repository: Repository, around: Repository, path: PurePosixPath, env: Mapping[str, str]
) -> Reference:
    """The commit of a submodule at the commit where the change of the repository around starts."""
    head = repository.resolve("HEAD")
    unstated = Reference(head, _shown("HEAD", head), "the last commit", is_unstated=True)
    outer = reference(around, None, env)
    if outer.is_unstated:
        return replace(unstated, note=outer.note)
    commit = submodule_at(around, outer.commit, path)
    if commit is None:
        return replace(unstated, note=f"{outer.shown} has no submodule {path}")
    if find(repository, commit) is None:
        note = f"{commit[:7]}, the submodule {path} at {outer.shown}, is not in this clone"
        return replace(unstated, note=note)
    return _at_submodule(commit, path, outer.shown)


def _at_submodule(commit: str, path: PurePosixPath, shown: str) -> Reference:
    how = "what the repository around the submodule names"
    return Reference(commit, f"the submodule {path} ({commit[:7]}) at {shown}", how)


def _is_elsewhere(repository: Repository, change: Change) -> bool:
    """Whether the CI system describes another repository: this one has none of its commits.

    A shallow clone may lack them too.
    """
    stated = (*change.heads, *change.bases)
    if not change.heads or any(find(repository, commit) for commit in stated):
        return False
    return not repository.is_shallow()


def _start_of(repository: Repository, change: Change) -> Reference:
    """The commit where a request starts.

    That is the base commit that the CI system states, if it is exact; else the merge base with the
    target branch; else that with the base commit, or, in a checkout of single commits without a
    common history, the base commit itself.
    """
    bases = (find(repository, base) for base in change.bases)
    base = next((commit for commit in bases if commit), None)
    if base and change.is_exact:
        return _base(change, base)
    unrelated: GitError | None = None
    for ref in branch_refs(repository, change.target):
        if find(repository, ref):
            try:
                return _merge_base(repository, change, ref)
            except GitError as error:
                if error.kind not in UNRELATED:
                    raise
                unrelated = unrelated or error
    if base is None:
        raise _nowhere(repository, change, unrelated)
    try:
        return _base(change, repository.merge_base("HEAD", base))
    except GitError as error:
        if error.kind not in UNRELATED:
            raise
        return _base(change, base)


def _base(change: Change, commit: str) -> Reference:
    name = f"base of the {change.name}"
    return Reference(commit, _shown(name, commit), f"the {name}, as the CI system states it")


def _merge_base(repository: Repository, change: Change, ref: str) -> Reference:
    how = f"the merge base with the target branch of the {change.name}"
    return replace(_merge_base_reference(ref, repository.merge_base("HEAD", ref)), how=how)


def _merge_base_reference(ref: str, commit: str) -> Reference:
    branch = re.sub(r"^refs/(remotes|heads)/", "", ref)
    shown = f"{branch} ({commit[:7]}, merge base)"
    return Reference(commit, shown, "the merge base with the default branch")


def _nowhere(repository: Repository, change: Change, unrelated: GitError | None) -> GitError:
    wanted = f"wanted the commit where the {change.name} starts"
    target = f"its target branch {change.target!r}" if change.target else "its target branch"
    if repository.is_shallow():
        found = f"found a shallow clone without the history up to {target}"
        return GitError(f"{wanted}, {found}", kind="shallow", cure=FETCH_ALL)
    return unrelated or GitError(
        f"{wanted}, but {target} was not fetched",
        kind="unknown-ref",
        cure=f"Set fetch-depth: 0 in actions/checkout, or run git fetch origin {change.target}."
        if change.target
        else FETCH_ALL,
    )


def _shown(name: str, commit: str) -> str:
    return commit[:7] if commit.startswith(name) else f"{name} ({commit[:7]})"
