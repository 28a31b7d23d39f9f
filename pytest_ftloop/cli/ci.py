"""`ftloop ci`: one job of a pipeline. Judge the log, train what it lacks, write the report."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pytest_ftloop.cli.command import (
    ERROR,
    FAILED,
    HOLDS,
    Command,
    log_argument,
    paths_argument,
    report,
    terminal_width,
)
from pytest_ftloop.core.errors import ConfigError, FtloopError, StaleLogError, shown_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_ftloop.cli.commits import Candidates
    from pytest_ftloop.loop.result import LoopResult
    from pytest_ftloop.report.pull_request import LoopOutcome, LoopSection, PullRequestReport

REPORT, SUMMARY, PAGE, JUNIT = "report.json", "summary.md", "report.html", "junit.xml"

_APART = ("-p", "ftloop", "-p", "pytest_ftloop.plugin.apart")
"""The plugin by its name, which counts even if `addopts` or the environment turn it off."""


def _arguments(to: argparse.ArgumentParser) -> None:
    from pytest_ftloop.cli.gate import fail_on_argument

    paths_argument(to)
    stale = to.add_mutually_exclusive_group()
    stale.add_argument(
        "--train",
        action="store_true",
        help="train the loops whose log is out of date with pytest --ftloop (default: exit with 3)",
    )
    stale.add_argument(
        "--stale-ok",
        action="store_true",
        help="do not fail if a log is out of date: for a job that runs before one that trains",
    )
    to.add_argument(
        "--baseline",
        metavar="REF",
        help="the commit whose log the regression gate compares with (default: where the "
        "change starts; HEAD if it is not committed yet)",
    )
    fail_on_argument(to)
    to.add_argument(
        "--out",
        type=Path,
        default=Path("ftloop-ci"),
        metavar="DIR",
        help=f"the folder for {REPORT}, {SUMMARY}, {PAGE} and {JUNIT} (default: ftloop-ci)",
    )
    to.add_argument(
        "--key",
        metavar="TEXT",
        help="tells this report from those of other jobs on the same pull request, so that each "
        "has its own comment (default: the PATHs; none for the whole repository)",
    )
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli import github
    from pytest_ftloop.report import pull_request

    env = os.environ
    key = arguments.key
    key = github.key_of(arguments.paths, env) if key is None else key.strip()
    # Errors go to stdout too: stop-commands covers one stream only.
    errors = sys.stdout if github.in_actions(env) else sys.stderr
    with github.commands_stopped(sys.stdout, env):
        try:
            code, loops = _judged(arguments, errors)
            summary = pull_request.of(loops, key)
            _write(arguments.out, loops, summary, env, errors)
        except FtloopError as error:
            print(error, file=errors)
            github.write_outputs(_outputs(ERROR, None, "", key), env)
            return ERROR
    for line in _annotations(summary, env, stale_ok=arguments.stale_ok):
        github.command(line, sys.stdout)
    github.write_outputs(_outputs(code, summary, str(arguments.out), key), env)
    return code


def _judged(arguments: argparse.Namespace, errors: TextIO) -> tuple[int, Sequence[LoopOutcome]]:
    """Judge every loop; with --train, train the stale ones and judge them again.

    Returns the highest exit code and the outcome of each loop.
    """
    from pytest_ftloop.cli.commits import Candidates
    from pytest_ftloop.cli.gate import parse_fail_on

    fail_on = parse_fail_on(arguments.fail_on)
    found = Candidates.of(arguments.paths, arguments.baseline, log=arguments.log)
    found.check_names()
    loops = {file: _judge(found, file, fail_on) for file in found.files}
    stale = [file for file, outcome in loops.items() if outcome.is_stale]
    trained = _train(stale, arguments) if stale and arguments.train else HOLDS
    if arguments.train:
        loops |= {file: replace(_judge(found, file, fail_on), trained=True) for file in stale}
    outcomes = (*loops.values(), *_rest(found, loops, fail_on))
    if not outcomes:
        found.check_not_empty()
    codes = [trained]
    for index, outcome in enumerate(outcomes):
        codes.append(HOLDS if arguments.stale_ok and outcome.is_stale else _code(outcome))
        if outcome.result is None:
            print(outcome.error, file=errors, flush=True)
        else:
            print("\n".join([*([""] if index else []), *_lines(outcome)]), flush=True)
    return max(codes), outcomes


def _rest(
    found: Candidates, loops: Mapping[Path, LoopOutcome], fail_on: frozenset[str]
) -> Iterator[LoopOutcome]:
    """The outcomes of loops without a loop file, and of those that nothing judges any more."""
    from pytest_ftloop.config.gates import DEFAULT_REGRESSION
    from pytest_ftloop.loop.replay import stricter_rule
    from pytest_ftloop.report.pull_request import LoopOutcome

    done: list[LoopResult | Path] = []
    for file, outcome in loops.items():
        if outcome.result is not None:
            done.append(outcome.result)
        log = found.likely_log_folder(file)
        with suppress(FtloopError):  # one that can't be read is an error by itself
            log = found.log_folder(found.read(file))
        done.append(log)
    for source, judged in found.rest(done, stricter_rule(DEFAULT_REGRESSION, fail_on)):
        name = Path(source).name
        if isinstance(judged, FtloopError):
            yield LoopOutcome(name, source, error=judged)
        else:
            yield LoopOutcome(judged.loop, source, judged)


def _judge(found: Candidates, file: Path, fail_on: frozenset[str]) -> LoopOutcome:
    from pytest_ftloop.config.loop_yaml import SUFFIXES
    from pytest_ftloop.loop.replay import gated, replay
    from pytest_ftloop.report.pull_request import LoopOutcome

    source = shown_path(file)
    suffix = next(suffix for suffix in (*SUFFIXES, "") if file.name.endswith(suffix))
    name = file.name.removesuffix(suffix)
    try:
        config = found.read(file)
        name = config.name
        result = replay(gated(config), found.options(), fail_on)
    except FtloopError as error:
        stale = isinstance(error, StaleLogError)
        return LoopOutcome(name, source, error=error, is_stale=stale)
    return LoopOutcome(name, source, result)


def _code(outcome: LoopOutcome) -> int:
    from pytest_ftloop.cli.gate import error_code, exit_code

    if outcome.result is None:
        return ERROR if outcome.error is None else error_code(outcome.error)
    return exit_code(outcome.result)


def _lines(outcome: LoopOutcome) -> list[str]:
    from pytest_ftloop.cli.gate import loop_lines

    assert outcome.result is not None
    lines = loop_lines(outcome.result, terminal_width())
    if outcome.trained:
        lines.append("trained in this job: commit the log, or the next change can't be judged")
    return lines


def _train(files: Sequence[Path], arguments: argparse.Namespace) -> int:
    """Train with pytest, so that hooks in the user's conftest.py are called.

    What the user's addopts select, or forbid, does not count: each file is trained. Returns an exit
    code. A failed gate counts as success here: the gates are judged again, from the log.
    """
    command = [sys.executable, "-m", "pytest", *_APART, "--ftloop"]
    command += [f"--junitxml={_folder(arguments.out) / JUNIT}"]
    command += [f"--ftloop-baseline={arguments.baseline}"] if arguments.baseline else []
    command += [f"--ftloop-log={arguments.log}"] if arguments.log else []
    command += [str(file.absolute()) for file in files]  # a relative name could begin with "-"
    sys.stdout.flush()
    done = subprocess.run(command, stderr=subprocess.STDOUT, check=False)
    if done.returncode in (HOLDS, FAILED):
        return HOLDS
    report(ConfigError(f"training failed: pytest exited with {done.returncode}, see above"))
    return ERROR


def _write(
    folder: Path,
    loops: Sequence[LoopOutcome],
    summary: PullRequestReport,
    env: Mapping[str, str],
    errors: TextIO,
) -> None:
    """Write the files of --out, and the job's summary page on GitHub."""
    from pytest_ftloop.cli import github
    from pytest_ftloop.core.files import write_atomically
    from pytest_ftloop.report.pull_request import render, to_json

    folder = _folder(folder)
    try:
        write_atomically(folder / REPORT, to_json(summary))
        write_atomically(folder / SUMMARY, render(summary, github.SUMMARY_LIMIT, REPORT))
    except OSError as error:
        raise ConfigError(
            f"--out: {shown_path(folder)} can't be written: {error.strerror}"
        ) from None
    results = [outcome.result for outcome in loops if outcome.result is not None]
    # The page needs the report extra. Without it the other files are still worth having.
    try:
        from pytest_ftloop.report.html.gather import write_report

        if results:
            write_report(results, folder / PAGE)
    except (ImportError, FtloopError) as error:
        print(f"note: {PAGE} was not written: {error}", file=errors)
    if room := github.summary_room(env):
        github.append_summary(render(summary, room, f"{REPORT} of the artifact"), env)


