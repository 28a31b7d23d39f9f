"""Everything sent to GitHub: workflow commands, the summary, outputs, and a comment by its API.

Text of users is escaped, or printed while workflow commands are stopped. Functions take the
environment as an argument; every variable in it is optional.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pytest_ftloop.core.bounds import MIB, MOST_BYTES_OF_RECORD, read_bytes, read_json
from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.core.files import real
from pytest_ftloop.core.printable import unguarded
from pytest_ftloop.report.escape import one_line

MARKER = "<!-- pytest-ftloop -->"
"""The first line of our comment, by which a later run finds it; of a report without a key."""

_LONGEST_KEY = 120
"""Most characters of a key that is made of paths; a longer one is cut, and ends with its hash."""

SUMMARY_LIMIT = 1024 * 1024
"""Most bytes of a step's summary: GitHub shows nothing of a longer one."""

ACTIONS_BOT = "github-actions[bot]"
"""The author of comments that are written with a job's own token."""

_ATTEMPTS = 5
"""Most times that a request is sent."""

_LONGEST_WAIT_S = 60.0
"""Longest wait before a retry: GitHub may ask for an hour, in which the job pays for its runner."""

_TIMEOUT_S = 30.0
"""Longest wait for an answer."""

_PER_PAGE = 100
"""Comments per page, the most that GitHub sends."""

_MOST_PAGES = 100
"""Most pages of comments that are searched for ours."""

_TRANSIENT = frozenset({429, 500, 502, 503, 504})
"""Answers after which a later request can succeed: too many requests, or GitHub is broken."""

Answer = TypeVar("Answer")


class GitHubError(FtloopError):
    """GitHub refused a request, or could not be reached."""


# --- a job ---------------------------------------------------------------------------------------


def in_actions(env: Mapping[str, str]) -> bool:
    """Whether this is a step of a workflow."""
    return env.get("GITHUB_ACTIONS") == "true"


@contextmanager
def commands_stopped(stream: TextIO, env: Mapping[str, str]) -> Iterator[None]:
    """Keep lines printed within from being read as workflow commands. Does nothing elsewhere.

    After an exception commands stay stopped, because its text may come from an untrusted file.
    """
    if not in_actions(env):
        yield
        return
    token = secrets.token_hex(16)
    command(f"::stop-commands::{token}", stream)
    yield
    # The newline first: the output before may have ended in the middle of a line.
    command(f"\n::{token}::", stream)


def command(text: str, stream: TextIO) -> None:
    """Print a workflow command, which `printable` would escape in anything else."""
    print(text, file=unguarded(stream), flush=True)


def annotation(level: str, message: str, **properties: str | int | None) -> str:
    """The workflow command that shows a message at a line; `level` is `error` or `warning`."""
    stated = ",".join(
        f"{name}={_escaped(str(value), ':,')}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::{level} {stated}::{_escaped(message)}"


def in_workspace(file: str, env: Mapping[str, str]) -> str:
    """A path for an annotation: relative to the checkout if it is inside."""
    path, root = real(Path(file)), real(Path(env.get("GITHUB_WORKSPACE") or "."))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else Path(file).as_posix()


def key_of(paths: Iterable[Path], env: Mapping[str, str]) -> str:
    """The key of a job that judges these paths: empty if that is the whole checkout.

    Jobs that judge different parts of a repository report side by side.
    """
    named = sorted({in_workspace(str(path), env) for path in paths})
    key = "" if named == ["."] else " ".join(named)
    return key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]} {_digest(key)}"


def marker_of(key: str) -> str:
    """The first line of the comment of a report with this key, of which only a hash is in it."""
    return f"<!-- pytest-ftloop {_digest(key)} -->" if key else MARKER


def suffix_of(key: str) -> str:
    """An ending for the name of a file or an artifact; another one for each key."""
    if not key:
        return ""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")[:40]
    return f"-{plain}" if plain == key else f"-{plain}-{_digest(key)[:6]}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()[:16]


def append_summary(text: str, env: Mapping[str, str]) -> None:
    """Add Markdown to the job's summary page."""
    _append("GITHUB_STEP_SUMMARY", text, env)


def summary_room(env: Mapping[str, str]) -> int:
    """The number of bytes that the step's summary can still take."""
    path = Path(env.get("GITHUB_STEP_SUMMARY") or os.devnull)
    return SUMMARY_LIMIT - (path.stat().st_size if path.is_file() else 0)


