"""`ftloop diagnose`: print the findings on any trainer's run, or those that a log holds."""

from __future__ import annotations

import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    FAILED,
    HOLDS,
    Command,
    can_show_blocks,
    each,
    log_argument,
    report,
    several_paths,
    terminal_width,
)
from pytest_ftloop.core.errors import ConfigError, DataError, Location, LogError, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pytest_ftloop.diagnose.any_trainer.trainer_state import TrainerRun
    from pytest_ftloop.loop.workspace import Logged
    from pytest_ftloop.report.diagnosis import Diagnosed

MOST_NAMED = 5
"""Most runs that an error lists of a folder of runs: a sweep can have hundreds."""

MOST_SCORES = 2
"""Most metrics whose curves are drawn per eval set, those that decide."""


def _arguments(to: argparse.ArgumentParser) -> None:
    several_paths(
        to,
        "a trainer_state.json, a checkpoint or a trainer's output_dir; or a loop file or "
        "improvement log, to print the findings on its last iteration (default: .)",
    )
    to.add_argument(
        "--format",
        choices=("json", "markdown", "text"),
        default="text",
        help="json prints one list of all runs (default: text)",
    )
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report import diagnosis
    from pytest_ftloop.report.diff import to_json

    found: list[Diagnosed] = []

    def one(path: Path) -> int:
        code = HOLDS
        try:
            for diagnosed in _diagnosed(path, arguments.log):
                found.append(diagnosed)
                code = max(code, FAILED if diagnosed.is_broken else HOLDS)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DataError(f"can't be read: {reason}", where=Location(str(path))) from None
        return code

    codes = list(each(arguments.paths, one))
    if arguments.format == "json":
        print(to_json([diagnosis.as_record(of) for of in found]))
    elif found and arguments.format == "markdown":
        print("\n\n".join(map(diagnosis.as_markdown, found)))
    elif found:
        unicode = can_show_blocks(sys.stdout)
        width = terminal_width()
        print("\n\n".join(diagnosis.as_text(of, width, unicode=unicode) for of in found))
    return max(codes)


def _diagnosed(path: Path, log: Path | None) -> Iterator[Diagnosed]:
    """Yield what PATH holds: one run of a trainer, or the last iteration of each log."""
    from pytest_ftloop.config.loop_yaml import SUFFIXES
    from pytest_ftloop.diagnose.any_trainer.trainer_state import read_newest
    from pytest_ftloop.loop.workspace import find_logs

    if not path.exists():
        raise DataError("no such file or folder", where=Location(str(path)))
    if not path.name.endswith(SUFFIXES) and (run := read_newest(path)):
        yield _trainer_run(run)
        return
    try:
        logs = find_logs(path, log, report)
    except ConfigError:
        if path.is_file():
            raise
        raise DataError(
            f"nothing to diagnose in {shown_path(path.absolute())}: neither a trainer_state.json, "
            "in it or in a checkpoint, nor a loop file, nor an improvement log",
            cure=_what_to_name(path),
        ) from None
    for logged in logs:
        yield _last_iteration(logged)


def _what_to_name(folder: Path) -> str:
    """The cure for a PATH that holds nothing: the runs in its folders, or how to find one."""
    from pytest_ftloop.diagnose.any_trainer.found import states_in
    from pytest_ftloop.report.escape import visible

    below = (child for child in sorted(folder.iterdir()) if child.is_dir())
    runs = list(islice((child for child in below if any(states_in(child))), MOST_NAMED + 1))
    if not runs:
        return (
            "Name a trainer's output_dir or one of its checkpoints; a trainer writes its state "
            "when it saves a checkpoint."
        )
    named = " ".join(visible(shlex.quote(shown_path(run))) for run in runs[:MOST_NAMED])
    return f"Name the runs in it: ftloop diagnose {named}{' ...' if runs[MOST_NAMED:] else ''}"


def _trainer_run(run: TrainerRun) -> Diagnosed:
    from pytest_ftloop.diagnose.any_trainer.notes import still_true
    from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of
    from pytest_ftloop.report.diagnosis import Diagnosed
    from pytest_ftloop.report.phrases import duration_text

    adapter, findings = run.adapter, findings_of(run)
    parts = [f"step {run.step} of {run.planned_steps}"]
    if run.epochs > 0:
        parts.append(f"{run.epochs:.3g} {'epoch' if run.epochs == 1 else 'epochs'}")
    if run.seconds is not None:
        parts.append(duration_text(run.seconds))
    if adapter and adapter.parameters:
        rank = f" of rank {adapter.rank}" if adapter.rank else ""
        parts.append(f"an adapter{rank} with {adapter.parameters:,} parameters")
    higher = {"reward"}
    curves = {"train loss": [step.loss for step in run.steps]} if run.steps else {}
    if "reward" in run.series:
        curves["reward"] = [value for _, value in run.series["reward"]]
    for name, points in run.evals.items():
        curves[f"eval loss {name}".rstrip()] = [point.eval_loss for point in points]
        for score in run.scores(name)[:MOST_SCORES]:
            curves[score.name] = [value for _, value in score.points]
            higher |= {score.name} if score.better == "higher" else set()
    return Diagnosed(
        source=run.source,
        title=", ".join(parts),
        facts={
            "step": run.step,
            "planned_steps": run.planned_steps,
            "epochs": run.epochs or None,
            "seconds": run.seconds,
            "adapter": vars(adapter) if adapter else None,
        },
        curves=curves,
        findings=findings,
        notes=still_true(run.notes, findings),
        higher=frozenset(higher),
    )


def _last_iteration(logged: Logged) -> Diagnosed:
    from pytest_ftloop.report.diagnosis import Diagnosed
    from pytest_ftloop.report.phrases import format_changes
    from pytest_ftloop.report.show import curves_of

    place = shown_path(logged.log.folder)
    if not logged.iterations:
        raise LogError(
            "the improvement log is still empty",
            where=Location(place),
            cure="pytest --ftloop trains the first iteration.",
        )
    last, total = logged.last(), len(logged.iterations)
    return Diagnosed(
        source=place,
        title=f"iteration {last.name}, the last of {total}: {format_changes(last)}",
        facts={"loop": last.loop, "iteration": last.name},
        curves=curves_of(last),
        findings=tuple(last.findings),
    )


COMMAND = Command(
    "diagnose",
    "find out what went wrong in a training run",
    "Diagnose a run of any Hugging Face trainer from its logged state, by the rules for the\n"
    "iterations of a loop; for a loop, print the findings in its log. Trains nothing, needs no\n"
    "torch. Exit code: 0 no finding is an error, 1 one is, 2 there is nothing to read.",
    (
        "ftloop diagnose outputs/",
        "ftloop diagnose outputs/*/checkpoint-500 --format markdown",
        "ftloop diagnose sentiment.ftloop.yaml",
    ),
    _arguments,
    _run,
)
