"""`ftloop diff`: print on one screen what a candidate changed, for a reviewer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command, each, terminal_width
from pytest_ftloop.cli.commits import candidates, commit_arguments
from pytest_ftloop.cli.json_output import items_of
from pytest_ftloop.core.errors import FtloopError, LogError, shown_path

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from pytest_ftloop.gate.difference import Difference
    from pytest_ftloop.loop.result import LoopResult


def _arguments(to: argparse.ArgumentParser) -> None:
    commit_arguments(to)
    to.add_argument(
        "--format", choices=("json", "markdown", "text"), default="text", help="(default: text)"
    )
    to.add_argument(
        "--json", action="store_const", dest="format", const="json", help="as --format json"
    )
    to.add_argument("--all", action="store_true", help="show every fixed and broken example")


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.config.gates import DEFAULT_REGRESSION
    from pytest_ftloop.loop.replay import replay
    from pytest_ftloop.report import diff as report
    from pytest_ftloop.report.as_json.items import diff_item

    found: list[Difference] = []
    done: list[LoopResult | Path] = []

    def one(file: Path) -> int:
        done.append(wanted.likely_log_folder(file))
        config = wanted.read(file)
        if all(rule.tag is not None for rule in config.regressions):  # compare the whole set, too
            config = replace(config, regressions=(*config.regressions, DEFAULT_REGRESSION))
        result = replay(config, wanted.options())
        done.append(result)
        return add(shown_path(file), result)

    def rest(judged: tuple[str, LoopResult | FtloopError]) -> int:
        source, result = judged
        if isinstance(result, FtloopError):
            raise result
        return HOLDS if result.baseline is None else add(source, result)

    def add(source: str, result: LoopResult) -> int:
        found.append(_difference(result))
        items.add(lambda: diff_item(found[-1], source, HOLDS))
        return HOLDS

    is_json = arguments.format == "json"
    with items_of("diff", wanted=is_json) as items, candidates(arguments) as wanted:
        wanted.check_names()
        codes = list(each(wanted.files, one, lambda f, error: items.failed(shown_path(f), error)))
        codes += each(wanted.rest(done), rest, lambda pair, error: items.failed(pair[0], error))
        if not codes:
            wanted.check_not_empty()
    most = None if arguments.all else report.MOST_FLIPS
    if found and arguments.format == "markdown":
        print("\n\n".join(report.as_markdown(diff, most) for diff in found))
    elif found and not is_json:
        print("\n\n".join(report.as_text(diff, terminal_width(), most) for diff in found))
    return max(codes)


def _difference(result: LoopResult) -> Difference:
    from pytest_ftloop.gate.difference import difference

    verdict, baseline = result.verdict, result.baseline
    if baseline is None:
        why = "; ".join((verdict.because, *verdict.context))
        cure = "ftloop show prints the new log." if verdict.context else "Commit the log first."
        raise LogError(f"{result.loop}: {why}", cure=cure)
    changes = result.gate_changes
    return difference(baseline, result.best, verdict, result.examples, changes, result.data_changes)


COMMAND = Command(
    "diff",
    "show what changed since a commit",
    "Show what a candidate changed since the last committed version: settings, figures and which\n"
    "of their changes are significant, fixed and broken examples, findings, cost. Trains nothing.",
    ("ftloop diff", "ftloop diff main..HEAD", "ftloop diff --format markdown examples"),
    _arguments,
    _run,
)
