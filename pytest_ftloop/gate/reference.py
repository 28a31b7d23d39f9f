"""Find the commit whose log holds the baseline."""

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
    """The commit to compare with, how to print it, and how it was chosen."""

    commit: str
    shown: str
    how: str


@dataclass(frozen=True)
class Range:
    """Two commits to compare. Base None: the default one. Head None: the files as they are now."""

    base: str | None
    head: str | None
    merge_base: bool = False
    """Whether the base is the merge base of both (`A...B`) rather than `base` itself."""


@dataclass(frozen=True)
class _Request:
    """The change under review, as the CI system describes it; '' for what it leaves out."""

    name: str
    target: str
    """The branch to merge into."""
    base: str
    """A commit of that branch."""
    base_is_exact: bool
    """Whether the change starts at `base`; else `base` is the branch's tip at some time."""


def reference(repository: Repository, stated: str | None, env: Mapping[str, str]) -> Reference:
    """The stated ref; else the commit where a pull or merge request starts; else the last commit.

    The CI system's environment `env` is read only if no ref was stated.
    """
    if stated is not None:
        return _stated(repository, stated)
    head = repository.resolve("HEAD")
    request = _github(env) or _gitlab(env)
    if request is None:
        return Reference(head, _shown("HEAD", head), "the last commit")
    return _start_of(repository, request)


def is_request(env: Mapping[str, str]) -> bool:
    """Whether this is a change to another branch: a pull or merge request, or a queued one."""
    return bool(_github(env) or _gitlab(env))


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
            cure="Name one, such as main or HEAD~1. Without the option the baseline is the last "
            "commit, or the merge base in a pull request.",
        )
    commit = repository.resolve(stated)
    return Reference(commit, _shown(stated, commit), "stated")


def _start_of(repository: Repository, request: _Request) -> Reference:
    """The commit where a change starts.

    That is the base commit that the CI system states, if it is exact; else the merge base with the
    target branch; else that with the base commit, or, in a checkout of single commits without a
    common history, the base commit itself.
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
    return Reference(commit, _shown(name, commit), f"the {name}, as the CI system states it")


def _merge_base(repository: Repository, request: _Request, ref: str) -> Reference:
    branch = re.sub(r"^refs/(remotes|heads)/", "", ref)
    commit = repository.merge_base("HEAD", ref)
    how = f"the merge base with the target branch of the {request.name}"
    return Reference(commit, f"{branch} ({commit[:7]}, merge base)", how)


def _branches(repository: Repository, target: str) -> Iterator[str]:
    """The refs that may hold a branch: fetched from `origin` or another remote, then local."""
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
    """GitHub's description of the event; empty if its file is missing or broken.

    It only adds to the environment variables, and some containers that run a job lack the file.
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