def _folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out: {shown_path(folder)}: {error.strerror}") from None
    return folder


def _outputs(code: int, summary: PullRequestReport | None, folder: str, key: str) -> dict[str, str]:
    """The step's outputs, for later steps of the workflow; without a summary it failed.

    `suffix` makes the name of an artifact another one for each key.
    """
    from pytest_ftloop.cli import github

    sections = summary.loops if summary else ()
    return {
        "verdict": summary.outcome if summary else "error",
        "stale": str(any(section.stale for section in sections)).lower(),
        "exit-code": str(code),
        "metrics": json.dumps(_metrics(sections), separators=(",", ":"), allow_nan=False),
        "report": folder,
        "suffix": github.suffix_of(key),
    }


def _metrics(sections: Sequence[LoopSection]) -> dict[str, dict[str, float | None]]:
    """The figures by the loop's name, or by its file if several loops have that name."""
    names = [section.loop for section in sections]
    return {
        section.source if names.count(section.loop) > 1 else section.loop: {
            name: float(value) if math.isfinite(float(value)) else None
            for name, value in section.metrics.items()
        }
        for section in sections
        if section.metrics
    }


def _annotations(
    summary: PullRequestReport, env: Mapping[str, str], *, stale_ok: bool = False
) -> list[str]:
    """One workflow command per gate that failed or is in doubt, at its line; errors first."""
    from pytest_ftloop.cli import github
    from pytest_ftloop.report.escape import visible

    if not github.in_actions(env):
        return []
    loops = [section for section in summary.loops if not (stale_ok and section.stale)]
    problems = [problem for section in loops for problem in _problems(section)]
    return [
        github.annotation(
            level,
            message,
            file=github.in_workspace(section.source, env),
            line=line,
            title=f"{visible(section.loop)}: {title}",
        )
        for wanted in ("error", "warning")
        for section, level, line, title, message in problems
        if level == wanted
    ]


