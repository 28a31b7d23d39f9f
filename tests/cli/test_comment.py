"""`ftloop comment`: what is commented, where, and of a report that nobody vouches for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.cli.github import MARKER
from pytest_ftloop.report.pull_request import LIMIT, of, render, to_json
from tests.gitfakes import isolate
from tests.github_fakes import FakeGitHub, commands, serving
from tests.report.pull_request_cases import failed, judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGitHub]:
    """GitHub, as a step with a token sees it; it waits for nothing."""
    isolate(monkeypatch)
    with serving(FakeGitHub()) as served:
        for name, value in served.env.items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Set the event that started the workflow."""

    def set_to(content: Any) -> None:
        path = tmp_path / "event.json"
        path.write_text(json.dumps(content))
        monkeypatch.setenv("GITHUB_EVENT_PATH", str(path))

    return set_to


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.json"
    path.write_text(to_json(of([judged("one"), failed("two")])), encoding="utf-8")
    return path


def test_dry_run(report: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comment is printed: the marker, then the report; no token is needed."""
    isolate(monkeypatch)
    assert 0 == main(["comment", str(report), "--dry-run"])
    assert f"{MARKER}\n{render(of([judged('one'), failed('two')]))}" == capsys.readouterr().out


def test_comment(report: Path, github: FakeGitHub, event: Any, capsys: Capture) -> None:
    """It is written on the event's pull request, then updated."""
    event({"pull_request": {"number": 12}})
    assert 0 == main(["comment", str(report)])
    assert (
        "comment written on pull request 12: https://github.invalid/c/1\n"
        == capsys.readouterr().out
    )
    report.write_text(to_json(of([judged("three")])), encoding="utf-8")
    assert 0 == main(["comment", str(report)])
    assert "comment updated on pull request 12" in capsys.readouterr().out
    (comment,) = github.comments
    assert comment["body"].startswith(f"{MARKER}\n## ")
    assert "three: regressed" in comment["body"]


def test_stated_pull_request(report: Path, github: FakeGitHub, event: Any) -> None:
    """--pr comes before the event."""
    event({"pull_request": {"number": 12}})
    assert 0 == main(["comment", str(report), "--pr", "13"])
    assert ("POST", "/repos/owner/name/issues/13/comments") in github.asked


def test_after_a_run_of_a_fork(report: Path, github: FakeGitHub, event: Any) -> None:
    """The pull request is found by what GitHub says was run."""
    github.pull(21, "forker:fix", "a" * 40)
    run = {
        "head_branch": "fix",
        "head_sha": "a" * 40,
        "head_repository": {"owner": {"login": "forker"}},
    }
    event({"workflow_run": run})
    assert 0 == main(["comment", str(report)])
    assert ("POST", "/repos/owner/name/issues/21/comments") in github.asked


@pytest.mark.parametrize("content", [{}, {"ref": "refs/heads/main"}, {"workflow_run": {}}])
def test_no_pull_request(
    report: Path, github: FakeGitHub, event: Any, capsys: Capture, content: Any
) -> None:
    """A push without a pull request is no failure: nothing is done."""
    event(content)
    assert 0 == main(["comment", str(report)])
    assert "this run belongs to no open pull request" in capsys.readouterr().out
    assert [] == github.comments


def test_forbidden(report: Path, github: FakeGitHub, capsys: Capture) -> None:
    """A token that may not write names the permission."""
    github.refusals += [(403, {}, {"message": "Resource not accessible by integration"})] * 2
    assert 2 == main(["comment", str(report), "--pr", "1"])
    assert "pull-requests: write" in capsys.readouterr().err


def test_busy(report: Path, github: FakeGitHub) -> None:
    """GitHub being busy for a while is no failure."""
    github.refusals += [
        (429, {"Retry-After": "0"}, {}),
        (502, {"Retry-After": "0"}, b"bad gateway"),
    ]
    assert 0 == main(["comment", str(report), "--pr", "1"])
    assert 1 == len(github.comments)


def test_missing_token(report: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a token it says how a step gets one."""
    isolate(monkeypatch)
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    assert 2 == main(["comment", str(report), "--pr", "1"])
    assert "GITHUB_TOKEN: ${{ github.token }}" in capsys.readouterr().err


def test_missing_report(tmp_path: Path, github: FakeGitHub, capsys: Capture) -> None:
    """A report that is not there is an error, and nothing is asked of GitHub."""
    assert 2 == main(["comment", str(tmp_path / "none.json"), "--pr", "1"])
    assert "none.json can't be read" in capsys.readouterr().err
    assert [] == github.asked


def test_report_that_is_refused(
    report: Path, github: FakeGitHub, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report with anything unknown in it is not commented, and its words are no command."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    data = json.loads(report.read_text(encoding="utf-8"))
    data["##[error]x\n::error::y"] = "## forged"
    report.write_text(json.dumps(data))
    assert 2 == main(["comment", str(report), "--pr", "1"])
    out = capsys.readouterr().out
    assert "not a report of ftloop ci" in out
    assert [] == commands(out)
    assert [] == github.asked


def test_dry_run_in_a_workflow(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is printed of a report is no command either."""
    isolate(monkeypatch)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    path = tmp_path / "report.json"
    path.write_text(to_json(of([judged("##[error]x ::error::y")])), encoding="utf-8")
    assert 0 == main(["comment", str(path), "--dry-run"])
    assert [] == commands(capsys.readouterr().out)


def test_huge_report(tmp_path: Path, github: FakeGitHub) -> None:
    """The comment has its size, marker and all, however much there is to tell."""
    loops = [judged(f"{name} {'@' * 500}", count=5_000, loop=name) for name in "abc"]
    path = tmp_path / "report.json"
    path.write_text(to_json(of(loops)), encoding="utf-8")
    assert 0 == main(["comment", str(path), "--pr", "1"])
    body = github.comments[0]["body"]
    assert len(body) <= len(body.encode()) < LIMIT
    assert 3 == body.count(": regressed\n\n")


# several jobs


def reports(folder: Path, keys: dict[str, str]) -> list[Path]:
    """A report per folder, each with its key and a loop called like the folder."""
    files = []
    for name, key in keys.items():
        file = folder / name / "report.json"
        file.parent.mkdir(parents=True)
        file.write_text(to_json(of([judged(name)], key)), encoding="utf-8")
        files.append(file)
    return files


KEYS = {
    "packages": ({"a": "packages/a", "b": "packages/b"}, 2),
    "one is the whole repository": ({"a": "", "b": "b"}, 2),
    "equal keys": ({"a": "", "b": "", "c": ""}, 3),
    "equal keys of paths": ({"a": "x", "b": "x"}, 2),
    "hostile": ({"a": "--> @all <b>", "b": "x" * 200, "c": "x" * 199 + "y", "d": "\u200b"}, 4),
}


# Jobs with equal keys are told apart by their folders, which only one call for all of them sees.
CALLS = [(case, True) for case in KEYS] + [(case, False) for case in KEYS if "equal" not in case]


@pytest.mark.parametrize(("case", "together"), CALLS)
def test_a_comment_per_job(
    tmp_path: Path, github: FakeGitHub, event: Any, case: str, together: bool
) -> None:
    """No job's comment takes the place of another's; a later run updates each."""
    keys, count = KEYS[case]
    event({"pull_request": {"number": 12}})
    files = reports(tmp_path / "reports", keys)
    for _ in range(2):
        if together:
            assert 0 == main(["comment", str(tmp_path / "reports")])
        else:
            assert [0] * len(files) == [main(["comment", str(file)]) for file in files]
    bodies = [comment["body"] for comment in github.comments]
    assert count == len(bodies)
    for name in keys:
        assert 1 == sum(f"### \u274c {name}: regressed" in body for body in bodies)
    first_lines = [body.split("\n")[0] for body in bodies]
    assert all(line.startswith("<!-- pytest-ftloop") for line in first_lines)
    assert all(line.endswith("-->") and 1 == line.count("--", 4) for line in first_lines)


def test_the_whole_repository_keeps_its_comment(
    tmp_path: Path, github: FakeGitHub, event: Any
) -> None:
    """A report without a key, or of an older version, updates the comment that was there."""
    event({"pull_request": {"number": 12}})
    (file,) = reports(tmp_path, {"a": ""})
    assert 0 == main(["comment", str(file)])
    old = json.loads(file.read_text())
    old |= {"schema_version": 1}
    del old["key"]
    file.write_text(json.dumps(old))
    assert 0 == main(["comment", str(file)])
    (comment,) = github.comments
    assert comment["body"].startswith(f"{MARKER}\n")


def test_key_option(tmp_path: Path, github: FakeGitHub, event: Any) -> None:
    """--key comes before the report's own."""
    event({"pull_request": {"number": 12}})
    (file,) = reports(tmp_path, {"a": "x"})
    for key in ("p", "q", ""):
        assert 0 == main(["comment", str(file), "--key", key])
    assert [" p", " q", ""] == [
        comment["body"].split("\n")[1].removeprefix("## \u274c ftloop").partition(":")[0]
        for comment in github.comments
    ]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "wanted a report.json, found none"),
        ({f"a{n}/report.json": "{}" for n in range(21)}, "wanted 20 reports at most, found 21"),
        ({"report.json": '{"key": "' + "x" * 201 + '"}'}, "not a report of ftloop ci: key"),
    ],
    ids=["none", "too many", "a long key"],
)
def test_reports_that_are_refused(
    tmp_path: Path, capsys: Capture, files: dict[str, str], said: str
) -> None:
    """A folder without a report, or with what no job of ours writes, is an error."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert 2 == main(["comment", str(tmp_path), "--dry-run"])
    assert said in capsys.readouterr().err
