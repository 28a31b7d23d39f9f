"""Which commit is the standard: stated, where a pull or merge request starts, else the last."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.gate.reference import Range, Reference, reference, split_range
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@dataclass(frozen=True)
class Hosted:
    """A repository with a pull request: main went on after its branch started."""

    repo: GitRepo
    start: str
    main: str
    feature: str
    merged: str
    """What actions/checkout gives: the branch merged into main, at refs/pull/1/merge."""


@pytest.fixture
def hosted(tmp_path: Path) -> Hosted:
    repo = GitRepo.init(tmp_path / "hosted")
    repo.commit({"a.txt": "zero"})
    start = repo.commit({"a.txt": "one"})
    repo.branch("feature")
    feature = repo.commit({"b.txt": "two"})
    repo.switch("main")
    main = repo.commit({"a.txt": "three"})
    repo.switch(main)
    merged = repo.merge("feature")
    repo.git("update-ref", "refs/pull/1/merge", merged)
    repo.switch("main")
    return Hosted(repo, start, main, feature, merged)


def checkout(
    hosted: Hosted, to: Path, ref: str, *fetched: str, depth: int | None = None
) -> GitRepo:
    """As actions/checkout does it: fetch what is named, then a detached HEAD at `ref`."""
    ci = GitRepo.init(to)
    ci.git("remote", "add", "origin", hosted.repo.root.as_uri())
    cut = () if depth is None else (f"--depth={depth}",)
    # By its address: fetching from `origin` would update its branches on the side.
    url = hosted.repo.root.as_uri()
    ci.git("fetch", "--quiet", "--no-tags", *cut, url, f"{ref}:refs/pull/head", *fetched)
    ci.switch("refs/pull/head")
    return ci


def event(folder: Path, content: object) -> str:
    path = folder / "event.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def pull_request(base: str, ref: str = "main") -> dict[str, object]:
    return {"pull_request": {"base": {"sha": base, "ref": ref}, "head": {"sha": "x"}}}


def ask(
    repo: GitRepo, stated: str | None = None, env: Mapping[str, str] | None = None
) -> Reference:
    return reference(Repository.containing(repo.root), stated, env or {})


def refused(kind: str, repo: GitRepo, env: Mapping[str, str]) -> GitError:
    with pytest.raises(GitError) as caught:
        ask(repo, None, env)
    assert kind == caught.value.kind, caught.value
    return caught.value


ALL = "+refs/heads/*:refs/remotes/origin/*"
PULL = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_BASE_REF": "main"}


class TestNothingStated:
    def test_last_commit(self, hosted: Hosted) -> None:
        """On a developer's machine it is HEAD, which may hold the candidate itself."""
        shown = f"HEAD ({hosted.main[:7]})"
        expected = Reference(hosted.main, shown, "the last commit", is_unstated=True)
        assert expected == ask(hosted.repo)

    @pytest.mark.parametrize("name", ["push", "schedule", "workflow_dispatch"])
    def test_other_events(self, hosted: Hosted, name: str) -> None:
        """Outside a pull request CI is no different; empty variables say nothing."""
        env = {"CI": "true", "GITHUB_EVENT_NAME": name, "GITHUB_BASE_REF": "", "CI_COMMIT_SHA": "1"}
        assert hosted.main == ask(hosted.repo, env=env).commit

    def test_detached(self, hosted: Hosted) -> None:
        hosted.repo.switch(hosted.start)
        assert hosted.start == ask(hosted.repo).commit

    @pytest.mark.parametrize("env", [{}, PULL])
    def test_unborn(self, tmp_path: Path, env: dict[str, str]) -> None:
        """Before the first commit there is no standard."""
        refused("no-commit", GitRepo.init(tmp_path / "empty"), env)

    def test_shallow(self, hosted: Hosted, tmp_path: Path) -> None:
        """A shallow clone has its HEAD."""
        clone = hosted.repo.clone(tmp_path / "clone", depth=1)
        assert hosted.main == ask(clone).commit


