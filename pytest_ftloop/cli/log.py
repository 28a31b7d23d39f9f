"""`ftloop log`: print the iterations of the improvement log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    HOLDS,
    Command,
    each,
    log_argument,
    report,
    report_exposed,
    terminal_width,
    where_argument,
)
from pytest_ftloop.core.errors import shown_path

if TYPE_CHECKING:
    import argparse

    from pytest_ftloop.loop.workspace import Logged

FORMATS = ("csv", "json", "markdown", "text")
"""The formats of `report.table.format_tables`, repeated so that `--help` need not import it."""


def _arguments(to: argparse.ArgumentParser) -> None:
    where_argument(to)
    to.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="json prints one list and csv one table of all loops (default: text)",
    )
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.core.untrained import with_base
    from pytest_ftloop.loop.workspace import find_logs
    from pytest_ftloop.report.table import Table, format_tables, log_rows

    tables: list[Table] = []

    def read(logged: Logged) -> int:
        folder = logged.log.folder
        rows = log_rows(with_base(logged.log.view.bases(), logged.iterations))
        tables.append(Table(folder.name, shown_path(folder), rows))
        report_exposed(logged.log)
        return HOLDS

    codes = list(each(find_logs(arguments.path, arguments.log, report), read))
    sys.stdout.write(format_tables(tables, arguments.format, terminal_width()))
    return max(codes, default=HOLDS)


COMMAND = Command(
    "log",
    "print the iterations of the improvement log",
    "Print one row per iteration: the change that led to it, its figures, the decision after it.",
    ("ftloop log", "ftloop log topic.ftloop.yaml --format markdown", "ftloop log --format csv"),
    _arguments,
    _run,
)
