"""What CI systems say about the change under test: where it starts, or where it is to be merged.

One row of `_SYSTEMS` or one function per system. A system that states nothing (TeamCity) has no
row: `reference` then finds the start itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_ftloop.core.bounds import read_bytes, read_json

_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_NONE = frozenset({"", "false", "0"})
"""Values of a variable that say "this is no pull request"."""


@dataclass(frozen=True)
class Change:
    """The change under test, as the CI system describes it; empty for what it leaves out.

    A request (a pull or merge request, or a queued one) is to be merged into `target`; `bases` are
    commits of that branch. A push has `bases` too: what the branch held before. With `is_exact` the
    change starts at the base; else that is the branch's tip at some time. `heads` are the commits
    under test, `default` is the name of the default branch.
    """

    name: str = ""
    target: str = ""
    bases: tuple[str, ...] = ()
    is_exact: bool = False
    heads: tuple[str, ...] = ()
    default: str = ""

    @property
    def is_request(self) -> bool:
        """Whether the change is to be merged into another branch."""
        return self.name not in {"", "push"}


@dataclass(frozen=True)
class _System:
    """The variables of one CI system.

    `request` is set in a pull request only, `target` names the branch to merge into, and `base` a
    commit of it. `before` holds what a pushed branch held earlier, `head` the commit under test. A
    variable with a range (`a...b`) gives its first commit.
    """

    request: str
    target: str = ""
    base: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    head: str = ""
    default: str = ""
    name: str = "pull request"


_SYSTEMS = (
    # Buildkite; first the builds of a merge queue
    _System(
        "BUILDKITE_MERGE_QUEUE_BASE_BRANCH",
        "BUILDKITE_MERGE_QUEUE_BASE_BRANCH",
        ("BUILDKITE_MERGE_QUEUE_BASE_COMMIT",),
        head="BUILDKITE_COMMIT",
        name="merge group",
    ),
    _System(
        "BUILDKITE_PULL_REQUEST",
        "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
        head="BUILDKITE_COMMIT",
        default="BUILDKITE_PIPELINE_DEFAULT_BRANCH",
    ),
    # Jenkins: its plugins for pull requests of GitHub and of GitLab, then multibranch jobs
    _System("ghprbTargetBranch", "ghprbTargetBranch", head="GIT_COMMIT"),
    _System("gitlabMergeRequestIid", "gitlabTargetBranch", head="GIT_COMMIT", name="merge request"),
    _System(
        "CHANGE_TARGET",
        "CHANGE_TARGET",
        before=("GIT_PREVIOUS_SUCCESSFUL_COMMIT", "GIT_PREVIOUS_COMMIT"),
        head="GIT_COMMIT",
    ),
    # Azure Pipelines
    _System(
        "SYSTEM_PULLREQUEST_TARGETBRANCH",
        "SYSTEM_PULLREQUEST_TARGETBRANCH",
        head="BUILD_SOURCEVERSION",
    ),
    # Bitbucket Pipelines
    _System(
        "BITBUCKET_PR_DESTINATION_BRANCH",
        "BITBUCKET_PR_DESTINATION_BRANCH",
        ("BITBUCKET_PR_DESTINATION_COMMIT",),
        head="BITBUCKET_COMMIT",
    ),
    # CircleCI names the pull request, not its target
    _System("CIRCLE_PULL_REQUEST", head="CIRCLE_SHA1"),
    # Travis CI
    _System(
        "TRAVIS_PULL_REQUEST",
        "TRAVIS_BRANCH",
        ("TRAVIS_COMMIT_RANGE",),
        before=("TRAVIS_COMMIT_RANGE",),
        head="TRAVIS_COMMIT",
    ),
    # Drone, and Woodpecker, which came from it
    _System(
        "DRONE_PULL_REQUEST",
        "DRONE_TARGET_BRANCH",
        before=("DRONE_COMMIT_BEFORE",),
        head="DRONE_COMMIT_SHA",
    ),
    _System(
        "CI_COMMIT_PULL_REQUEST",
        "CI_COMMIT_TARGET_BRANCH",
        before=("CI_PREV_COMMIT_SHA",),
        head="CI_COMMIT_SHA",
        default="CI_REPO_DEFAULT_BRANCH",
    ),
    # AppVeyor and Semaphore: in a pull request their branch is its target
    _System("APPVEYOR_PULL_REQUEST_NUMBER", "APPVEYOR_REPO_BRANCH", head="APPVEYOR_REPO_COMMIT"),
    _System(
        "SEMAPHORE_GIT_PR_NUMBER",
        "SEMAPHORE_GIT_BRANCH",
        ("SEMAPHORE_GIT_COMMIT_RANGE",),
        before=("SEMAPHORE_GIT_COMMIT_RANGE",),
        head="SEMAPHORE_GIT_SHA",
    ),
    # AWS CodeBuild
    _System(
        "CODEBUILD_WEBHOOK_BASE_REF",
        "CODEBUILD_WEBHOOK_BASE_REF",
        before=("CODEBUILD_WEBHOOK_PREV_COMMIT",),
        head="CODEBUILD_RESOLVED_SOURCE_VERSION",
    ),
    # Cirrus CI
    _System(
        "CIRRUS_PR",
        "CIRRUS_BASE_BRANCH",
        ("CIRRUS_BASE_SHA",),
        before=("CIRRUS_LAST_GREEN_CHANGE",),
        head="CIRRUS_CHANGE_IN_REPO",
        default="CIRRUS_DEFAULT_BRANCH",
    ),
    # Prow
    _System("PULL_NUMBER", "PULL_BASE_REF", ("PULL_BASE_SHA",), head="PULL_PULL_SHA"),
    # Bitrise, Codefresh, Codemagic
    _System("BITRISEIO_GIT_BRANCH_DEST", "BITRISEIO_GIT_BRANCH_DEST", head="BITRISE_GIT_COMMIT"),
    _System("CF_PULL_REQUEST_TARGET", "CF_PULL_REQUEST_TARGET", head="CF_REVISION"),
    _System(
        "CM_PULL_REQUEST_DEST",
        "CM_PULL_REQUEST_DEST",
        before=("CM_PREVIOUS_COMMIT",),
        head="CM_COMMIT",
    ),
)


def change_of(env: Mapping[str, str]) -> Change:
    """The change that this environment describes; without a name if it describes none."""
    change = _github(env) or _gitlab(env)
    for system in () if change else _SYSTEMS:
        if change := _in(system, env):
            break
    change = change or Change()
    return replace(
        change,
        target=change.target.removeprefix("refs/heads/"),
        bases=_commits(change.bases),
        heads=_commits(change.heads),
    )


def in_ci(env: Mapping[str, str]) -> bool:
    """Whether a CI system runs this. Azure Pipelines and TeamCity do not set the variable CI."""
    named = any(env.get(name) for name in ("TF_BUILD", "TEAMCITY_VERSION"))
    return named or env.get("CI", "").lower() not in {*_NONE, "no"} or bool(change_of(env).name)


def _in(system: _System, env: Mapping[str, str]) -> Change | None:
    heads, default = (env.get(system.head, ""),), env.get(system.default, "")

    def values(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(env.get(name, "").partition("..")[0] for name in names)

    if env.get(system.request, "").lower() not in _NONE:
        target, bases = env.get(system.target, ""), values(system.base)
        return Change(system.name, target, bases, heads=heads, default=default)
    before = values(system.before)
    if any(before) or default:
        return Change("push", bases=before, heads=heads, default=default)
    return None


def _github(env: Mapping[str, str]) -> Change | None:
    """GitHub Actions, and Gitea and Forgejo, which set the same variables."""
    name, target = env.get("GITHUB_EVENT_NAME", ""), env.get("GITHUB_BASE_REF", "")
    if not name and not target:
        return None
    event = _event(env)
    pull = _section(event, "pull_request")
    change = Change(
        heads=(env.get("GITHUB_SHA", ""), _text(_section(pull, "head").get("sha"))),
        default=_text(_section(event, "repository").get("default_branch")),
    )
    if name == "merge_group":
        queued = _section(event, "merge_group")
        target, base = _text(queued.get("base_ref")), _text(queued.get("base_sha"))
        return replace(change, name="merge group", target=target, bases=(base,), is_exact=True)
    if target or name.startswith("pull_request"):
        stated = _section(pull, "base")
        target, base = target or _text(stated.get("ref")), _text(stated.get("sha"))
        return replace(change, name="pull request", target=target, bases=(base,))
    before = _text(event.get("before")) if name == "push" else ""
    return replace(change, name="push", bases=(before,))


def _gitlab(env: Mapping[str, str]) -> Change | None:
    change = Change(
        heads=(env.get("CI_COMMIT_SHA", ""), env.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", "")),
        default=env.get("CI_DEFAULT_BRANCH", ""),
    )
    # Pipelines of merged results and merge trains run on a merge with the target branch's commit.
    merged = env.get("CI_MERGE_REQUEST_TARGET_BRANCH_SHA", "")
    base = env.get("CI_MERGE_REQUEST_DIFF_BASE_SHA", "")
    target = env.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "")
    if merged or base or target:
        bases = (merged, base)
        return replace(change, name="merge request", target=target, bases=bases, is_exact=True)
    target = env.get("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME", "")
    if target:
        base = env.get("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_SHA", "")
        return replace(change, name="pull request", target=target, bases=(base,))
    before = env.get("CI_COMMIT_BEFORE_SHA", "")
    if not before and not change.default:
        return None
    return replace(change, name="push", bases=(before,))


def _commits(names: Iterable[str]) -> tuple[str, ...]:
    """The names of commits among these: the zeros of a new branch name none."""
    return tuple(name for name in names if _COMMIT.fullmatch(name) and name.strip("0"))


def _event(env: Mapping[str, str]) -> dict[str, Any]:
    """GitHub's description of the event; empty if its file is missing or broken.

    It only adds to the environment variables, and some containers that run a job lack the file.
    """
    try:
        event = read_json(read_bytes(Path(env.get("GITHUB_EVENT_PATH", ""))))
    except (OSError, ValueError):
        return {}
    return event if isinstance(event, dict) else {}


def _section(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = of.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
