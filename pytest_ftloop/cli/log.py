"""`ftloop log`: print the iterations of the improvement log, or one table of several loops."""

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
    where_arguments,
)
from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.core.files import real

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_ftloop.gate.ranking import Ranking
    from pytest_ftloop.loop.workspace import Logged

FORMATS = ("csv", "json", "markdown", "text")
"""The formats of `report.table.format_tables`, repeated so that `--help` need not import it."""


def _arguments(to: argparse.ArgumentParser) -> None:
    where_arguments(to)
    to.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="json prints one list and csv one table of all loops (default: text)",
    )
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    paths: list[Path] = arguments.paths
    if len(paths) == 1:
        return _print_iterations(paths[0], arguments)
    found: dict[Path, Logged] = {}

    def search(path: Path) -> int:
        from pytest_ftloop.loop.workspace import find_logs

        for logged in find_logs(path, arguments.log, report):
            found.setdefault(real(logged.log.folder), logged)
        return HOLDS

    code = max(each(paths, search), default=HOLDS)
    if code and not found:
        return code  # the error says it all
    return max(code, _print_comparison(list(found.values()), arguments))


def _print_iterations(path: Path, arguments: argparse.Namespace) -> int:
    """A table per loop; then those together that were measured on one eval set."""
    from pytest_ftloop.core.untrained import with_base
    from pytest_ftloop.loop.workspace import find_logs
    from pytest_ftloop.report.ranking import format_ranking
    from pytest_ftloop.report.table import Table, format_tables, log_rows

    tables: list[Table] = []
    filled: list[Logged] = []

    def read(logged: Logged) -> int:
        folder = logged.log.folder
        rows = log_rows(with_base(logged.log.view.bases(), logged.iterations))
        tables.append(Table(folder.name, shown_path(folder), rows))
        report_exposed(logged.log)
        filled.extend([logged] if rows else [])
        return HOLDS

    form = arguments.format
    codes = list(each(find_logs(path, arguments.log, report), read))
    sys.stdout.write(format_tables(tables, form, terminal_width()))
    if form in {"text", "markdown"} and len(filled) > 1:
        rankings, code = _ranked(filled)
        codes.append(code)
        if shared := [ranking for ranking in rankings if len(ranking.standings) > 1]:
            sys.stdout.write("\n" + format_ranking(shared, form, terminal_width()))
    return max(codes, default=HOLDS)


def _print_comparison(logs: Sequence[Logged], arguments: argparse.Namespace) -> int:
    """One table of these loops."""
    from pytest_ftloop.report.ranking import format_ranking

    filled = [logged for logged in logs if not logged.log.view.is_empty()]
    for logged in logs:
        if logged not in filled:
            print(f"{logged.log.folder.name}: no iterations yet, so left out", file=sys.stderr)
    rankings, code = _ranked(filled)
    sys.stdout.write(format_ranking(rankings, arguments.format, terminal_width()))
    return code


def _ranked(logs: Sequence[Logged]) -> tuple[tuple[Ranking, ...], int]:
    """The loops by eval set; and the exit code, as a damaged log is left out with its error."""
    from pytest_ftloop.gate.ranking import Entry, rank

    entries: list[Entry] = []

    def read(logged: Logged) -> int:
        entries.append(logged.entry())
        return HOLDS

    code = max(each(logs, read), default=HOLDS)
    return rank(entries), code


COMMAND = Command(
    "log",
    "print the iterations of the improvement log, or compare loops",
    "Print one row per iteration: the change that led to it, its figures, the decision after it.\n"
    "Of several PATHs print one row per loop: base, figures, how far behind the best and whether\n"
    "that is proven, cost.",
    (
        "ftloop log",
        "ftloop log topic.ftloop.yaml --format markdown",
        "ftloop log --format csv",
        "ftloop log small.ftloop.yaml large.ftloop.yaml",
    ),
    _arguments,
    _run,
)
