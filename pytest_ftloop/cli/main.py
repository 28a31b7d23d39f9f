"""The one place where a subcommand is chosen, and where errors end.

A mistake of the user's prints its message on stderr and exits 2; only our own bugs show a
traceback. What a subcommand needs is imported in it, so that reading a log costs little.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from pytest_ftloop.cli import (
    accept,
    calibrate,
    ci,
    comment,
    diagnose,
    diff,
    export,
    gate,
    init,
    log,
    run,
    schema,
    show,
    suggest,
)
from pytest_ftloop.cli.command import BROKEN_PIPE, ERROR, HOLDS, INTERRUPTED, report
from pytest_ftloop.cli.report import COMMAND as REPORT
from pytest_ftloop.core.errors import FtloopError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

COMMANDS = (
    init.COMMAND,
    run.COMMAND,
    gate.COMMAND,
    diff.COMMAND,
    REPORT,
    log.COMMAND,
    show.COMMAND,
    suggest.COMMAND,
    diagnose.COMMAND,
    accept.COMMAND,
    export.COMMAND,
    calibrate.COMMAND,
    ci.COMMAND,
    comment.COMMAND,
    schema.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: 0 all well, 1 a gate failed, 2 an error."""
    _never_fail_on_text(sys.stdout, sys.stderr)
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # a reader that has gone is noticed here, not at exit
    except FtloopError as error:
        return report(error)
    except KeyboardInterrupt:
        print(
            "interrupted; finished iterations are in the log, and the next run goes on from there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    return code


def parser() -> argparse.ArgumentParser:
    """The arguments of every subcommand."""
    top = _parser(
        prog="ftloop",
        description="Fine-tuning as a loop under test: train, evaluate, diagnose, adjust, repeat; "
        "every iteration is in the improvement log.",
        examples=(
            "ftloop init demo",
            "ftloop run demo",
            "ftloop log demo",
            "ftloop show best demo",
        ),
        epilog="'ftloop COMMAND --help' says more. The same loops run as tests: pytest --ftloop\n"
        "exit code: 0 all well, 1 a gate failed or a fault was found, 2 usage, config, data or\n"
        "log error;\n"
        "ftloop gate, ftloop ci: 3 the log is out of date or incomplete",
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        made = _parser(
            commands.add_parser,
            name=command.name,
            help=command.help,
            description=command.description,
            examples=command.examples,
        )
        command.arguments(made)
        made.set_defaults(run=command.run)
    return top


def _dispatch(argv: Sequence[str]) -> int:
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.version:
        from importlib.metadata import version

        print(f"pytest-ftloop {version('pytest-ftloop')}")
        return HOLDS
    if arguments.command is None:
        top.print_help(sys.stderr)
        return ERROR
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _parser(
    make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser,
    *,
    examples: Sequence[str],
    epilog: str = "",
    **options: Any,
) -> argparse.ArgumentParser:
    shown = "\n".join(["examples:", *(f"  {example}" for example in examples)])
    return make(
        **options,
        epilog="\n\n".join(filter(None, (shown, epilog))),
        formatter_class=_Help,
        allow_abbrev=False,
    )


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with each command on one line: argparse forgets that commands are indented twice."""

    def _iter_indented_subactions(
        self, action: argparse.Action
    ) -> Generator[argparse.Action, None, None]:
        for inner in super()._iter_indented_subactions(action):
            self._action_max_length = max(self._action_max_length, len(inner.dest) + 4)
            yield inner


def _never_fail_on_text(*streams: TextIO) -> None:
    """Users' text that the terminal can't show is escaped there, not an error."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered nowhere, so that Python's own flush at exit is silent too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
