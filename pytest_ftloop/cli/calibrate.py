"""`ftloop calibrate`: measure how much the training seed alone moves the figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    HOLDS,
    Command,
    each,
    log_argument,
    parallel_argument,
    paths_argument,
    positive,
    terminal_width,
)
from pytest_ftloop.loop.seeds import CALIBRATION_SEEDS

if TYPE_CHECKING:
    import argparse


def _arguments(to: argparse.ArgumentParser) -> None:
    paths_argument(to)
    to.add_argument(
        "--seeds",
        type=positive,
        default=CALIBRATION_SEEDS,
        metavar="N",
        help=f"runs of the best iteration, its own included (default: {CALIBRATION_SEEDS})",
    )
    parallel_argument(to)
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli.run import files_to_train, following, ready, screen_progress
    from pytest_ftloop.core.noise import measured_noise
    from pytest_ftloop.core.runs import groups_of
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.options import Options, in_ci
    from pytest_ftloop.loop.pool import Workers
    from pytest_ftloop.loop.seeds import runs_here
    from pytest_ftloop.report.text import note_lines
    from pytest_ftloop.report.verdict import noise_lines

    options = Options(
        explore=not in_ci(),
        log_folder=arguments.log and arguments.log.absolute(),
        parallel=arguments.parallel,
    )

    def later(file: Path) -> Loop:
        return Loop(ready(file), options, workers=workers)

    def calibrate(file: Path) -> int:
        workers.follow(following(files, file, later, arguments.seeds))
        loop = Loop(ready(file), options, screen_progress(), workers=workers)
        result = loop.calibrate(arguments.seeds)
        runs = runs_here(loop.log, result.best)
        view, width = loop.log.view, terminal_width()
        measured = measured_noise(groups_of(view.iterations(), view.seed_runs()))
        lines = [*noise_lines(result, runs, measured, width), *note_lines(result.notes, width)]
        print("\n".join(lines), flush=True)
        return HOLDS

    files = files_to_train(arguments)
    with Workers() as workers:
        return max(each(files, calibrate))


COMMAND = Command(
    "calibrate",
    "measure the noise of the training seed",
    "Train the loop's best iteration with more seeds, and print how much the seed alone moves its\n"
    "figures. The gate can then detect smaller drops. Logged runs are not trained again.",
    ("ftloop calibrate", "ftloop calibrate --seeds 8 topic.ftloop.yaml"),
    _arguments,
    _run,
)
