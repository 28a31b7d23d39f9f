"""`ftloop accept`: write an iteration's settings into the loop file, or make it the baseline."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    HOLDS,
    Command,
    iteration_argument,
    log_argument,
    report,
    where_argument,
)
from pytest_ftloop.core.bounds import read_bytes
from pytest_ftloop.core.errors import ConfigError, FtloopError, shown_path

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager

    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.workspace import Logged


def _arguments(to: argparse.ArgumentParser) -> None:
    iteration_argument(to)
    where_argument(to)
    to.add_argument(
        "--baseline",
        action="store_true",
        help="also make it the baseline of later comparisons, whatever the regression gate found: "
        "writes a file in improvement_log/ to commit",
    )
    to.add_argument(
        "--retire",
        type=Path,
        metavar="LOG",
        help="give up the loop of this log (improvement_log/NAME): later comparisons do not miss "
        "it; writes a file in the log to commit",
    )
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli.show import chosen
    from pytest_ftloop.loop.workspace import find_logs

    if arguments.retire is not None:
        print(_retire(arguments.retire))
        return HOLDS
    wanted, path = arguments.iteration, arguments.path
    if wanted and path == Path() and Path(wanted).exists():  # `ftloop accept examples/quickstart`
        wanted, path = "best", Path(wanted)
    iteration, logged = chosen(wanted, find_logs(path, arguments.log, report))
    text = _new_text(iteration, logged) if logged.config or not arguments.baseline else None
    is_new = text is not None and text[1] is not None
    # Before anything is written: it reads the loop's data, which may be damaged.
    follows = _what_follows(iteration, logged) if is_new else ""
    if arguments.baseline:
        with _held(logged.log):  # two at once would each replace what they both had read
            print(_accept(iteration, logged))
    if text is not None and text[1] is not None:
        _write(text[0], text[1], follows)
    return HOLDS


def _new_text(iteration: Iteration, logged: Logged) -> tuple[Path, str | None]:
    """The loop file, and its text with the iteration's settings; None if it has them already."""
    from pytest_ftloop.config.edit import changes, with_settings

    config = logged.config
    if config is None:
        raise ConfigError(
            f"the loop {iteration.loop} has no loop file, or a broken one",
            cure="Fix the file. If the loop is made in Python, change its settings there: "
            f"ftloop show {iteration.number} prints those of the iteration.",
        )
    file = config.file
    before = read_bytes(file).decode("utf-8")
    after = with_settings(before, config.with_credentials(iteration.settings), config.source)
    for setting, old, new in changes(config.settings, iteration.settings):
        print(f"{setting}: {_shown(old)} -> {_shown(new)}")
    if after == before:
        print(f"{shown_path(file)} has the settings of iteration {iteration.name} already")
        return file, None
    return file, after


def _write(file: Path, text: str, what_follows: str) -> None:
    from pytest_ftloop.core.files import write_atomically

    write_atomically(file, text)
    print(f"wrote {shown_path(file)}; {what_follows}")


def _what_follows(iteration: Iteration, logged: Logged) -> str:
    """What the next run does now that the loop starts from this iteration's settings."""
    from pytest_ftloop.core.chain import best_of, chain_from
    from pytest_ftloop.core.records import ended_as_hopeless

    if ended_as_hopeless(iteration):
        return "the iteration was ended early, so pytest --ftloop trains it to its end"
    config, inputs = logged.config, logged.inputs
    assert config is not None
    if inputs is None or inputs.fingerprint(config, iteration.settings) != iteration.fingerprint:
        return "model, data or scoring have changed since, so pytest --ftloop trains it again"
    follows = "the iteration is in the log, so it is not trained again"
    if iteration.parent is not None:
        follows += "\nthe loop is finished; --ftloop-iterations N continues it from there"
    chain = chain_from(logged.iterations, iteration.fingerprint)
    best = best_of(chain, config.metric_of(chain))
    if best.id != iteration.id:
        follows += f"\nthe gate judges iteration {best.name}, which was made from it and is better"
    return follows