def write_outputs(outputs: Mapping[str, str], env: Mapping[str, str]) -> None:
    """Set the step's outputs. A random delimiter keeps a value from setting another output."""
    lines = []
    for name, value in outputs.items():
        delimiter = f"ghadelimiter_{secrets.token_hex(16)}"
        lines.append(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
    _append("GITHUB_OUTPUT", "".join(lines), env)


def _append(variable: str, text: str, env: Mapping[str, str]) -> None:
    if not (name := env.get(variable)):
        return
    try:
        with Path(name).open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{variable} names {name!r}, which can't be written: {error.strerror}"
        ) from None


def _escaped(text: str, more: str = "") -> str:
    """Escape text in a workflow command as GitHub's own toolkit does."""
    return "".join(f"%{ord(c):02X}" if c in f"%\r\n{more}" else c for c in text)


# --- the API -------------------------------------------------------------------------------------


class _TransientError(Exception):
    """A failure that a retry may cure, after `wait_s` seconds (None: the usual wait)."""

    def __init__(self, error: GitHubError, wait_s: float | None) -> None:
        super().__init__(str(error))
        self.error, self.wait_s = error, wait_s


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treats a redirect as an answer: following it would send the token to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class GitHub:
    """A repository on GitHub. `url` and `graphql` (may be empty) are the addresses of its APIs."""

    url: str
    repository: str
    token: str
    graphql: str = ""
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def of(cls, env: Mapping[str, str]) -> GitHub:
        """The repository of this job. Raises `ConfigError` for a missing or unusable variable."""
        url = (env.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
        usual = f"{url}/graphql" if url == "https://api.github.com" else ""
        graphql = env.get("GITHUB_GRAPHQL_URL") or usual
        repository, token = env.get("GITHUB_REPOSITORY", ""), env.get("GITHUB_TOKEN", "").strip()
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository, re.ASCII):
            raise ConfigError(
                f"GITHUB_REPOSITORY: wanted owner/name, found {repository!r}",
                cure="A GitHub workflow sets it. Elsewhere ftloop comment --dry-run prints the "
                "comment.",
            )
        if not token or not token.isascii() or not token.isprintable():
            raise ConfigError(
                "GITHUB_TOKEN: wanted a token, found none",
                cure="Add to the workflow's step: env: {GITHUB_TOKEN: ${{ github.token }}}.",
            )
        for address in filter(None, (url, graphql)):
            if not address.startswith(("https://", "http://")):
                raise ConfigError(f"GITHUB_API_URL: wanted an address, found {address!r}")
        return cls(url, repository, token, graphql)

    def sticky_comment(self, number: int, body: str, marker: str = MARKER) -> tuple[str, bool]:
        """Write or update our comment on a pull request; its address, and whether it was updated.

        A comment is ours if it begins with the marker and the token's own account wrote it.
        """
        account = self._retried(self._account)

        # Retried as a whole: a request that seemed to fail may have written the comment, and a
        # second one would be posted if it were not looked for again.
        def write() -> tuple[str, bool]:
            ours = self._ours(number, account, marker)
            if ours is not None:
                answer = self._ask("PATCH", f"issues/comments/{ours}", {"body": body})
            else:
                answer = self._ask("POST", f"issues/{number}/comments", {"body": body})
            return _text(_dict(answer).get("html_url")), ours is not None

        return self._retried(write)

    def pull_request_of_branch(self, owner: str, branch: str, sha: str) -> int | None:
        """The open pull request of a branch of `owner`, if its head is this commit; else None."""
        query = urllib.parse.urlencode(
            {"state": "open", "head": f"{owner}:{branch}", "per_page": _PER_PAGE}
        )
        for found in _dicts(self._retried(lambda: self._ask("GET", f"pulls?{query}"))):
            if _dict(found.get("head")).get("sha") == sha:
                return _number(found.get("number"))
        return None

    def _ours(self, number: int, account: str, marker: str) -> int | None:
        for page in range(1, _MOST_PAGES + 1):
            path = f"issues/{number}/comments?per_page={_PER_PAGE}&page={page}"
            comments = _dicts(self._ask("GET", path))
            for comment in comments:
                by = _dict(comment.get("user")).get("login")
                if by == account and _text(comment.get("body")).lstrip().startswith(marker):
                    return _number(comment.get("id"))
            if len(comments) < _PER_PAGE:
                break
        return None

    def _account(self) -> str:
        """The account of the token. GraphQL knows it for apps too, for which REST does not."""
        if not self.graphql:
            return ACTIONS_BOT
        try:
            answer = self._send("POST", self.graphql, {"query": "query { viewer { login } }"})
        except GitHubError:
            return ACTIONS_BOT  # if the token is invalid, the next request reports it
        viewer = _dict(_dict(_dict(answer).get("data")).get("viewer"))
        return _text(viewer.get("login")) or ACTIONS_BOT

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._send(method, f"{self.url}/repos/{self.repository}/{path}", body)

    def _retried(self, ask: Callable[[], Answer]) -> Answer:
        """Repeat a request while GitHub is busy: after the time it asks for, else 1, 2, 4, 8 s."""
        for attempt in range(_ATTEMPTS):
            try:
                return ask()
            except _TransientError as refused:
                if attempt == _ATTEMPTS - 1:
                    raise refused.error from None
                wait = 2.0**attempt if refused.wait_s is None else refused.wait_s
                self.sleep(min(wait, _LONGEST_WAIT_S))
        raise AssertionError("not reached")

    def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        """Send one request and return its answer, parsed from JSON."""
        request = urllib.request.Request(
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "User-Agent": "pytest-ftloop",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        what = f"{method} {urllib.parse.urlsplit(url).path}"
        try:
            opener = urllib.request.build_opener(_NoRedirects)
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                return read_json(answer.read(MOST_BYTES_OF_RECORD))
        except urllib.error.HTTPError as error:
            raise self._refused(what, error) from None
        except ValueError:
            raise GitHubError(f"{what}: GitHub's answer is not JSON") from None
        except OSError as error:  # no network, a timeout, a connection that broke
            why = one_line(str(getattr(error, "reason", None) or error), 120)
            raise _TransientError(
                GitHubError(f"{what}: no answer from GitHub: {why}"), None
            ) from None

    def _refused(self, what: str, error: urllib.error.HTTPError) -> Exception:
        reason, code = _message(error), error.code
        wait = error.headers.get("Retry-After", "")
        failed = GitHubError(
            f"{what}: GitHub refused with {code}{f': {reason}' if reason else ''}",
            cure=_cure(code, self.repository),
        )
        busy = code == 403 and (wait or error.headers.get("X-RateLimit-Remaining") == "0")
        if code in _TRANSIENT or busy:
            return _TransientError(failed, float(wait) if wait.isdecimal() else None)
        return failed


def pull_request_of(event: Mapping[str, Any], github: GitHub) -> int | None:
    """The number of the pull request that an event is about; None if it has no open one.

    After a `workflow_run` it is looked up by the branch and commit in the event, which GitHub
    wrote. Files of the run are not trusted to name it.
    """
    run = _dict(event.get("workflow_run"))
    if run:
        owner = _text(_dict(_dict(run.get("head_repository")).get("owner")).get("login"))
        branch, sha = _text(run.get("head_branch")), _text(run.get("head_sha"))
        if not (owner and branch and sha):
            return None
        return github.pull_request_of_branch(owner, branch, sha)
    return _number(_dict(event.get("pull_request")).get("number"))


def read_event(env: Mapping[str, str]) -> dict[str, Any]:
    """GitHub's description of the event that started the workflow; empty if it is missing."""
    try:
        return _dict(read_json(read_bytes(Path(env.get("GITHUB_EVENT_PATH", "")))))
    except (OSError, ValueError):
        return {}


def _message(error: urllib.error.HTTPError) -> str:
    """GitHub's reason for a refusal, on one line; empty if it gives none."""
    try:
        return one_line(_text(_dict(read_json(error.read(MIB))).get("message")), 200)
    except (OSError, ValueError):
        return ""


def _cure(code: int, repository: str) -> str:
    if code == 401:
        return "GITHUB_TOKEN is invalid or has expired."
    if code in (403, 404):
        return (
            "GITHUB_TOKEN needs the permission pull-requests: write in "
            f"{repository}: set permissions: {{pull-requests: write}} for the job. In a pull "
            "request from a fork the token can only read: comment from a workflow_run."
        )
    if 300 <= code < 400:
        return f"{repository} has moved: set GITHUB_REPOSITORY to its new name."
    return ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
