"""`ftloop worker`: train by a spec. A run with `loop.parallel` starts it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import ERROR, HOLDS, Command, report

if TYPE_CHECKING:
    import argparse


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "spec",
        type=Path,
        metavar="SPEC",
        help="the file spec.json of a training, in the folder workers of the cache",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.core.ranks import ranks_in
    from pytest_ftloop.loop.orphans import end_with_parent
    from pytest_ftloop.loop.spec import read_error, read_spec
    from pytest_ftloop.loop.worker import work_on

    if ranks_in() > 1:
        end_with_parent()  # the launcher
    file: Path = arguments.spec
    read_spec(file)  # beside anything else nothing is written
    if work_on(str(file)):
        return HOLDS
    error = read_error(file.parent)
    return report(error) if error is not None else ERROR


COMMAND = Command(
    "worker",
    "train one run, for a loop that trains several at once",
    "Train by a spec, and write the run beside it. A run with loop: {parallel: N} writes\n"
    "the specs and the log, and has workers train; an engine that runs jobs elsewhere starts this\n"
    "command there.",
    ("ftloop worker ~/.cache/pytest-ftloop/workers/3fa9c1d2/spec.json",),
    _arguments,
    _run,
)