class TestStated:
    def test_wins(self, hosted: Hosted) -> None:
        """A stated ref is the standard in a pull request too."""
        hosted.repo.tag("v1", hosted.start)
        expected = Reference(hosted.start, f"v1 ({hosted.start[:7]})", "stated")
        assert expected == ask(hosted.repo, "v1", PULL)

    def test_a_name_is_shown_once(self, hosted: Hosted) -> None:
        """A commit's own name, whole or short, is shown short."""
        short = hosted.main[:7]
        assert [short, short] == [ask(hosted.repo, hosted.main[:n]).shown for n in (40, 9)]

    @pytest.mark.parametrize("stated", ["main...feature", "main..feature", "main..", "", " "])
    def test_a_range_is_not_one_commit(self, hosted: Hosted, stated: str) -> None:
        """A range or nothing (an empty variable) is refused, with what to write instead."""
        with pytest.raises(ConfigError, match="wanted one commit") as caught:
            ask(hosted.repo, stated)
        assert repr(stated) in caught.value.message
        assert "where the change starts" in caught.value.cure

    def test_dots_in_braces(self, hosted: Hosted) -> None:
        """Text to search for may hold dots."""
        wanted = hosted.repo.commit({"a.txt": "x"}, "from 1..2")
        hosted.repo.commit({"a.txt": "y"})
        assert wanted == ask(hosted.repo, "HEAD^{/1..2}").commit

    @pytest.mark.parametrize("stated", ["--output=x", "no-such", "a b"])
    def test_unknown(self, hosted: Hosted, stated: str) -> None:
        with pytest.raises(GitError) as caught:
            ask(hosted.repo, stated)
        assert "unknown-ref" == caught.value.kind


