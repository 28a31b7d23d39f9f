"""Which commit is the standard that a candidate is compared with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.git import FETCH_ALL, GitError, Repository

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_RANGE = re.compile(r"(?P<base>.*?)(?P<dots>\.{2,})(?P<head>.*)", re.DOTALL)
_UNRELATED = frozenset({"shallow", "no-merge-base"})


@dataclass(frozen=True)
class Reference:
    """The commit that is the standard, how to print it, and what made it the standard."""

    commit: str
    shown: str
    how: str


@dataclass(frozen=True)
class Range:
    """Two commits to compare. A base of None is the default one, a head of None the files now."""

    base: str | None
    head: str | None
    merge_base: bool = False
    """Whether the base is the merge base of both (`A...B`) rather than `base` itself."""


@dataclass(frozen=True)
class _Request:
    """What a CI system says of the change under review; '' where it does not say."""

    name: str
    target: str
    """The branch to merge into."""
    base: str
    """A commit of that branch."""
    base_is_exact: bool
    """Whether `base` is where the change starts, rather than the branch's tip at some time."""


def reference(repository: Repository, stated: str | None, env: Mapping[str, str]) -> Reference:
    """The stated ref; else where a pull or merge request starts; else the last commit.

    Only a ref that was not stated is looked for in the CI system's environment `env`.
    """
    if stated is not None:
        return _stated(repository, stated)
    head = repository.resolve("HEAD")
    request = _github(env) or _gitlab(env)
    if request is None:
        return Reference(head, _shown("HEAD", head), "the last commit")
    return _start_of(repository, request)


def is_request(env: Mapping[str, str]) -> bool:
    """Whether the CI system says that this is a pull, merge or queued change to another branch."""
    return bool(_github(env) or _gitlab(env))


def split_range(text: str) -> Range:
    """`BASE`, `BASE..HEAD`, `BASE..`, `..HEAD`, or `A...B` for their merge base and B."""
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
    # '..' is in no name of a branch or tag; in braces it is text or a date to search for.
    if not stated.strip() or ".." in stated.partition("{")[0]:
        raise ConfigError(
            f"wanted one commit, branch or tag as the baseline, found {stated!r}",
            cure="Name one, such as main or HEAD~1; without the option it is the last commit, "
            "in a pull request the merge base.",
        )
    commit = repository.resolve(stated)
    return Reference(commit, _shown(stated, commit), "stated")


def _start_of(repository: Repository, request: _Request) -> Reference:
    """Where a change starts: the merge base with the target branch, or the base commit told.

    A base that is exact goes first; else the branch does, and a base that has no common history
    with HEAD here (a checkout of single commits) is taken as it is.
    """
    base = _find(repository, request.base) if _SHA.fullmatch(request.base) else None
    if base and request.base_is_exact:
        return _base(request, base)
    unrelated: GitError | None = None
    for ref in _branches(repository, request.target):
        if _find(repository, ref):
            try:
                return _merge_base(repository, request, ref)
            except GitError as error:
                if error.kind not in _UNRELATED:
                    raise
                unrelated = unrelated or error
    if base is None:
        raise _nowhere(repository, request, unrelated)
    try:
        return _base(request, repository.merge_base("HEAD", base))
    except GitError as error:
        if error.kind not in _UNRELATED:
            raise
        return _base(request, base)


def _base(request: _Request, commit: str) -> Reference:
    name = f"base of the {request.name}"
    return Reference(commit, _shown(name, commit), f"the {name}, as the CI system tells it")


def _merge_base(repository: Repository, request: _Request, ref: str) -> Reference:
    branch = re.sub(r"^refs/(remotes|heads)/", "", ref)
    commit = repository.merge_base("HEAD", ref)
    how = f"the merge base with the target branch of the {request.name}"
    return Reference(commit, f"{branch} ({commit[:7]}, merge base)", how)


def _branches(repository: Repository, target: str) -> Iterator[str]:
    """Where a branch may be: fetched from `origin`, from another remote, or a local one."""
    if target:
        for remote in repository.remotes():
            yield f"refs/remotes/{remote}/{target}"
        yield f"refs/heads/{target}"


def _find(repository: Repository, ref: str) -> str | None:
    try:
        return repository.resolve(ref)
    except GitError as error:
        if error.kind != "unknown-ref":
            raise
        return None


def _nowhere(repository: Repository, request: _Request, unrelated: GitError | None) -> GitError:
    wanted = f"wanted the commit where the {request.name} starts"
    target = f"its target branch {request.target!r}" if request.target else "its target branch"
    if repository.is_shallow():
        found = f"found a shallow clone without the history up to {target}"
        return GitError(f"{wanted}, {found}", kind="shallow", cure=FETCH_ALL)
    return unrelated or GitError(
        f"{wanted}, but {target} was not fetched",
        kind="unknown-ref",
        cure=f"Set fetch-depth: 0 in actions/checkout, or run git fetch origin {request.target}."
        if request.target
        else FETCH_ALL,
    )


def _github(env: Mapping[str, str]) -> _Request | None:
    event = env.get("GITHUB_EVENT_NAME", "")
    if event == "merge_group":
        queued = _event(env).get("merge_group")
        queued = queued if isinstance(queued, dict) else {}
        target = _text(queued.get("base_ref")).removeprefix("refs/heads/")
        return _Request("merge group", target, _text(queued.get("base_sha")), base_is_exact=True)
    target = env.get("GITHUB_BASE_REF", "")
    if not target and event not in {"pull_request", "pull_request_target"}:
        return None
    pulled = _event(env).get("pull_request")
    base = pulled.get("base") if isinstance(pulled, dict) else None
    base = base if isinstance(base, dict) else {}
    target = target or _text(base.get("ref"))
    return _Request("pull request", target, _text(base.get("sha")), base_is_exact=False)


def _gitlab(env: Mapping[str, str]) -> _Request | None:
    base = env.get("CI_MERGE_REQUEST_DIFF_BASE_SHA", "")
    target = env.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "")
    if not base and not target:
        return None
    return _Request("merge request", target, base, base_is_exact=True)


def _event(env: Mapping[str, str]) -> dict[str, Any]:
    """What GitHub tells of the event; nothing when its file is missing or broken.

    The file is a second source only, and not there in every container a job runs in.
    """
    try:
        event = json.loads(Path(env.get("GITHUB_EVENT_PATH", "")).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _shown(name: str, commit: str) -> str:
    return commit[:7] if commit.startswith(name) else f"{name} ({commit[:7]})"
