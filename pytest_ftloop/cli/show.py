"""`ftloop show`: print one iteration in full. `chosen` resolves ITERATION, for all commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    HOLDS,
    Command,
    can_show_blocks,
    log_argument,
    report,
    report_exposed,
    terminal_width,
    where_argument,
)
from pytest_ftloop.cli.json_output import items_of, json_argument
from pytest_ftloop.core.chain import named
from pytest_ftloop.core.errors import LogError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.loop.workspace import Logged


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "iteration",
        metavar="ITERATION",
        help="a number (3; 0 is the untrained base), an id or its first characters (3fa9), a name "
        "(003-3fa9c1d2), best or last",
    )
    where_argument(to)
    json_argument(to)
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.core.untrained import shown_base
    from pytest_ftloop.loop.workspace import find_logs
    from pytest_ftloop.report.as_json.items import show_item, source_of
    from pytest_ftloop.report.show import show_iteration

    with items_of("show", wanted=arguments.json) as items:
        logs = find_logs(arguments.path, arguments.log, report)
        if arguments.iteration == "0":
            iteration, logged = _base(logs)
        else:
            iteration, logged = chosen(arguments.iteration, logs)
        inputs = logged.inputs
        prompts = {example.id: example for example in inputs.eval.examples} if inputs else {}
        base = shown_base(logged.log.view.bases(), iteration)
        items.add(lambda: show_item(iteration, source_of(logged), HOLDS, prompts, base))
    if not arguments.json:
        blocks = can_show_blocks(sys.stdout)
        print(show_iteration(iteration, prompts, terminal_width(), unicode=blocks, base=base))
    report_exposed(logged.log)
    return HOLDS


def _base(logs: Sequence[Logged]) -> tuple[Iteration, Logged]:
    """The untrained base as iteration 0. A `LogError` if none is measured, or of several loops."""
    from pytest_ftloop.core.untrained import with_base

    found = [
        (iteration, logged)
        for logged in logs
        for iteration in with_base(logged.log.view.bases(), logged.iterations)
        if iteration.is_untrained
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LogError(
            "the untrained base is not measured", cure="The next training of the loop does so."
        )
    loops = ", ".join(base.loop for base, _ in found)
    raise LogError(
        f"iteration '0' matches {len(found)}: the base of {loops}",
        cure="Give the loop's file or log folder as PATH.",
    )


def chosen(wanted: str, logs: Sequence[Logged]) -> tuple[Iteration, Logged]:
    """The iteration that `wanted` names, with its log.

    Raises `LogError`, which lists the candidates, if it names none or several.
    """
    known = [(iteration, logged) for logged in logs for iteration in logged.iterations]
    if not known:
        raise LogError(
            "the improvement log is still empty", cure="pytest --ftloop trains the first iteration."
        )
    if wanted in ("best", "last"):
        found = [
            (logged.best() if wanted == "best" else logged.last(), logged)
            for logged in logs
            if logged.iterations
        ]
    else:
        meant = {id(i) for i in named([iteration for iteration, _ in known], wanted)}
        found = [pair for pair in known if id(pair[0]) in meant]
    if len(found) == 1:
        return found[0]
    several = len(logs) > 1
    candidates = ", ".join(
        f"{it.loop}/{it.name}" if several else it.name for it, _ in (found or known)
    )
    if not found:
        raise LogError(
            f"iteration {wanted!r} is not in the log", cure=f"Choose {candidates}, best or last."
        )
    raise LogError(
        f"iteration {wanted!r} matches {len(found)}: {candidates}",
        cure="Write more of the id, or give the loop's file or log folder as PATH.",
    )


COMMAND = Command(
    "show",
    "print one iteration in full",
    "Print one record of the improvement log in full: settings, metrics, curves, findings, every\n"
    "failing example, and the decision about what comes next.",
    ("ftloop show best", "ftloop show 3 topic.ftloop.yaml", "ftloop show 3fa9 --json"),
    _arguments,
    _run,
)
