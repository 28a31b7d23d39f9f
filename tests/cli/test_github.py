"""What GitHub is told: commands, outputs and summaries that no text escapes from; one comment."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.cli.github import (
    MARKER,
    SUMMARY_LIMIT,
    GitHub,
    GitHubError,
    annotation,
    append_summary,
    commands_stopped,
    in_workspace,
    key_of,
    marker_of,
    pull_request_of,
    read_event,
    suffix_of,
    summary_room,
    write_outputs,
)
from pytest_ftloop.core.errors import ConfigError
from tests.github_fakes import BOT, Command, FakeGitHub, commands, outputs, serving
from tests.report.hostile_texts import TEXTS

if TYPE_CHECKING:
    from collections.abc import Iterator

ACTIONS = {"GITHUB_ACTIONS": "true"}
ENCODABLE = [text.encode("utf-8", "replace").decode() for text in TEXTS]


# --- a job ---------------------------------------------------------------------------------------


def test_annotation() -> None:
    """A message at a line of a file, escaped as GitHub's toolkit does it."""
    said = annotation("error", "50%\nworse", file="a,b:c.yaml", line=3, title="x: y", col=None)
    assert "::error file=a%2Cb%3Ac.yaml,line=3,title=x%3A y::50%25%0Aworse" == said


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:40])
def test_hostile_annotation(text: str) -> None:
    """Whatever the text, the runner understands one command with just this text."""
    expected = Command("error", {"file": text, "title": text}, text)
    assert [expected] == commands(annotation("error", text, file=text, title=text))


def test_hostile_output() -> None:
    """Between the tokens nothing is a command, and after them all is again."""
    stream = io.StringIO()
    with commands_stopped(stream, ACTIONS):
        for text in TEXTS:
            print(text, end=text[:1], file=stream)
    print("::error::mine", file=stream)
    assert [Command("error", {}, "mine")] == commands(stream.getvalue())


def test_commands_stay_stopped_after_an_exception() -> None:
    """A traceback may hold anybody's text."""
    stream = io.StringIO()
    with pytest.raises(KeyError), commands_stopped(stream, ACTIONS):
        raise KeyError
    with pytest.raises(AssertionError, match="still stopped"):
        commands(stream.getvalue())


def test_no_commands_outside_of_a_workflow() -> None:
    """On a developer's machine nothing is added to the output."""
    stream = io.StringIO()
    with commands_stopped(stream, {}):
        print("a", file=stream)
    assert "a\n" == stream.getvalue()


def test_hostile_outputs(tmp_path: Path) -> None:
    """Whatever their values, the outputs are those that were set and no other."""
    path = tmp_path / "out"
    wanted = {f"o{number}": text for number, text in enumerate(ENCODABLE)}
    write_outputs(wanted, {"GITHUB_OUTPUT": str(path)})
    assert wanted == outputs(path.read_bytes().decode())


def test_outputs_are_added(tmp_path: Path) -> None:
    """What the step has set before stays."""
    path = tmp_path / "out"
    path.write_text("before=1\n")
    write_outputs({"a": "2"}, {"GITHUB_OUTPUT": str(path)})
    assert {"before": "1", "a": "2"} == outputs(path.read_text())


def test_summary_is_added(tmp_path: Path) -> None:
    """The summary goes below what is there, and its room is what GitHub would still show."""
    path = tmp_path / "summary"
    path.write_text("before\n")
    env = {"GITHUB_STEP_SUMMARY": str(path)}
    append_summary("## after\n", env)
    assert "before\n## after\n" == path.read_text()
    assert SUMMARY_LIMIT - 16 == summary_room(env)


def test_nothing_without_the_variables() -> None:
    """Every variable may be missing or empty."""
    for env in ({}, {"GITHUB_OUTPUT": "", "GITHUB_STEP_SUMMARY": "", "GITHUB_EVENT_PATH": ""}):
        write_outputs({"a": "1"}, env)
        append_summary("a", env)
        assert {} == read_event(env)
        assert SUMMARY_LIMIT == summary_room(env)