class TestGitHub:
    def test_merge_commit(self, hosted: Hosted, tmp_path: Path) -> None:
        """All fetched, HEAD the pull request merged: the standard is the target branch's tip."""
        ci = checkout(hosted, tmp_path / "ci", "refs/pull/1/merge", ALL)
        found = ask(ci, env=PULL)
        assert (hosted.main, f"origin/main ({hosted.main[:7]}, merge base)") == (
            found.commit, found.shown,
        )  # fmt: skip
        assert "the merge base with the target branch of the pull request" == found.how

    @pytest.mark.parametrize(
        "env",
        [
            PULL,
            {"GITHUB_BASE_REF": "main"},
            {"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_BASE_REF": "main"},
        ],
    )
    def test_branch_itself(self, hosted: Hosted, tmp_path: Path, env: dict[str, str]) -> None:
        """HEAD the pull request's own last commit: the standard is where its branch started."""
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL)
        assert hosted.start == ask(ci, env=env).commit

    def test_branch_with_slashes(self, hosted: Hosted, tmp_path: Path) -> None:
        hosted.repo.git("branch", "release/v1/x", hosted.start)
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL)
        found = ask(ci, env={**PULL, "GITHUB_BASE_REF": "release/v1/x"})
        assert f"origin/release/v1/x ({hosted.start[:7]}, merge base)" == found.shown

    def test_another_remote(self, hosted: Hosted, tmp_path: Path) -> None:
        """A fork's clone may have the target branch from another remote only."""
        ci = checkout(hosted, tmp_path / "ci", "feature")
        ci.git("remote", "rename", "origin", "upstream")
        ci.git("fetch", "--quiet", "upstream")
        assert f"upstream/main ({hosted.start[:7]}, merge base)" == ask(ci, env=PULL).shown

    def test_origin_first(self, hosted: Hosted, tmp_path: Path) -> None:
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL)
        ci.git("remote", "add", "another", "x")
        ci.git("update-ref", "refs/remotes/another/main", hosted.feature)
        assert hosted.start == ask(ci, env=PULL).commit

    def test_local_branch(self, hosted: Hosted) -> None:
        """Without a remote the branch of that name here is the target."""
        hosted.repo.switch("feature")
        assert f"main ({hosted.start[:7]}, merge base)" == ask(hosted.repo, env=PULL).shown

    def test_a_tag_of_that_name(self, hosted: Hosted, tmp_path: Path) -> None:
        """A tag named as the branch does not stand for it."""
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL)
        ci.tag("main", "HEAD")
        ci.tag("origin/main", "HEAD")
        assert hosted.start == ask(ci, env=PULL).commit

    def test_event(self, hosted: Hosted, tmp_path: Path) -> None:
        """No target branch fetched: the base that the event tells, from where HEAD left it."""
        ci = checkout(hosted, tmp_path / "ci", "feature", "main")
        env = {**PULL, "GITHUB_EVENT_PATH": event(tmp_path, pull_request(hosted.main))}
        found = ask(ci, env=env)
        assert (hosted.start, f"base of the pull request ({hosted.start[:7]})") == (
            found.commit, found.shown,
        )  # fmt: skip

    def test_event_names_the_branch(self, hosted: Hosted, tmp_path: Path) -> None:
        """Where the variable did not get into the container, the event's file tells the branch."""
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL)
        path = event(tmp_path, pull_request("1" * 40))
        env = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": path}
        assert hosted.start == ask(ci, env=env).commit

    def test_shallow(self, hosted: Hosted, tmp_path: Path) -> None:
        """The default checkout, one commit deep: says what is missing and the setting to change."""
        ci = checkout(hosted, tmp_path / "ci", "refs/pull/1/merge", depth=1)
        path = event(tmp_path, pull_request(hosted.main))
        error = refused("shallow", ci, {**PULL, "GITHUB_EVENT_PATH": path})
        assert "pull request" in error.message
        assert "'main'" in error.message
        assert "fetch-depth: 0" in error.cure

    def test_shallow_with_the_branch(self, hosted: Hosted, tmp_path: Path) -> None:
        """The target branch fetched without its history has no merge base to find."""
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL, depth=1)
        assert "fetch-depth: 0" in refused("shallow", ci, PULL).cure

    def test_shallow_with_the_base(self, hosted: Hosted, tmp_path: Path) -> None:
        """The base commit alone was fetched: it is the standard as it is."""
        ci = checkout(hosted, tmp_path / "ci", "refs/pull/1/merge", "main", depth=1)
        env = {**PULL, "GITHUB_EVENT_PATH": event(tmp_path, pull_request(hosted.main))}
        assert f"base of the pull request ({hosted.main[:7]})" == ask(ci, env=env).shown
        ci.git("update-ref", "refs/remotes/origin/main", hosted.main)
        assert hosted.main == ask(ci, env=env).commit

    def test_two_deep(self, hosted: Hosted, tmp_path: Path) -> None:
        """The merge commit and its parents suffice where the event tells the base."""
        ci = checkout(hosted, tmp_path / "ci", "refs/pull/1/merge", depth=2)
        env = {**PULL, "GITHUB_EVENT_PATH": event(tmp_path, pull_request(hosted.main))}
        assert hosted.main == ask(ci, env=env).commit

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{",
            "[]",
            "null",
            "\0",
            "[" * 100_000,
            '{"pull_request": null}',
            '{"pull_request": {"base": []}}',
            '{"pull_request": {"base": {"sha": 1, "ref": {}}}}',
            '{"pull_request": {"base": {"sha": "--output=x"}}}',
            '{"pull_request": {"base": {"sha": "HEAD"}}}',
        ],
        ids=lambda content: ascii(content[:40]),
    )
    def test_broken_event(self, hosted: Hosted, tmp_path: Path, content: str) -> None:
        """A broken file of the event tells nothing: the branch does, or it is not fetched."""
        env = {**PULL, "GITHUB_EVENT_PATH": event(tmp_path, content)}
        assert (
            hosted.start == ask(checkout(hosted, tmp_path / "all", "feature", ALL), env=env).commit
        )
        ci = checkout(hosted, tmp_path / "one", "feature")
        error = refused("unknown-ref", ci, env)
        assert "'main' was not fetched" in error.message
        assert "git fetch origin main" in error.cure

    @pytest.mark.parametrize("path", ["", "no/such/file", ".", "\0"], ids=ascii)
    def test_no_event(self, hosted: Hosted, tmp_path: Path, path: str) -> None:
        """Neither branch nor event: nothing states the base, and that is said."""
        ci = checkout(hosted, tmp_path / "ci", "feature")
        env = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": path}
        found = ask(ci, env=env)
        assert found.is_unstated
        assert "does not state where the pull request is to be merged" in found.note

    def test_unrelated(self, hosted: Hosted) -> None:
        """A target branch with no common history is told as that."""
        hosted.repo.git("switch", "--quiet", "--orphan", "other")
        hosted.repo.commit({"c.txt": "x"})
        refused("no-merge-base", hosted.repo, PULL)

    @pytest.mark.parametrize("target", ["--output=x", "a b", "*", "main..feature", "\n"], ids=ascii)
    def test_hostile_branch(self, hosted: Hosted, target: str) -> None:
        refused("unknown-ref", hosted.repo, {**PULL, "GITHUB_BASE_REF": target})

    def test_merge_queue(self, hosted: Hosted, tmp_path: Path) -> None:
        """In a merge queue it is the commit that the group starts from, else the merge base."""
        ci = checkout(hosted, tmp_path / "ci", "refs/pull/1/merge", ALL)
        group = {"base_sha": hosted.start, "base_ref": "refs/heads/main"}
        env = {"GITHUB_EVENT_NAME": "merge_group"}
        path = event(tmp_path, {"merge_group": group})
        found = ask(ci, env={**env, "GITHUB_EVENT_PATH": path})
        assert f"base of the merge group ({hosted.start[:7]})" == found.shown
        path = event(tmp_path, {"merge_group": {**group, "base_sha": "1" * 40}})
        assert hosted.main == ask(ci, env={**env, "GITHUB_EVENT_PATH": path}).commit
        assert "does not state where the merge group" in ask(ci, env=env).note
        group = {"base_sha": "1" * 40, "base_ref": "refs/heads/gone"}
        path = event(tmp_path, {"merge_group": group})
        error = refused("unknown-ref", ci, {**env, "GITHUB_EVENT_PATH": path})
        assert "merge group" in error.message