def _problems(section: LoopSection) -> Iterator[tuple[LoopSection, str, int | None, str, str]]:
    """What to annotate of a loop: section, level, line, title and message of each problem."""
    from pytest_ftloop.report.escape import visible
    from pytest_ftloop.report.gate_changes import by_the_old
    from pytest_ftloop.report.pull_request import LABELS, loosened_gates

    if section.error:
        message = "\n".join(map(visible, section.error.split("\n")))
        yield section, "error", None, LABELS[section.outcome], message
    for verdict in section.verdicts:
        doubtful = verdict.kind not in {"unchanged", "improved"} and verdict.baseline is not None
        if not verdict.ok or doubtful:
            against = f" against {verdict.against}" if verdict.against else ""
            message = visible(f"{verdict.gate}{against}: {verdict.because}")
            level = "warning" if verdict.ok else "error"
            yield section, level, verdict.line, verdict.kind, message
    for threshold in section.thresholds:
        if not threshold.passed:
            title = LABELS["failed"]
            yield section, "error", threshold.line, title, visible(threshold.message)
    if section.gate_changes.loosened:
        loosened = [change for change in section.gate_changes.changes if change.loosened]
        said = [
            f"{each.name}: {each.before} -> {each.after}"
            + (f" ({old})" if (old := by_the_old(each.held, each.figure)) else "")
            for each in loosened[:10]
        ]
        message = visible("; ".join(filter(None, [section.gate_changes.unknown, *said])))
        yield section, "warning", None, f"{loosened_gates([section])} loosened", message


COMMAND = Command(
    "ci",
    "judge, train and report in a pipeline",
    "Judge every loop from its log, as ftloop gate does, and write a report for reviewers as\n"
    "JSON, Markdown and HTML; in a GitHub workflow also the job's summary, outputs and\n"
    "annotations. With --train, train the loops whose log is out of date first.\n"
    "Exit code: 0 all gates hold, 1 a gate failed, the model regressed, or nothing judges a log\n"
    "of the base any more, 2 an error in usage or config, 3 the log is out of date, incomplete or\n"
    "damaged.",
    (
        "ftloop ci",
        "ftloop ci --train --out report examples",
        "ftloop ci --baseline main --fail-on inconclusive",
    ),
    _arguments,
    _run,
)