def test_file_that_can_not_be_written(tmp_path: Path) -> None:
    """The error names the variable."""
    with pytest.raises(ConfigError, match=r"GITHUB_OUTPUT names .*, which can't be written"):
        write_outputs({"a": "1"}, {"GITHUB_OUTPUT": str(tmp_path / "no" / "file")})


def test_path_in_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is told from the checkout's root, also where the job works below it."""
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    env = {"GITHUB_WORKSPACE": str(tmp_path)}
    assert "sub/x.yaml" == in_workspace("x.yaml", env)
    assert "sub/x.yaml" == in_workspace(str(tmp_path / "sub" / "x.yaml"), env)
    assert "x.yaml" == in_workspace("x.yaml", {})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 99_999])
def test_broken_event(tmp_path: Path, content: bytes) -> None:
    """An event file that says nothing is no error."""
    path = tmp_path / "event.json"
    path.write_bytes(content)
    assert {} == read_event({"GITHUB_EVENT_PATH": str(path)})


# --- the API -------------------------------------------------------------------------------------


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serving(FakeGitHub()) as served:
        yield served


def client(github: FakeGitHub, waits: list[float] | None = None, **env: str) -> GitHub:
    waits = [] if waits is None else waits
    return replace(GitHub.of(github.env | env), sleep=waits.append)


def body(text: str = "text") -> str:
    return f"{MARKER}\n{text}"


def test_comment_is_written_once(github: FakeGitHub) -> None:
    """The first time it is written, then updated in place."""
    assert ("https://github.invalid/c/1", False) == client(github).sticky_comment(7, body("one"))
    assert ("https://github.invalid/c/1", True) == client(github).sticky_comment(7, body("two"))
    assert [body("two")] == [comment["body"] for comment in github.comments]
    assert ("POST", "/repos/owner/name/issues/7/comments") in github.asked
    assert {"Bearer secret"} == github.tokens


def test_comment_on_a_later_page(github: FakeGitHub) -> None:
    """Our comment is found however many others there are."""
    for number in range(250):
        github.add(f"comment {number}", "someone")
    github.add(body("old"))
    for number in range(120):
        github.add(f"later {number}", "someone")
    assert client(github).sticky_comment(7, body("new"))[1]
    assert (371, body("new")) == (len(github.comments), github.comments[250]["body"])


@pytest.mark.parametrize(
    ("text", "login"),
    [
        (body("a copy"), "someone"),
        (body("a copy"), "github-actions"),
        (f"I quote: {body()}", BOT),
        ("other", BOT),
    ],
)
def test_comment_of_others_is_left_alone(github: FakeGitHub, text: str, login: str) -> None:
    """Only a comment by the token's own account that begins with the marker is ours."""
    github.add(text, login)
    assert not client(github).sticky_comment(7, body("new"))[1]
    assert [text, body("new")] == [comment["body"] for comment in github.comments]


def test_comment_of_an_app(github: FakeGitHub) -> None:
    """With an app's or a user's token the comment is looked for under that name."""
    github.login = "some-app[bot]"
    github.add(body("another tool's"))
    github.add(body("ours"), "some-app[bot]")
    assert client(github).sticky_comment(7, body("new"))[1]
    assert [body("another tool's"), body("new")] == [c["body"] for c in github.comments]


@pytest.mark.parametrize("answer", [(404, {}, b""), (200, {}, {"errors": []}), (403, {}, b"x")])
def test_account_that_is_not_told(github: FakeGitHub, answer: Any) -> None:
    """Where nobody says whose the token is, it is that of the job."""
    github.add(body("old"))
    github.refusals.append(answer)
    assert client(github).sticky_comment(7, body("new"))[1]
    assert client(github, GITHUB_GRAPHQL_URL="").sticky_comment(7, body("new"))[1]


