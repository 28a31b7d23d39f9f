"""Choose a subcommand and run it; the only place that turns an error into an exit code.

A user's mistake prints its message on stderr and exits with 2. Our own bugs show a traceback, and
exit with 2 too: 1 would mean that a gate failed.
Each subcommand imports what it needs when it runs, so that `ftloop log` starts fast.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, cast

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
    worker,
)
from pytest_ftloop.cli.command import BROKEN_PIPE, ERROR, HOLDS, INTERRUPTED, report
from pytest_ftloop.cli.report import COMMAND as REPORT
from pytest_ftloop.core.credentials import hidden
from pytest_ftloop.core.errors import FtloopError, system_errors_told
from pytest_ftloop.core.printable import PrintableStream

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
    worker.COMMAND,
    ci.COMMAND,
    comment.COMMAND,
    schema.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code (`command.HOLDS` and the others)."""
    _never_fail_on_text(sys.stdout, sys.stderr)
    with (
        redirect_stdout(cast("TextIO", PrintableStream(sys.stdout))),
        redirect_stderr(cast("TextIO", PrintableStream(sys.stderr))),
    ):
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        with system_errors_told():
            code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # a closed pipe raises here, where it is handled, not at exit
    except FtloopError as error:
        return report(error)
    except KeyboardInterrupt:
        print(
            "interrupted: finished iterations are in the log, and the next run continues from them",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except Exception:  # noqa: BLE001 - a bug of ours, shown in full
        print(hidden(traceback.format_exc()), file=sys.stderr)
        return ERROR
    return code


def parser() -> argparse.ArgumentParser:
    """The command line's parser, with every subcommand."""
    top = _parser(
        prog="ftloop",
        description="Fine-tuning as a tested loop: train, evaluate, diagnose, adjust, repeat.\n"
        "Every iteration is recorded in the improvement log.",
        examples=(
            "ftloop init demo",
            "ftloop run demo",
            "ftloop log demo",
            "ftloop show best demo",
        ),
        epilog="'ftloop COMMAND --help' describes a command. pytest --ftloop runs loops as tests.\n"
        "exit code: 0 all gates hold, 1 a gate failed or a fault was found, 2 an error in usage,\n"
        "config, data or log;\n"
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
    """Help with one line per command: argparse ignores their second indent and would wrap them."""

    def _iter_indented_subactions(
        self, action: argparse.Action
    ) -> Generator[argparse.Action, None, None]:
        for inner in super()._iter_indented_subactions(action):
            self._action_max_length = max(self._action_max_length, len(inner.dest) + 4)
            yield inner


def _never_fail_on_text(*streams: TextIO) -> None:
    """Escape characters that a stream can't encode, instead of raising an error."""
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Discard buffered output: Python flushes at exit, and the closed pipe would raise again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
