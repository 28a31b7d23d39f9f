"""pytest's own screens of failures, so that a loop is explained once and not once per gate.

The reports keep the whole texts, for JUnit and whatever else reads them; only the terminal leaves
out what is in the loop's section. With -v or -rA it prints all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.printable import printable, printable_line
from pytest_ftloop.report.screen import is_one_line

if TYPE_CHECKING:
    import pytest

    from pytest_ftloop.plugin.news import Board, Key


def verbosity_of(config: pytest.Config) -> int:
    """How much to print; without the terminal plugin (-p no:terminal) there is no such option."""
    return int(getattr(config.option, "verbose", 0))


def shows_everything(config: pytest.Config) -> bool:
    """Whether the user asked for all texts: -v, or -rA."""
    return verbosity_of(config) > 0 or "A" in getattr(config.option, "reportchars", "")


def leave_out_explained(terminalreporter: Any, board: Board) -> None:
    """Leave out of pytest's screen the failed gates that are in a loop's section.

    Of an error that all gates of a loop share (its log is out of date), the first is kept, also
    where each xdist worker has told it once.
    """
    seen: set[tuple[str, str]] = set()
    for report in (
        *terminalreporter.stats.get("failed", ()),
        *terminalreporter.stats.get("error", ()),
    ):
        loop: Key | None = getattr(report, "ftloop_gate", None)
        if loop is not None and tuple(loop) in board.runs:
            report._pdbshown = True  # what pytest's own debugger sets on a failure that was shown
        file = getattr(report, "ftloop_error", None)
        if file is not None:
            if (file, str(report.longrepr)) in seen or getattr(report, "ftloop_told", False):
                report._pdbshown = True
            seen.add((file, str(report.longrepr)))


def write_sections(
    terminalreporter: Any, sections: Iterable[tuple[str, list[str]]], verbosity: int
) -> None:
    """The lines of each loop: those of one line together, the others under a heading each."""
    loops = list(sections)
    if verbosity < 0:
        for _, lines in loops:
            _write(terminalreporter, lines)
        return
    short = [lines for _, lines in loops if is_one_line(lines)]
    if short:
        terminalreporter.section("ftloop", sep="-", bold=True)
        for lines in short:
            _write(terminalreporter, lines)
    for loop, lines in loops:
        if not is_one_line(lines):
            terminalreporter.section(f"ftloop {printable_line(loop)}", sep="-", bold=True)
            _write(terminalreporter, lines)


def write_compared(terminalreporter: Any, lines: list[str]) -> None:
    """The table of loops that were measured on one eval set, if there are such."""
    if lines:
        terminalreporter.section("ftloop: loops compared", sep="-", bold=True)
        _write(terminalreporter, lines)


def _write(terminalreporter: Any, lines: Iterable[str]) -> None:
    for line in lines:
        terminalreporter.line(printable(line))
