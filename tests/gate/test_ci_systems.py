"""The commit to compare with, by the variables of each CI system, in real repositories."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.gate.ci_systems import change_of, in_ci
from pytest_ftloop.gate.reference import reference, reference_of, start_of_change
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ZEROS = "0" * 40
GONE = "1" * 40


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@dataclass(frozen=True)
class Layout:
    """A clone as CI systems make it: `origin/main` went on after the branch `work` started.

    HEAD is the branch (`work`), the branch merged into main (`merged`), or main itself (`main`).
    """

    clone: GitRepo
    commits: Mapping[str, str]

    def env(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The variables, with the commits' names for `<start>`, `<main>` and so on."""
        found = {}
        for name, value in variables.items():
            for commit, sha in self.commits.items():
                value = value.replace(f"<{commit}>", sha).replace(f"<{commit}:7>", sha[:7])
            found[name] = value
        return found


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Layout]:
    """Made once, since no test changes them."""
    tmp_path = tmp_path_factory.mktemp("layouts")
    hosted = GitRepo.init(tmp_path / "hosted")
    commits = {"first": hosted.commit({"a": "0"}), "start": hosted.commit({"a": "1"})}
    hosted.branch("work")
    commits["step"] = hosted.commit({"b": "1"})
    commits["work"] = hosted.commit({"b": "2"})
    hosted.switch("main")
    commits["main"] = hosted.commit({"a": "2"})
    hosted.switch(commits["main"])
    commits["merged"] = hosted.merge("work")
    hosted.git("update-ref", "refs/pull/1/merge", "HEAD")
    hosted.switch("main")
    found = {}
    for name in ("work", "merged", "main"):
        clone = hosted.clone(tmp_path / name)
        clone.git("fetch", "--quiet", "origin", "+refs/pull/1/merge:refs/remotes/pull/1/merge")
        clone.switch(commits[name])
        found[name] = Layout(clone, commits)
    return found


