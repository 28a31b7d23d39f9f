"""`ftloop run`: run loops as `pytest --ftloop` does, without pytest."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    ERROR,
    FAILED,
    HOLDS,
    Command,
    each,
    log_argument,
    parallel_argument,
    paths_argument,
    positive,
    terminal_width,
)
from pytest_ftloop.cli.json_output import items_of
from pytest_ftloop.core.errors import ConfigError, shown_path
from pytest_ftloop.core.printable import unguarded

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.pool import Following, Hold, Prospect
    from pytest_ftloop.loop.result import LoopResult


def _arguments(to: argparse.ArgumentParser) -> None:
    paths_argument(to)
    to.add_argument(
        "--iterations",
        type=positive,
        metavar="N",
        help="maximum number of iterations, in place of the loop file's; without it only the loop "
        "file's own settings are trained if the variable CI is set",
    )
    either = to.add_mutually_exclusive_group()
    either.add_argument(
        "--retrain", action="store_true", help="train even iterations that are in the log already"
    )
    either.add_argument(
        "--replay",
        action="store_true",
        help="never train: judge the log; an out-of-date log is an error",
    )
    to.add_argument(
        "--baseline",
        metavar="REF",
        help="the commit whose log the regression gate compares with (default: where the "
        "change starts; HEAD if it is not committed yet)",
    )
    to.add_argument(
        "--retrain-baseline",
        action="store_true",
        help="if the baseline's figures are from another environment, train the baseline here",
    )
    parallel_argument(to)
    log_argument(to)
    loud = to.add_mutually_exclusive_group()
    loud.add_argument(
        "-v",
        "--verbose",
        action="store_const",
        dest="verbosity",
        const=1,
        default=0,
        help="print every finding, failing example and figure",
    )
    loud.add_argument("--json", action="store_true", help="print a JSON list, one item per loop")
    loud.add_argument(
        "-q",
        "--quiet",
        action="store_const",
        dest="verbosity",
        const=-1,
        help="print one line per gate",
    )


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.core.git import at_one_moment
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.options import Options, in_ci
    from pytest_ftloop.loop.pool import Workers
    from pytest_ftloop.report.as_json.items import run_item

    if arguments.replay and arguments.retrain_baseline:
        raise ConfigError("--retrain-baseline and --replay can't be combined")
    options = Options(
        retrain=arguments.retrain,
        replay=arguments.replay,
        explore=not in_ci(),
        iterations=arguments.iterations,
        log_folder=arguments.log and arguments.log.absolute(),
        baseline=arguments.baseline,
        retrain_baseline=arguments.retrain_baseline,
        parallel=arguments.parallel,
    )
    progress, width = screen_progress(), terminal_width()

    def run(file: Path) -> int:
        workers.follow(following(files, file, lambda f: Loop(ready(f), options, workers=workers)))
        loop = Loop(ready(file), options, progress, reads=options.replay, workers=workers)
        result = loop.run()
        if result.comparisons:
            result = loop.judge(result, result.comparisons)
        held = all(gate.passed for gate in result.gates)
        held = held and all(verdict.ok for _, verdict in result.verdicts)
        code = HOLDS if held else FAILED
        items.add(lambda: run_item(result, code))
        if arguments.json:
            return code
        lines = _result_lines(result, arguments.verbosity, width)
        apart = "\n" if len(lines) > 1 and len(files) > 1 and arguments.verbosity >= 0 else ""
        print("\n".join(lines), end=f"\n{apart}", flush=True)
        return code

    moment = at_one_moment() if options.replay else nullcontext()
    with moment, items_of("run", wanted=arguments.json) as items, Workers() as workers:
        files = files_to_train(arguments)
        codes = list(each(files, run, lambda f, error: items.failed(shown_path(f), error)))
    if len(codes) > 1 and not arguments.json:
        print(_tally(codes))
    return max(codes)


def files_to_train(arguments: argparse.Namespace) -> list[Path]:
    """The loop files for `PATH`. Raises `ConfigError` where there is none, or two write one log."""
    from pytest_ftloop.cli.commits import Candidates
    from pytest_ftloop.loop.workspace import find_loop_files

    files = find_loop_files(arguments.paths)
    Candidates(tuple(files), None, log=arguments.log).check_names()
    return files


def following(
    files: Sequence[Path], file: Path, made: Callable[[Path], Loop], seeds: int = 1
) -> Iterator[Following]:
    """The loops of the files after this one, each made when it is asked what it trains.

    They are to have so many `seeds`.
    """
    from pytest_ftloop.loop.pool import Following

    def look(later: Path, hold: Hold) -> Prospect | None:
        return made(later).upcoming(hold, seeds)

    for later in files[files.index(file) + 1 :]:
        yield Following(later, partial(look, later))


def ready(file: Path) -> LoopConfig:
    """Read a loop file. Raises `ConfigError` for a loop that needs pytest to be scored."""
    from pytest_ftloop.config.loop_config import read_loop_file

    config = read_loop_file(file)
    if config.scoring.scorer == "hook":
        raise ConfigError(
            "scorer 'hook' needs pytest, which reads the hook from a conftest.py",
            where=config.locate("scoring.scorer"),
            cure=f"Run pytest --ftloop {config.source}, or name a function: module:function.",
        )
    return config


def _result_lines(result: LoopResult, verbosity: int, width: int) -> list[str]:
    from pytest_ftloop.core.git import ignored_by_git
    from pytest_ftloop.report.screen import result_screen
    from pytest_ftloop.report.to_commit import files_to_commit

    ignored = ignored_by_git(files_to_commit(result))
    return result_screen(result, verbosity, width, ignored=ignored)


def _tally(codes: Sequence[int]) -> str:
    """`3 loops: 1 passed, 1 with a failed gate, 1 with an error`."""
    kinds = {HOLDS: "passed", FAILED: "with a failed gate", ERROR: "with an error"}
    counts = [f"{codes.count(code)} {kind}" for code, kind in kinds.items() if code in codes]
    return f"{len(codes)} loops: {', '.join(counts)}"


def screen_progress() -> Progress:
    """Progress on stderr: a line that is redrawn on a terminal, else only the lasting lines."""
    from pytest_ftloop.report.live import LiveLine, StayingLines

    redraws, screen = sys.stderr.isatty(), sys.stderr
    if redraws:  # its escapes are ours
        screen = unguarded(screen)

    def write(text: str) -> None:
        screen.write(text)
        screen.flush()

    return (LiveLine if redraws else StayingLines)(write, terminal_width())


COMMAND = Command(
    "run",
    "run loops as pytest --ftloop does",
    "Run loops: train what the improvement log lacks, then judge the gates.\n"
    "Exit code: 0 all gates hold, 1 a gate failed, 2 an error.",
    (
        "ftloop run",
        "ftloop run topic.ftloop.yaml --iterations 6",
        "ftloop run --replay -q      (judges the log; needs no torch)",
        "ftloop run --json",
    ),
    _arguments,
    _run,
)