@pytest.mark.parametrize(
    ("status", "headers", "waits"),
    [
        (500, {}, [1]),
        (502, {}, [1]),
        (429, {"Retry-After": "3"}, [3]),
        (403, {"Retry-After": "9999"}, [60]),
        (403, {"X-RateLimit-Remaining": "0"}, [1]),
        (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, [1]),
    ],
)
def test_busy_github(github: FakeGitHub, status: int, headers: Any, waits: list[float]) -> None:
    """It is asked again, after as long as it says."""
    github.refusals.append((status, headers, {"message": "busy"}))
    waited: list[float] = []
    client(github, waited, GITHUB_GRAPHQL_URL="").sticky_comment(7, body())
    assert waits == waited
    assert 1 == len(github.comments)


def test_comment_is_not_written_twice(github: FakeGitHub) -> None:
    """An answer that was lost after the comment was written does not make another one."""
    github.after_writing.append(502)
    assert client(github).sticky_comment(7, body("new"))[1]
    assert [body("new")] == [comment["body"] for comment in github.comments]


def test_broken_github(github: FakeGitHub) -> None:
    """After some time it is given up, with what was asked and answered."""
    github.refusals += [(503, {}, {"message": "down\x1b[2J"})] * 9
    waits: list[float] = []
    with pytest.raises(GitHubError, match=r"GET /repos/.*/comments: GitHub refused with 503: down"):
        client(github, waits, GITHUB_GRAPHQL_URL="").sticky_comment(7, body())
    assert [1, 2, 4, 8] == waits


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "401: no\n  GITHUB_TOKEN is invalid"),
        (403, "403: no\n  GITHUB_TOKEN needs the permission pull-requests: write in owner/name"),
        (404, "404: no\n  GITHUB_TOKEN needs the permission pull-requests: write in owner/name"),
        (301, "301: no\n  owner/name has moved"),
        (422, "422: no"),
    ],
)
def test_refusal(github: FakeGitHub, status: int, said: str) -> None:
    """A refusal is not asked again: it says what to do."""
    headers = {"Location": f"{github.url}/elsewhere"} if status == 301 else {}
    github.refusals.append((status, headers, {"message": "no"}))
    with pytest.raises(GitHubError) as caught:
        client(github, GITHUB_GRAPHQL_URL="").sticky_comment(7, body())
    assert said in str(caught.value)
    assert 1 == len(github.asked)


def test_no_github() -> None:
    """No answer at all is told after trying again."""
    env = FakeGitHub(url="http://127.0.0.1:9").env
    waits: list[float] = []
    with pytest.raises(GitHubError, match="no answer from GitHub"):
        replace(GitHub.of(env), sleep=waits.append).sticky_comment(7, body())
    assert [1, 2, 4, 8] == waits


def test_answer_that_is_no_json(github: FakeGitHub) -> None:
    """What is no answer of GitHub is told."""
    github.refusals.append((200, {}, b"<html>"))
    with pytest.raises(GitHubError, match="not JSON"):
        client(github, GITHUB_GRAPHQL_URL="").sticky_comment(7, body())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"GITHUB_TOKEN": ""}, "GITHUB_TOKEN: wanted a token"),
        ({"GITHUB_TOKEN": "a\r\nHost: x"}, "GITHUB_TOKEN: wanted a token"),
        ({"GITHUB_REPOSITORY": ""}, "GITHUB_REPOSITORY: wanted owner/name"),
        ({"GITHUB_REPOSITORY": "a/b/../c"}, "GITHUB_REPOSITORY: wanted owner/name"),
        ({"GITHUB_API_URL": "file:///etc"}, "GITHUB_API_URL: wanted an address"),
    ],
)
def test_environment_that_is_refused(changes: dict[str, str], said: str) -> None:
    """What is missing or can't be is told before anything is asked."""
    with pytest.raises(ConfigError, match=said):
        GitHub.of(FakeGitHub(url="http://x").env | changes)


# --- which pull request --------------------------------------------------------------------------