REQUESTS = {
    "buildkite": {
        "BUILDKITE_PULL_REQUEST": "7",
        "BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main",
        "BUILDKITE_COMMIT": "<work>",
    },
    "jenkins": {"CHANGE_TARGET": "main", "GIT_PREVIOUS_SUCCESSFUL_COMMIT": "<step>"},
    "jenkins with ghprb": {"ghprbTargetBranch": "main", "GIT_PREVIOUS_COMMIT": "<step>"},
    "jenkins with gitlab": {"gitlabMergeRequestIid": "3", "gitlabTargetBranch": "main"},
    "azure": {"SYSTEM_PULLREQUEST_TARGETBRANCH": "refs/heads/main"},
    "azure, short": {"SYSTEM_PULLREQUEST_TARGETBRANCH": "main"},
    "bitbucket": {"BITBUCKET_PR_DESTINATION_BRANCH": "main"},
    "bitbucket, branch not fetched": {
        "BITBUCKET_PR_DESTINATION_BRANCH": "gone",
        "BITBUCKET_PR_DESTINATION_COMMIT": "<main:7>",
    },
    "travis": {"TRAVIS_PULL_REQUEST": "7", "TRAVIS_BRANCH": "main"},
    "drone": {"DRONE_PULL_REQUEST": "7", "DRONE_TARGET_BRANCH": "main"},
    "woodpecker": {"CI_COMMIT_PULL_REQUEST": "7", "CI_COMMIT_TARGET_BRANCH": "main"},
    "appveyor": {"APPVEYOR_PULL_REQUEST_NUMBER": "7", "APPVEYOR_REPO_BRANCH": "main"},
    "semaphore": {"SEMAPHORE_GIT_PR_NUMBER": "7", "SEMAPHORE_GIT_BRANCH": "main"},
    "codebuild": {"CODEBUILD_WEBHOOK_BASE_REF": "refs/heads/main"},
    "cirrus": {"CIRRUS_PR": "7", "CIRRUS_BASE_BRANCH": "main", "CIRRUS_BASE_SHA": "<main>"},
    "prow": {"PULL_NUMBER": "7", "PULL_BASE_REF": "main", "PULL_BASE_SHA": "<main>"},
    "bitrise": {"BITRISEIO_GIT_BRANCH_DEST": "main"},
    "codefresh": {"CF_PULL_REQUEST_TARGET": "main"},
    "codemagic": {"CM_PULL_REQUEST_DEST": "main"},
    "github": {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_BASE_REF": "main"},
    "github, target": {"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_BASE_REF": "main"},
    "gitlab": {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"},
    "gitlab, external": {"CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME": "main"},
}


@pytest.mark.parametrize(("head", "base"), [("work", "start"), ("merged", "main")])
@pytest.mark.parametrize("system", REQUESTS)
def test_request(layouts: dict[str, Layout], system: str, head: str, base: str) -> None:
    """A request starts at its merge base with the target: of a merge with it, at its tip."""
    layout = layouts[head]
    env = layout.env(REQUESTS[system])
    found = reference(Repository(layout.clone.root), None, env)
    assert (layout.commits[base], False) == (found.commit, found.is_unstated)
    assert change_of(env).is_request
    assert in_ci(env)


@pytest.mark.parametrize("system", REQUESTS)
def test_request_is_not_its_own_base(layouts: dict[str, Layout], system: str) -> None:
    """Where the target has all of HEAD, HEAD is not compared with itself: it is said."""
    layout = layouts["main"]
    env = layout.env(REQUESTS[system])
    found = reference(Repository(layout.clone.root), None, env)
    assert found.is_unstated
    assert found.note.endswith("is the commit under test itself")


PUSHES = {
    "github": ({"GITHUB_EVENT_NAME": "push", "GITHUB_EVENT_PATH": "<event>"}, "start"),
    "gitlab": ({"CI_COMMIT_BEFORE_SHA": "<start>", "CI_DEFAULT_BRANCH": "main"}, "start"),
    "jenkins": (
        {"GIT_PREVIOUS_SUCCESSFUL_COMMIT": "<first>", "GIT_PREVIOUS_COMMIT": "<start>"},
        "first",
    ),
    "jenkins, none has succeeded": ({"GIT_PREVIOUS_COMMIT": "<start>"}, "start"),
    "jenkins, built again": (
        {"GIT_PREVIOUS_SUCCESSFUL_COMMIT": "<main>", "GIT_PREVIOUS_COMMIT": "<start>"},
        "start",
    ),
    "travis": (
        {"TRAVIS_PULL_REQUEST": "false", "TRAVIS_COMMIT_RANGE": "<start:7>...<main:7>"},
        "start",
    ),
    "drone": ({"DRONE_COMMIT_BEFORE": "<start>"}, "start"),
    "woodpecker": ({"CI_PREV_COMMIT_SHA": "<start>"}, "start"),
    "semaphore": ({"SEMAPHORE_GIT_COMMIT_RANGE": "<start>...<main>"}, "start"),
    "codebuild": ({"CODEBUILD_WEBHOOK_PREV_COMMIT": "<start>"}, "start"),
    "cirrus": ({"CIRRUS_LAST_GREEN_CHANGE": "<start>"}, "start"),
    "codemagic": ({"CM_PREVIOUS_COMMIT": "<start>"}, "start"),
}


@pytest.mark.parametrize("system", PUSHES)
def test_push(layouts: dict[str, Layout], tmp_path: Path, system: str) -> None:
    """A push is compared with what its branch held before."""
    layout = layouts["main"]
    variables, base = PUSHES[system]
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"before": layout.commits["start"], "ref": "refs/heads/main"}))
    env = {**layout.env(variables)}
    env = {name: value.replace("<event>", str(event)) for name, value in env.items()}
    found = reference(Repository(layout.clone.root), None, env)
    assert (layout.commits[base], False) == (found.commit, found.is_unstated)
    assert f"before the push ({layout.commits[base][:7]})" == found.shown
    assert not change_of(env).is_request


@pytest.mark.parametrize(
    ("before", "note"),
    [(ZEROS, ""), ("", ""), (GONE, "before the push, 1111111, is not in this clone")],
)
@pytest.mark.parametrize("head", ["work", "main"])
def test_push_without_a_commit_before(
    layouts: dict[str, Layout], before: str, note: str, head: str
) -> None:
    """A new branch or tag, and one that was pushed by force: the branch's start, if it has one."""
    layout = layouts[head]
    repository = Repository(layout.clone.root)
    env = {"CI_COMMIT_BEFORE_SHA": before, "CI_DEFAULT_BRANCH": "main"}
    found = reference(repository, None, env)
    assert found.is_unstated
    assert note in found.note
    start = start_of_change(repository, found)
    expected = layout.commits["start"] if head == "work" else None
    assert expected == (start and start.commit)


NOTHING = (
    {"CIRCLE_PULL_REQUEST": "https://host/pull/7"},
    {"GITHUB_EVENT_NAME": "workflow_dispatch"},
    {"GITHUB_EVENT_NAME": "schedule"},
    {"GITHUB_EVENT_NAME": "release"},
    {"TEAMCITY_VERSION": "2025.1"},
    {"TF_BUILD": "True"},
    {"BUILDKITE_PULL_REQUEST": "false", "BUILDKITE_PIPELINE_DEFAULT_BRANCH": "main"},
    {"CI": "true"},
)


