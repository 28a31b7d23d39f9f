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
    from collections.abc import Mapping, Sequence


REPORT = "report.json"

MOST_REPORTS = 20
"""Most comments of one call: what uploads the reports may not be trusted."""


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "reports",
        nargs="+",
        type=Path,
        metavar="REPORT",
        help="a report.json that ftloop ci wrote, or a folder with it, or with folders that have "
        "one each, as several artifacts are downloaded",
    )
    to.add_argument(
        "--pr",
        type=positive,
        metavar="N",
        help="the pull request's number (default: from the event that started the workflow)",
    )
    to.add_argument(
        "--key",
        metavar="TEXT",
        help="tells this comment from others on the same pull request (default: as ftloop ci "
        "wrote it into the report)",
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

    bodies = _bodies(_files(arguments.reports), arguments.key)
    if arguments.dry_run:
        print("\n".join(bodies.values()), end="")
        return HOLDS
    github = GitHub.of(env)
    number = arguments.pr or pull_request_of(read_event(env), github)
    if number is None:
        print("this run belongs to no open pull request: no comment was written")
        return HOLDS
    for marker, body in bodies.items():
        address, was_there = github.sticky_comment(number, body, marker)
        done = "updated" if was_there else "written"
        print(f"comment {done} on pull request {number}: {visible(address)}")
    return HOLDS


def _files(named: Sequence[Path]) -> list[Path]:
    """The reports: files that are named, and those in folders and in their own folders."""
    files: list[Path] = []
    for path in named:
        found = [path]
        if path.is_dir():
            found = [at for at in (path, *sorted(path.iterdir())) if (at / REPORT).is_file()]
            found = [at / REPORT for at in found]
            if not found:
                raise ConfigError(f"{shown_path(path)}: wanted a {REPORT}, found none")
        files += found
    if len(files) > MOST_REPORTS:
        raise ConfigError(f"wanted {MOST_REPORTS} reports at most, found {len(files)}")
    return files


def _bodies(files: Sequence[Path], key: str | None) -> dict[str, str]:
    """Each comment by its marker, rendered from the reports: a fork may have written the files.

    If two reports have one key, the others get the name of their folder too: no report may take
    the place of another, which may have failed.
    """
    from pytest_ftloop.cli.github import marker_of
    from pytest_ftloop.report.pull_request import LIMIT, from_json, render
    from pytest_ftloop.report.pull_request.model import NAME

    bodies: dict[str, str] = {}
    for file in files:
        report = from_json(_content(file))
        stated = report.key if key is None else key.strip()[:NAME]
        if marker_of(stated) in bodies:
            stated = f"{stated} {file.absolute().parent.name}".strip()[-NAME:]
        number = 2
        while (marker := marker_of(stated)) in bodies:
            stated, number = f"{stated[: NAME - 9]} {number}", number + 1
        report = report.model_copy(update={"key": stated})
        bodies[marker] = f"{marker}\n{render(report, LIMIT - len(marker) - 1)}"
    return bodies


def _content(path: Path) -> bytes:
    from pytest_ftloop.report.pull_request.model import MOST_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{shown_path(path)} can't be read: {error.strerror}") from None


COMMAND = Command(
    "comment",
    "comment on the pull request",
    "Post the report of ftloop ci as one comment on the pull request; later runs update it. Jobs\n"
    "that judge different paths have a comment each. A report may come from an untrusted job: it\n"
    "is checked, its texts are never used as Markdown, and it can't choose the pull request.\n"
    "Without an open pull request, do nothing.",
    (
        "ftloop comment ftloop-ci/report.json",
        "ftloop comment ftloop-ci/report.json --pr 12",
        "ftloop comment artifacts",
        "ftloop comment ftloop-ci/report.json --dry-run",
    ),
    _arguments,
    _run,
)