class TestGitLab:
    def test_base(self, hosted: Hosted, tmp_path: Path) -> None:
        """The base that GitLab tells is the merge base itself."""
        ci = checkout(hosted, tmp_path / "ci", "feature")
        found = ask(ci, env={"CI_MERGE_REQUEST_DIFF_BASE_SHA": hosted.start})
        assert Reference(
            hosted.start,
            f"base of the merge request ({hosted.start[:7]})",
            "the base of the merge request, as the CI system states it",
        ) == found  # fmt: skip

    @pytest.mark.parametrize("base", ["", "1" * 40, "--output=x"])
    def test_target(self, hosted: Hosted, tmp_path: Path, base: str) -> None:
        """Without it, or where it was not fetched, the target branch."""
        ci = checkout(hosted, tmp_path / "ci", "feature", ALL)
        env = {
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        }
        assert f"origin/main ({hosted.start[:7]}, merge base)" == ask(ci, env=env).shown

    def test_shallow(self, hosted: Hosted, tmp_path: Path) -> None:
        """Neither is there: GitLab's own setting is in the cure."""
        ci = checkout(hosted, tmp_path / "ci", "feature", depth=1)
        env = {
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": hosted.start,
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        }
        error = refused("shallow", ci, env)
        assert "merge request" in error.message
        assert "GIT_DEPTH: 0" in error.cure


class TestSplitRange:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("main", Range("main", None)),
            ("main..HEAD", Range("main", "HEAD")),
            ("main..", Range("main", None)),
            ("..HEAD", Range(None, "HEAD")),
            ("main...feature", Range("main", "feature", merge_base=True)),
            ("main...", Range("main", None, merge_base=True)),
            ("v1.0..v1.1", Range("v1.0", "v1.1")),
            ("HEAD@{2 days ago}..HEAD", Range("HEAD@{2 days ago}", "HEAD")),
            ("a-b/c..d_e", Range("a-b/c", "d_e")),
        ],
    )
    def test_forms(self, text: str, expected: Range) -> None:
        assert expected == split_range(text)

    @pytest.mark.parametrize(
        "text",
        [
            *("", " ", "..", "...", "....", "a....b", "a..b..c", "a...b...c", "a..b...c", "...b"),
            *("--output=x", "a..--output", "-..a", "a ..b", "a.. b", " a", "a\n", "a\0b", "a..\n"),
            ".a",
        ],
        ids=ascii,
    )
    def test_nonsense(self, text: str) -> None:
        """What is neither is refused, with the forms there are."""
        with pytest.raises(ConfigError, match="wanted one commit or a range") as caught:
            split_range(text)
        assert repr(text) in caught.value.message
        assert "main..HEAD" in caught.value.cure
