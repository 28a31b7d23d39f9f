"""What a subcommand is made of: its declaration, the exit codes, and what several of them share."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from pytest_ftloop.core.errors import FtloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HOLDS, FAILED, ERROR, STALE = 0, 1, 2, 3
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as a shell has them

Item = TypeVar("Item")


@dataclass(frozen=True)
class Command:
    """One subcommand: what `--help` says of it, its arguments, and what it does."""

    name: str
    help: str
    description: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def each(items: Iterable[Item], do: Callable[[Item], int]) -> Iterator[int]:
    """The exit code of each item; one that is in error does not keep the others from running."""
    for item in items:
        try:
            yield do(item)
        except FtloopError as error:
            yield report(error)


def report(error: FtloopError) -> int:
    """Say an error on stderr; the exit code that it means."""
    print(error, file=sys.stderr)
    return ERROR


def iteration_argument(to: argparse.ArgumentParser) -> None:
    """Take which iteration is meant, by default the best."""
    to.add_argument(
        "iteration",
        nargs="?",
        default="best",
        metavar="ITERATION",
        help="a number (3), an id or the start of one (3fa9), a name, best or last (default: best)",
    )


def where_argument(to: argparse.ArgumentParser) -> None:
    """Add PATH, as `path`: what `search.find_logs` finds the improvement logs by."""
    to.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="PATH",
        help="a loop file, a folder that is searched for loop files and improvement "
        "logs, an improvement_log folder, or one loop's folder in it (default: .)",
    )


def paths_argument(to: argparse.ArgumentParser) -> None:
    """Add `PATH ...`, as `paths`: what `search.find_loop_files` finds the loop files by."""
    to.add_argument(
        "paths",
        nargs="*",
        type=Path,
        default=[Path()],
        metavar="PATH",
        help="loop files, or folders that are searched for *.ftloop.yaml (default: .)",
    )


def log_argument(to: argparse.ArgumentParser) -> None:
    """Add `--log DIR`, as `log`."""
    to.add_argument(
        "--log",
        type=Path,
        metavar="DIR",
        help="the improvement log is in DIR, not beside the loop file",
    )


def positive(text: str) -> int:
    """An argument's type: a whole number from 1 on."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1 on, found {text!r}")
    return number


def terminal_width() -> int:
    """The columns that there are; 100 where the output is no terminal."""
    return max(shutil.get_terminal_size((100, 24)).columns, 60)


def speaks_unicode(stream: TextIO) -> bool:
    """Whether curves can be drawn there in block characters."""
    try:
        "\u2581".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
