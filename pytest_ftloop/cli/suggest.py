"""`ftloop suggest`: print the next adjustments and their reasons, without training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    FAILED,
    HOLDS,
    Command,
    each,
    log_argument,
    report,
    terminal_width,
    where_argument,
)
from pytest_ftloop.cli.json_output import items_of, json_argument
from pytest_ftloop.core.errors import LogError, relative_path, shown_path

if TYPE_CHECKING:
    import argparse

    from pytest_ftloop.loop.workspace import Logged
    from pytest_ftloop.report.suggestion import Suggestion


def _arguments(to: argparse.ArgumentParser) -> None:
    where_argument(to)
    json_argument(to)
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.loop.workspace import find_logs
    from pytest_ftloop.report import suggestion
    from pytest_ftloop.report.as_json.items import source_of, suggest_item

    found: list[Suggestion] = []

    def one(logged: Logged) -> int:
        found.append(_suggestion(logged))
        code = FAILED if found[-1].faults else HOLDS
        items.add(lambda: suggest_item(found[-1], source_of(logged), code))
        return code

    with items_of("suggest", wanted=arguments.json) as items:
        logs = find_logs(arguments.path, arguments.log, report)
        codes = list(each(logs, one, lambda logged, error: items.failed(source_of(logged), error)))
    if found and not arguments.json:
        print("\n\n".join(suggestion.as_text(of, terminal_width()) for of in found))
    return max(codes, default=HOLDS)


def _suggestion(logged: Logged) -> Suggestion:
    """What comes next by the loop file; without one, the decision logged last."""
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.report.suggestion import Suggestion

    if logged.log.view.is_empty():
        raise LogError(
            f"the log {shown_path(logged.log.folder)} is still empty, so nothing can be suggested",
            cure="pytest --ftloop trains the first iteration.",
        )
    place = shlex.quote(relative_path(logged.log.folder))
    if logged.config is None:
        last = logged.last()
        by_id = {iteration.id: iteration for iteration in logged.iterations}
        parent = by_id.get(last.decision.parent)
        decision = last.decision
        return Suggestion(last, parent, decision.next, decision.because, place=place)
    options = Options(log_folder=logged.log.folder.parent)
    # Nothing is scored here, so any function can take the place of pytest's scoring hook.
    outlook = Loop(logged.config, options, reads=True).outlook()
    return Suggestion(
        outlook.chain[-1],
        outlook.parent,
        outlook.adjustments,
        outlook.because,
        outlook.is_planned,
        place,
    )


COMMAND = Command(
    "suggest",
    "print what to change next, and why",
    "Print which settings the loop would change next, and why, from its log. Trains nothing,\n"
    "needs no torch. Exit code: 0 a suggestion, or nothing left to try; 1 a fault that no setting\n"
    "can cure; 2 the log is empty or out of date, or another error.",
    ("ftloop suggest", "ftloop suggest topic.ftloop.yaml --json"),
    _arguments,
    _run,
)
