"""What the subcommands share: their declaration, exit codes, common arguments, the terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO, TypeVar

from pytest_ftloop.core.credentials import hidden
from pytest_ftloop.core.errors import FtloopError, wants_traceback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_ftloop.log import ImprovementLog

HOLDS, FAILED, ERROR, STALE = 0, 1, 2, 3
"""Exit codes: all gates hold; a gate failed; an error; the log is out of date or incomplete."""

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes 128 + SIGINT and 128 + SIGPIPE, as a shell reports them."""

MIN_WIDTH = 60
"""Fewest columns that output is made for: on a narrower terminal its lines wrap."""

PIPE_WIDTH = 100
"""Columns of output that goes to a file or a pipe, unless `COLUMNS` is set."""

_WHERE = (
    "a loop file; a folder to search for loop files and improvement logs; an improvement_log "
    "folder; or the folder of one loop in it (default: .)"
)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Command:
    """One subcommand: its texts for `--help`, its arguments, and the function that runs it."""

    name: str
    help: str
    description: str
    examples: tuple[str, ...]
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def each(
    items: Iterable[Item],
    do: Callable[[Item], int],
    failed: Callable[[Item, FtloopError], object] | None = None,
) -> Iterator[int]:
    """Yield the exit code of each item. An error in one does not stop the others.

    It is printed, and `failed` is called with it.
    """
    for item in items:
        try:
            yield do(item)
        except FtloopError as error:
            if failed is not None:
                failed(item, error)
            yield report(error)


def report(error: FtloopError) -> int:
    """Print an error on stderr and return its exit code."""
    if wants_traceback():
        print(hidden("".join(traceback.format_exception(error))), file=sys.stderr)
    print(error, file=sys.stderr)
    return ERROR


def report_exposed(log: ImprovementLog) -> None:
    """Name on stderr the records of a log that hold a credential."""
    for note in log.exposed():
        print(f"warning: {note}", file=sys.stderr)


def iteration_argument(to: argparse.ArgumentParser) -> None:
    """Add `ITERATION`, as `iteration`: the word that `show.chosen` resolves."""
    to.add_argument(
        "iteration",
        nargs="?",
        default="best",
        metavar="ITERATION",
        help="a number (3), an id or its first characters (3fa9), a name, best or last "
        "(default: best)",
    )


def where_argument(to: argparse.ArgumentParser) -> None:
    """Add `PATH`, as `path`: where `workspace.find_logs` finds improvement logs."""
    to.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path(),
        metavar="PATH",
        help=_WHERE,
    )


def where_arguments(to: argparse.ArgumentParser) -> None:
    """Add `PATH ...`, as `paths`: each as for `where_argument`."""
    several_paths(to, _WHERE)


def paths_argument(to: argparse.ArgumentParser) -> None:
    """Add `PATH ...`, as `paths`: where `workspace.find_loop_files` finds loop files."""
    several_paths(to, "loop files, or folders to search for *.ftloop.yaml (default: .)")


def several_paths(to: argparse.ArgumentParser, what: str) -> None:
    """Add `PATH ...`, as `paths`: the working folder, if none is given. `what` is the help."""
    to.add_argument("paths", nargs="*", type=Path, default=[Path()], metavar="PATH", help=what)


def log_argument(to: argparse.ArgumentParser) -> None:
    """Add `--log DIR`, as `log`."""
    to.add_argument(
        "--log",
        type=Path,
        metavar="DIR",
        help="the folder with the improvement log, if that is not beside the loop file",
    )


def positive(text: str) -> int:
    """Parse an argument that has to be a whole number, 1 or more."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number, 1 or more, found {text!r}")
    return number


def number_or_auto(text: str) -> int | Literal["auto"]:
    """Parse a number of processes, or auto."""
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"wanted a whole number, 1 or more, or auto, found {text!r}"
        )
    return int(text)


def parallel_argument(to: argparse.ArgumentParser) -> None:
    """Add `--parallel`."""
    to.add_argument(
        "--parallel",
        type=number_or_auto,
        metavar="N",
        help="train seeds, listed settings and loops in N processes at once, or auto: one per "
        "GPU, else per core; in place of the loop file's loop: {parallel: N}",
    )


def terminal_width() -> int:
    """The number of columns to print in, `MIN_WIDTH` or more."""
    return max(shutil.get_terminal_size((PIPE_WIDTH, 24)).columns, MIN_WIDTH)


def can_show_blocks(stream: TextIO) -> bool:
    """Whether the stream's encoding has the block characters that curves are drawn with."""
    try:
        "\u2581".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
