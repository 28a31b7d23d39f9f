"""`ftloop report`: write one self-contained HTML file about all loops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command, each, report
from pytest_ftloop.cli.commits import candidates, commit_arguments
from pytest_ftloop.core.errors import ConfigError, StaleLogError, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pytest_ftloop.cli.commits import Candidates
    from pytest_ftloop.loop.workspace import Logged
    from pytest_ftloop.report.html.loop_report import LoopReport

DEFAULT_FILE = "ftloop-report.html"
"""The file written unless --output names another, in the working folder."""


def _arguments(to: argparse.ArgumentParser) -> None:
    commit_arguments(to)
    to.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(DEFAULT_FILE),
        metavar="FILE",
        help=f"the file to write (default: {DEFAULT_FILE})",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report.html.gather import of_log
    from pytest_ftloop.report.html.page import check_extra

    check_extra()
    output = arguments.output.absolute()  # the working folder changes if a commit is judged
    paths = [Path(word) for word in arguments.where if Path(word).exists()] or [Path()]
    made_in_python = _made_in_python(paths, arguments.log)
    if made_in_python and not _have_loop_files(paths):
        return _write([of_log(logged) for logged in made_in_python], output)
    found: list[LoopReport] = []

    def one(file: Path) -> int:
        found.append(_loop_report(wanted, file))
        return HOLDS

    with candidates(arguments) as wanted:
        codes = list(each(wanted.files, one))
        if not codes:
            wanted.check_not_empty()
        if wanted.tree is None:
            found += [of_log(logged) for logged in made_in_python]
        if found:  # inside `with`: example tables are read lazily, from the checked-out commit
            _write(found, output)
    return max(codes)


def _write(loops: Sequence[LoopReport], output: Path) -> int:
    from pytest_ftloop.report.html.gather import write_page
    from pytest_ftloop.report.phrases import plural

    write_page(loops, output)
    size = output.stat().st_size / 1e6
    print(f"wrote {shown_path(output)}: {plural(len(loops), 'loop')}, {size:.1f} MB")
    return HOLDS


def _made_in_python(paths: Sequence[Path], log: Path | None) -> list[Logged]:
    """The logs in these folders without a loop file: their loops are made in Python."""
    from pytest_ftloop.loop.workspace import find_logs

    found: list[Logged] = []
    for path in paths:
        if path.is_dir():
            with suppress(ConfigError):  # an empty folder is reported by the search for loop files
                found += [
                    logged
                    for logged in find_logs(path, log, lambda _: None)
                    if logged.config is None and logged.iterations
                ]
    return found


def _have_loop_files(paths: Sequence[Path]) -> bool:
    from pytest_ftloop.loop.workspace import find_loop_files

    with suppress(ConfigError):
        return bool(find_loop_files(paths))
    return False


def _loop_report(wanted: Candidates, file: Path) -> LoopReport:
    """A loop as `ftloop gate` judges it; if its log is out of date, its logged iterations."""
    from pytest_ftloop.loop.replay import gated, replaying
    from pytest_ftloop.loop.workspace import Logged
    from pytest_ftloop.report.html.gather import of_log, of_result

    config = wanted.read(file)
    loop = replaying(gated(config), wanted.options())
    try:
        return of_result(loop.judge(loop.run()))
    except StaleLogError as error:
        if loop.log.view.is_empty():
            raise
        report(error)
        return of_log(Logged(loop.log, config), str(error))


COMMAND = Command(
    "report",
    "write an HTML report",
    "Write one HTML file about all loops: verdicts, curves, metrics with their noise, pass rates\n"
    "by tag, every example with the outputs of any two iterations side by side, findings,\n"
    "settings, cost. The file opens without a network. Trains nothing.\n"
    'Needs jinja2 and plotly: pip install "pytest-ftloop[report]".',
    ("ftloop report", "ftloop report main..HEAD -o report.html", "ftloop report examples"),
    _arguments,
    _run,
)
