"""Where a line of commits starts: the default branch, a commit's parent, the last change of a path.

Only first parents are followed: in a merge that is the branch that was merged into.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pytest_ftloop.core.files import real
from pytest_ftloop.core.git import FETCH_ALL, GitError, Repository

UNRELATED = frozenset({"shallow", "no-merge-base"})
"""Kinds of git error for two commits whose common history is missing."""


def find(repository: Repository, ref: str) -> str | None:
    """The commit that a ref refers to; None if there is no such ref or commit."""
    try:
        return repository.resolve(ref)
    except GitError as error:
        if error.kind != "unknown-ref":
            raise
        return None


def branch_refs(repository: Repository, branch: str) -> tuple[str, ...]:
    """The refs that may hold a branch: fetched from `origin` or another remote, then local."""
    if not branch:
        return ()
    remote = tuple(f"refs/remotes/{remote}/{branch}" for remote in repository.remotes())
    return (*remote, f"refs/heads/{branch}")


def start_of_branch(
    repository: Repository, head: str, defaults: Sequence[str] = ()
) -> tuple[str, str] | None:
    """The default branch's ref, and the last commit that `head` has in common with it.

    None if no default branch is found, if their common history is missing, or if the default branch
    has all of `head`. `defaults` are names that the CI system gives.
    """
    tip = repository.resolve(head)
    for ref in _default_refs(repository, defaults):
        if find(repository, ref) is None:
            continue
        try:
            start = repository.merge_base(tip, ref)
        except GitError as error:
            if error.kind not in UNRELATED:
                raise
            return None
        return (ref, start) if start != tip else None
    return None


def parent_of(repository: Repository, commit: str) -> str | None:
    """The first parent; None for the first commit of all.

    Raises a `GitError` of the kind `shallow` where the history is cut off.
    """
    parent = repository.query("rev-parse", "--verify", "--quiet", f"{commit}^1^{{commit}}")
    if parent is None and repository.is_shallow():
        raise GitError(
            f"wanted the commit before {commit[:7]}, found a shallow clone that ends there",
            kind="shallow",
            cure=FETCH_ALL,
        )
    return parent


def before_last_change(repository: Repository, commit: str, folder: PurePosixPath) -> str | None:
    """The parent of the last commit, up to this one, that changed anything in a folder.

    None if that is the first commit of all. Raises a `GitError` of the kind `shallow`.
    """
    changed = repository.query("rev-list", "-1", "--first-parent", commit, "--", str(folder))
    return parent_of(repository, changed) if changed else None


def in_superproject(repository: Repository) -> tuple[Repository, PurePosixPath] | None:
    """The repository that this one is a submodule of, and its path there; None if it is none."""
    if not (repository.root / ".git").is_file():  # spares a call of git
        return None
    above = repository.query("rev-parse", "--show-superproject-working-tree")
    if not above:
        return None
    outer = Repository(real(Path(above)))
    return outer, outer.relative(repository.root)


def submodule_at(outer: Repository, commit: str, path: PurePosixPath) -> str | None:
    """The commit of a submodule that a commit of the repository around it names."""
    entry = outer.query("ls-tree", commit, "--", str(path)) or ""
    mode, _, rest = entry.partition(" ")
    return rest.split()[1] if mode == "160000" else None


def _default_refs(repository: Repository, defaults: Sequence[str]) -> tuple[str, ...]:
    """The refs that may be the default branch, the likeliest first; never the one checked out."""
    remotes = repository.remotes()[:1]
    names = tuple(dict.fromkeys((*filter(None, defaults), "main", "master")))
    stated = [f"refs/remotes/{remote}/{name}" for remote in remotes for name in names]
    heads = [
        ref
        for remote in remotes
        if (ref := repository.query("symbolic-ref", "--quiet", f"refs/remotes/{remote}/HEAD"))
    ]
    own = repository.query("symbolic-ref", "--quiet", "HEAD")
    local = [f"refs/heads/{name}" for name in names if f"refs/heads/{name}" != own]
    count = len(tuple(filter(None, defaults)))
    return (*stated[:count], *heads, *stated[count:], *local)
