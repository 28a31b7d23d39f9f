"""`ftloop diff`: print on one screen what a candidate changed, for a reviewer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command, each, terminal_width
from pytest_ftloop.cli.commits import Candidates, candidates, commit_arguments
from pytest_ftloop.core.errors import LogError

if TYPE_CHECKING:
    import argparse

    from pytest_ftloop.gate.difference import Difference


def _arguments(to: argparse.ArgumentParser) -> None:
    commit_arguments(to)
    to.add_argument(
        "--format", choices=("json", "markdown", "text"), default="text", help="(default: text)"
    )
    to.add_argument("--all", action="store_true", help="show every fixed and broken example")


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.report import diff as report

    found: list[Difference] = []

    def one(file: Path) -> int:
        found.append(_difference(wanted, file))
        return HOLDS

    with candidates(arguments) as wanted:
        codes = list(each(wanted.files, one))
    most = None if arguments.all else report.MOST_FLIPS
    if arguments.format == "json":
        print(report.to_json([report.as_record(diff) for diff in found]))
    elif found and arguments.format == "markdown":
        print("\n\n".join(report.as_markdown(diff, most) for diff in found))
    elif found:
        print("\n\n".join(report.as_text(diff, terminal_width(), most) for diff in found))
    return max(codes)


def _difference(wanted: Candidates, file: Path) -> Difference:
    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.gate.difference import difference
    from pytest_ftloop.loop.replay import replay

    config = wanted.read(file)
    if all(rule.tag is not None for rule in config.regressions):  # compare the whole set, too
        config = replace(config, regressions=(*config.regressions, Regression()))
    result = replay(config, wanted.options())
    verdict, baseline = result.verdict, result.baseline
    if baseline is None:
        raise LogError(f"{result.loop}: {verdict.because}", cure="Commit the log first.")
    changes = result.gate_changes
    return difference(baseline, result.best, verdict, result.examples, changes)


COMMAND = Command(
    "diff",
    "show what changed since a commit",
    "Show what a candidate changed since the last committed version: settings, figures and which\n"
    "of their changes are significant, fixed and broken examples, findings, cost. Trains nothing.",
    ("ftloop diff", "ftloop diff main..HEAD", "ftloop diff --format markdown examples"),
    _arguments,
    _run,
)
