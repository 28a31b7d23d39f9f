"""GitHub for tests: what its runner makes of output and files, and its API on this host."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BOT = "github-actions[bot]"
REPOSITORY = "owner/name"


@dataclass(frozen=True)
class Command:
    """A workflow command as the runner understood it."""

    name: str
    properties: dict[str, str]
    message: str


def commands(output: str) -> list[Command]:
    """What actions/runner takes for commands: `::name k=v::message` at a line's start, and the old
    `##[name k=v]message` anywhere. After stop-commands nothing, up to its token.
    """
    found, token = [], None
    for line in re.split(r"\r\n|\r|\n", output):
        new = re.match(r"\s*::([^\s:]+)(?: ([^\n]*?))?::(.*)", line, re.DOTALL)
        old = re.search(r"##\[(\S+?)(?: ([^\]]*))?\](.*)", line, re.DOTALL)
        match, separator = (new, ",") if new else (old, ";")
        if match is None:
            continue
        name, stated, message = match[1], match[2] or "", match[3]
        if token is not None:
            token = None if name == token else token
            continue
        pairs = (pair.partition("=") for pair in stated.split(separator) if "=" in pair)
        properties = {key.strip(): unescaped(value) for key, _, value in pairs}
        if name == "stop-commands":
            token = message
        found.append(Command(name, properties, unescaped(message)))
    assert token is None, "commands are still stopped"
    return [command for command in found if command.name != "stop-commands"]


def unescaped(text: str) -> str:
    """`%25` last, as the runner does it."""
    for character in "\r\n:,%":
        text = text.replace(f"%{ord(character):02X}", character)
    return text


def outputs(content: str) -> dict[str, str]:
    """What the runner reads from GITHUB_OUTPUT. It refuses a line that is neither form."""
    found: dict[str, str] = {}
    lines = iter(content.split("\n"))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equals < 0 or heredoc < equals):
            name, delimiter = line.split("<<", 1)
            value = []
            for inner in lines:
                if inner == delimiter:
                    break
                value.append(inner)
            else:
                raise AssertionError(f"no end of {name}")
            found[name] = "\n".join(value)
        else:
            assert equals > 0, line
            found[line[:equals]] = line[equals + 1 :]
    return found


@dataclass
class FakeGitHub:
    """A repository with comments and pull requests.

    `login` is whose the token is; `refusals` are answered first: status, headers and body.
    `after_writing` are refusals of requests that were done all the same.
    """

    login: str = BOT
    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str], Any]] = field(default_factory=list)
    after_writing: list[int] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    url: str = ""

    @property
    def env(self) -> dict[str, str]:
        """What a step is told of it."""
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_GRAPHQL_URL": f"{self.url}/graphql",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_TOKEN": "secret",
        }

    def add(self, body: str, login: str = BOT) -> dict[str, Any]:
        number = len(self.comments) + 1
        made = {
            "id": number,
            "body": body,
            "user": {"login": login},
            "html_url": f"https://github.invalid/c/{number}",
        }
        self.comments.append(made)
        return made

    def pull(self, number: int, head: str, sha: str, state: str = "open") -> None:
        self.pulls.append({"number": number, "state": state, "head": {"label": head, "sha": sha}})

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = url.path.removeprefix(f"/repos/{REPOSITORY}/")
        if path == "/graphql":
            return 200, {"data": {"viewer": {"login": self.login}}}
        if method == "GET" and path == "pulls":
            wanted = (query["head"], query["state"])
            return 200, [p for p in self.pulls if (p["head"]["label"], p["state"]) == wanted]
        if method == "GET" and re.fullmatch(r"issues/\d+/comments", path):
            size, page = int(query["per_page"]), int(query["page"])
            return 200, self.comments[(page - 1) * size : page * size]
        if method == "POST" and re.fullmatch(r"issues/\d+/comments", path):
            return 201, self.add(body["body"], self.login)
        if method == "PATCH" and (match := re.fullmatch(r"issues/comments/(\d+)", path)):
            self.comments[int(match[1]) - 1]["body"] = body["body"]
            return 200, self.comments[int(match[1]) - 1]
        return 404, {"message": "Not Found"}


@contextmanager
def serving(github: FakeGitHub) -> Iterator[FakeGitHub]:
    """Play GitHub on a port of this host."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            github.asked.append((self.command, self.path))
            github.tokens.add(self.headers["Authorization"])
            headers: dict[str, str] = {}
            if github.refusals:
                status, headers, said = github.refusals.pop(0)
            else:
                status, said = github.answer(self.command, self.path, body)
                if self.command != "GET" and "graphql" not in self.path and github.after_writing:
                    status, said = github.after_writing.pop(0), {"message": "too late"}
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    github.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