def _accept(iteration: Iteration, logged: Logged) -> str:
    """Log that the iteration is the baseline from now on, in place of all earlier ones.

    It counts against the baseline that it is compared with now, and those that the log accepted
    before, but not against one that another branch accepts later. The gates that fail are named,
    here and in the file, which reviewers read.
    """
    from pytest_ftloop.core.records import Judgement
    from pytest_ftloop.gate.judgements import covered_by, current_judgements
    from pytest_ftloop.report.escape import visible

    current = current_judgements(logged.log.view.judgements())
    baseline = _compared_with(iteration, logged)
    if [(judgement.candidate, judgement.by) for judgement in current] == [(iteration.id, "hand")]:
        covered = covered_by(current[0])
        if baseline is None or not covered or baseline in covered:
            return f"iteration {iteration.name} is accepted already"
    failing = _failing(iteration, logged)
    judgement = Judgement(
        loop=iteration.loop,
        candidate=iteration.id,
        baseline=baseline,
        by="hand",
        kind="accepted",
        passed=True,
        because=f"accepted by hand{failing}",
        over=tuple(replaced.name for replaced in current),
    )
    kept = logged.log.append_judgement(judgement)
    file = shown_path(logged.log.files(kept)[0])
    return f"accepted iteration {iteration.name}{visible(failing)}; commit {file}"


def _failing(iteration: Iteration, logged: Logged) -> str:
    """What an acceptance by hand accepts: the gates that fail now; empty if none does."""
    from pytest_ftloop.loop.failing import failing_gates

    try:
        failing = failing_gates(iteration, logged)
    except FtloopError as error:  # no gate has to hold for it, so none has to be known
        return f", whose gates can't be judged: {error.message}"
    return f": {'; '.join(failing)}" if failing else ""


def _retire(folder: Path) -> str:
    """Log that a loop is given up, so that a comparison does not miss it."""
    from pytest_ftloop.core.records import Judgement
    from pytest_ftloop.gate.judgements import RETIRED, current_judgements
    from pytest_ftloop.log import ImprovementLog

    log = ImprovementLog(folder)
    iterations = log.read()
    if not iterations:
        raise ConfigError(
            f"--retire: wanted the folder of a loop's log, found none in {shown_path(folder)}",
            cure="If the log was deleted, restore it first, from a commit that has it: "
            f"git checkout COMMIT -- {shlex.quote(str(folder))}",
        )
    with _held(log):
        current = current_judgements(log.view.judgements())
        if any(judgement.kind == RETIRED for judgement in current):
            return f"{folder.name} is given up already"
        judgement = Judgement(
            loop=iterations[-1].loop,
            candidate=current[-1].candidate if current else iterations[-1].id,
            baseline=None,
            by="hand",
            kind=RETIRED,
            passed=True,
            because="given up by hand",
            over=tuple(replaced.name for replaced in current),
        )
        kept = log.append_judgement(judgement)
    return f"gave up {folder.name}: commit {shown_path(log.files(kept)[0])}"


def _held(log: ImprovementLog) -> AbstractContextManager[Path]:
    from pytest_ftloop.loop.hold import held

    return held(log, lambda: print("waiting for another process", file=sys.stderr))


def _compared_with(iteration: Iteration, logged: Logged) -> str | None:
    """The id of the iteration that the gate compares this one with; None if that is not known."""
    from pytest_ftloop.gate.search import find_baseline
    from pytest_ftloop.loop.acceptance import sought

    if logged.config is None:
        return None
    try:
        found = find_baseline(sought(logged.config, logged.log, iteration), None).iteration
    except FtloopError:  # no repository, or a base that was not fetched: what the log says counts
        return None
    return found.id if found is not None and found.id != iteration.id else None


def _shown(value: object) -> str:
    from pytest_ftloop.report.phrases import format_setting

    return "not set" if value is None else format_setting(value)


COMMAND = Command(
    "accept",
    "write an iteration's settings into the loop file",
    "Write the settings of an iteration into the loop file, and change nothing else in it. Commit\n"
    "the file and the log. If the loop found these settings, it is finished: the next run judges\n"
    "what is logged. pytest --ftloop --ftloop-iterations N continues it.",
    ("ftloop accept", "ftloop accept 3 topic.ftloop.yaml", "ftloop accept best --baseline"),
    _arguments,
    _run,
)