@pytest.mark.parametrize("env", NOTHING, ids=lambda env: next(iter(env)))
def test_nothing_stated(layouts: dict[str, Layout], env: dict[str, str]) -> None:
    """What states no base is told from one that does; a branch starts at the default one."""
    layout = layouts["work"]
    repository = Repository(layout.clone.root)
    found = reference(repository, None, env)
    assert found.is_unstated
    assert in_ci(env)
    start = start_of_change(repository, found)
    assert start is not None
    assert layout.commits["start"] == start.commit
    assert f"origin/main ({start.commit[:7]}, merge base)" == start.shown


def test_no_variables(layouts: dict[str, Layout]) -> None:
    """As through tox, which drops them."""
    assert not in_ci({})
    assert not in_ci({"CI": "false"})
    assert not change_of({}).name
    for head, expected in (("work", "start"), ("merged", "main"), ("main", None)):
        layout = layouts[head]
        repository = Repository(layout.clone.root)
        start = start_of_change(repository, reference(repository, None, {}))
        assert (expected and layout.commits[expected]) == (start and start.commit)


@pytest.mark.parametrize(
    ("variables", "base"),
    [
        ({"CI_MERGE_REQUEST_DIFF_BASE_SHA": "<start>"}, "start"),
        (
            {
                "CI_MERGE_REQUEST_DIFF_BASE_SHA": "<start>",
                "CI_MERGE_REQUEST_TARGET_BRANCH_SHA": "<main>",
            },
            "main",
        ),
    ],
)
def test_gitlab_merged_results(
    layouts: dict[str, Layout], variables: dict[str, str], base: str
) -> None:
    """Merged results and trains run on a merge with the target's commit, which is their base."""
    layout = layouts["merged"]
    found = reference(Repository(layout.clone.root), None, layout.env(variables))
    assert layout.commits[base] == found.commit


def test_merge_queue_of_buildkite(layouts: dict[str, Layout]) -> None:
    layout = layouts["merged"]
    variables = {
        "BUILDKITE_PULL_REQUEST": "false",
        "BUILDKITE_MERGE_QUEUE_BASE_BRANCH": "gone",
        "BUILDKITE_MERGE_QUEUE_BASE_COMMIT": "<main>",
    }
    found = reference(Repository(layout.clone.root), None, layout.env(variables))
    assert layout.commits["main"] == found.commit


def test_another_repository(layouts: dict[str, Layout]) -> None:
    """Variables whose commits this repository lacks describe another one, and that is said."""
    layout = layouts["work"]
    env = {
        "GITHUB_EVENT_NAME": "pull_request",
        "GITHUB_BASE_REF": "main",
        "GITHUB_SHA": GONE,
    }
    found = reference(Repository(layout.clone.root), None, env)
    assert found.is_unstated
    assert "one of another repository" in found.note


def test_submodule(layouts: dict[str, Layout], tmp_path: Path) -> None:
    """A change of the repository around a submodule: compared with what its base names."""
    commits = layouts["main"].commits
    around = GitRepo.init(tmp_path / "around")
    around.commit({"a": "0"})
    url = (layouts["main"].clone.root.parent / "hosted").as_uri()
    around.git("submodule", "--quiet", "add", url, "loops")
    inner = GitRepo(around.root / "loops")
    inner.switch(commits["start"])
    base = around.commit()
    around.branch("work")
    inner.switch(commits["main"])
    around.commit()
    repository = Repository.containing(inner.root)
    pull = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_BASE_REF": "main"}
    found = reference(repository, None, pull)
    shown = f"the submodule loops ({commits['start'][:7]}) at main ({base[:7]}, merge base)"
    assert (commits["start"], shown) == (found.commit, found.shown)
    start = start_of_change(repository, reference(repository, None, {}))
    assert start is not None
    assert commits["start"] == start.commit
    around.git("rm", "--quiet", "--cached", "loops")
    around.git("commit", "--quiet", "--message", "none")
    assert "not" not in reference(repository, None, pull).note


def test_named_commit(layouts: dict[str, Layout], tmp_path: Path) -> None:
    """`..HEAD` is not compared with HEAD: with the branch's start, else with the commit before."""
    commits = layouts["work"].commits
    on_main, on_work = (Repository(layouts[name].clone.root) for name in ("main", "work"))
    assert commits["main"] == reference_of(on_main, commits["work"], {}).commit
    assert commits["start"] == reference_of(on_main, "HEAD", {}).commit
    assert commits["start"] == reference_of(on_work, "HEAD", {}).commit
    only = GitRepo.init(tmp_path / "only")
    only.commit({"a": "0"})
    with pytest.raises(GitError, match="it is the first one"):
        reference_of(Repository(only.root), "HEAD", {})
