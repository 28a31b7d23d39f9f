"""`ftloop comment`: post the report of `ftloop ci` as one comment on the pull request."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import ERROR, HOLDS, Command, positive
from pytest_ftloop.core.errors import ConfigError, FtloopError, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "report", type=Path, metavar="REPORT_JSON", help="the report.json that ftloop ci wrote"
    )
    to.add_argument(
        "--pr",
        type=positive,
        metavar="N",
        help="the pull request's number (default: from the event that started the workflow)",
    )
    to.add_argument(
        "--dry-run", action="store_true", help="print the comment; send nothing to GitHub"
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli import github

    env = os.environ
    # An error may quote the report, which a fork may have written. On stdout workflow commands are
    # stopped; on stderr they would not be.
    errors = sys.stdout if github.in_actions(env) else sys.stderr
    with github.commands_stopped(sys.stdout, env):
        try:
            return _comment(arguments, env)
        except FtloopError as error:
            print(error, file=errors)
            return ERROR


def _comment(arguments: argparse.Namespace, env: Mapping[str, str]) -> int:
    from pytest_ftloop.cli.github import GitHub, pull_request_of, read_event
    from pytest_ftloop.report.escape import visible

    body = _body(arguments.report)
    if arguments.dry_run:
        print(body, end="")
        return HOLDS
    github = GitHub.of(env)
    number = arguments.pr or pull_request_of(read_event(env), github)
    if number is None:
        print("this run belongs to no open pull request: no comment was written")
        return HOLDS
    address, was_there = github.sticky_comment(number, body)
    done = "updated" if was_there else "written"
    print(f"comment {done} on pull request {number}: {visible(address)}")
    return HOLDS


def _body(path: Path) -> str:
    """The comment, rendered from the report's data: a fork may have written the file."""
    from pytest_ftloop.cli.github import MARKER
    from pytest_ftloop.report.pull_request import LIMIT, from_json, render
    from pytest_ftloop.report.pull_request.model import MOST_BYTES

    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{shown_path(path)} can't be read: {error.strerror}") from None
    return f"{MARKER}\n{render(from_json(content), LIMIT - len(MARKER) - 1)}"


COMMAND = Command(
    "comment",
    "comment on the pull request",
    "Post the report of ftloop ci as one comment on the pull request; later runs update it. The\n"
    "report may come from an untrusted job: it is checked, its texts are never used as Markdown,\n"
    "and it can't choose the pull request. Without an open pull request, do nothing.",
    (
        "ftloop comment ftloop-ci/report.json",
        "ftloop comment ftloop-ci/report.json --pr 12",
        "ftloop comment ftloop-ci/report.json --dry-run",
    ),
    _arguments,
    _run,
)
