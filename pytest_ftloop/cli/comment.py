"""`ftloop comment`: what `ftloop ci` found, as one comment on the pull request."""

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
        help="the pull request (default: that of the event that started the workflow)",
    )
    to.add_argument(
        "--dry-run", action="store_true", help="print the comment, ask GitHub for nothing"
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli import github

    env = os.environ
    # An error may quote the report: it goes where commands are stopped.
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
        print("no open pull request belongs to this run: nothing is commented")
        return HOLDS
    address, was_there = github.sticky_comment(number, body)
    done = "updated" if was_there else "written"
    print(f"comment {done} on pull request {number}: {visible(address)}")
    return HOLDS


def _body(path: Path) -> str:
    """The comment, made anew from data: no Markdown is taken from a file that a fork may write."""
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
    "Write what ftloop ci found as one comment on the pull request, and update that comment from\n"
    "then on. The report may come from an untrusted job: it is checked, and nothing in it is\n"
    "Markdown or names the pull request. Without an open pull request nothing is done.",
    (
        "ftloop comment ftloop-ci/report.json",
        "ftloop comment ftloop-ci/report.json --pr 12",
        "ftloop comment ftloop-ci/report.json --dry-run",
    ),
    _arguments,
    _run,
)