def run_of(branch: str = "fix", sha: str = "a" * 40, owner: str = "forker") -> dict[str, Any]:
    return {
        "workflow_run": {
            "head_branch": branch,
            "head_sha": sha,
            "head_repository": {"owner": {"login": owner}},
            "pull_requests": [{"number": 1}],
        }
    }


def test_pull_request_of_its_event(github: FakeGitHub) -> None:
    """A pull request's own event has its number."""
    event = {"action": "opened", "pull_request": {"number": 12}}
    assert 12 == pull_request_of(event, client(github))
    assert [] == github.asked


def test_pull_request_of_a_run(github: FakeGitHub) -> None:
    """After a run it is the open one of that branch, in a fork too, at that very commit."""
    github.pull(3, "forker:other", "a" * 40)
    github.pull(4, "owner:fix", "a" * 40)
    github.pull(5, "forker:fix", "a" * 40, state="closed")
    github.pull(6, "forker:fix", "b" * 40)
    github.pull(7, "forker:fix", "a" * 40)
    assert 7 == pull_request_of(run_of(), client(github))


def test_pull_request_that_went_on(github: FakeGitHub) -> None:
    """A run of an older commit is not told beside the new one."""
    github.pull(6, "forker:fix", "b" * 40)
    assert None is pull_request_of(run_of(), client(github))


def test_branch_with_any_name(github: FakeGitHub) -> None:
    """A branch's name can't add to what is asked."""
    name = "a&state=closed&head=owner:main#%00\u202e"
    github.pull(8, f"forker:{name}", "a" * 40)
    assert 8 == pull_request_of(run_of(name), client(github))


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"ref": "refs/heads/main"},
        {"pull_request": {"number": "12"}},
        {"pull_request": {"number": True}},
        {"pull_request": None},
        {"workflow_run": {"head_branch": "fix"}},
        {"workflow_run": {"head_branch": "fix", "head_sha": "a", "head_repository": None}},
    ],
)
def test_event_without_a_pull_request(github: FakeGitHub, event: dict[str, Any]) -> None:
    """An event of anything else has none."""
    assert None is pull_request_of(json.loads(json.dumps(event)), client(github))


@pytest.mark.parametrize(
    ("paths", "key", "suffix"),
    [
        (["."], "", ""),
        (["./"], "", ""),
        (["a"], "a", "-a"),
        (["./a/"], "a", "-a"),
        (["b", "a"], "a b", "-a-b-c8687a"),
        (["a", "b", "a"], "a b", "-a-b-c8687a"),
        (["a/b"], "a/b", "-a-b-c14cdd"),
        ([".", "a"], ". a", "-a-9a7a5a"),
    ],
)
def test_key_of_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], key: str, suffix: str
) -> None:
    """The key is that of the paths in any order and spelling; the whole checkout has none."""
    monkeypatch.chdir(tmp_path)
    found = key_of([Path(path) for path in paths], {})
    assert key == found
    assert suffix[:-6] == suffix_of(found)[:-6] if len(suffix) > 6 else suffix == suffix_of(found)


def test_key_in_a_folder_of_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with another working folder judges that folder, not the whole checkout."""
    (tmp_path / "packages/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "packages/a")
    env = {"GITHUB_WORKSPACE": str(tmp_path)}
    assert "packages/a" == key_of([Path()], env)
    assert "packages/a/x.ftloop.yaml" == key_of([Path("x.ftloop.yaml")], env)


def test_keys_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that look alike have names and markers of their own, and a bounded length."""
    monkeypatch.chdir(tmp_path)
    long = [Path("/".join(["deep"] * 50) + end) for end in "ab"]
    keys = ["", "a", "a b", "a-b", "a/b", "a_b", *(key_of([path], {}) for path in long)]
    assert len(keys) == len({marker_of(key) for key in keys}) == len({*map(suffix_of, keys)})
    assert all(len(key) <= 140 for key in keys)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{0,60}", suffix_of(key)) for key in keys)
