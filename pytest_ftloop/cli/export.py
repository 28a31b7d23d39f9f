"""`ftloop export`: write an iteration's adapter as a standard PEFT folder with a model card."""

from __future__ import annotations

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
from pytest_ftloop.core.errors import shown_path

if TYPE_CHECKING:
    import argparse

    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.log import LogView
    from pytest_ftloop.train.export import Card
    from pytest_ftloop.train.trained_on import BaseModel


def _arguments(to: argparse.ArgumentParser) -> None:
    iteration_argument(to)
    where_argument(to)
    to.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help="the folder to write (default: ./LOOP-ITERATION)",
    )
    to.add_argument(
        "--merged",
        action="store_true",
        help="also write the base model with the adapter merged in, to FOLDER/merged; needs torch",
    )
    to.add_argument("--force", action="store_true", help="replace an existing export")
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli.run import screen_progress
    from pytest_ftloop.cli.show import chosen
    from pytest_ftloop.loop.doubts import doubts
    from pytest_ftloop.loop.workspace import find_logs
    from pytest_ftloop.report.escape import visible
    from pytest_ftloop.train.export import export

    wanted, path = arguments.iteration, arguments.path
    if path == Path() and Path(wanted).exists():  # `ftloop export examples/quickstart`
        wanted, path = "best", Path(wanted)
    iteration, logged = chosen(wanted, find_logs(path, arguments.log, report))
    warnings = tuple(doubts(iteration, logged))
    for warning in warnings:
        print(f"warning: iteration {iteration.name}: {visible(warning)}", file=sys.stderr)
    done = export(
        iteration,
        arguments.output or Path(f"{iteration.loop}-{iteration.name}"),
        screen_progress(),
        card=card_of(iteration, logged.log.view, warnings, merged=arguments.merged),
        loop_folder=logged.model_folder(),
        how_to_make=lambda: logged.how_to_make(iteration),
        merged=arguments.merged,
        trusts_code=logged.trusts(iteration),
        force=arguments.force,
    )
    what = "the adapter, the merged model" if arguments.merged else "the adapter"
    written = visible(shown_path(done.folder))
    print(f"wrote {written}: {what} and the model card of iteration {iteration.name}")
    for note in done.notes:
        print(visible(note))
    return HOLDS


def card_of(
    iteration: Iteration, view: LogView, warnings: tuple[str, ...] = (), *, merged: bool
) -> Card:
    """A function that writes the iteration's model card, with its verdicts and holdout results.

    The card begins with the warnings.
    """
    from pytest_ftloop.report.card import Facts, model_card

    def card(base: BaseModel, has_tokenizer: bool) -> str:
        facts = Facts(
            base=base.description,
            hub_id=base.hub_id,
            tokenizer=has_tokenizer,
            merged=merged,
            warnings=warnings,
            judgements=tuple(j for j in view.judgements() if j.candidate == iteration.id),
            holdout=next((u for u in view.holdout_uses() if u.iteration == iteration.id), None),
        )
        return model_card(iteration, facts)

    return card


COMMAND = Command(
    "export",
    "write an iteration's adapter as a PEFT folder with a model card",
    "Write the adapter of an iteration from this machine's cache to a folder that peft can load,\n"
    "with its tokenizer and a model card: figures, data, settings and origin. For an iteration\n"
    "that is out of date or fails a gate it prints a warning, and the card begins with it.",
    (
        "ftloop export",
        "ftloop export 3 topic.ftloop.yaml -o adapters/topic",
        "ftloop export best --merged",
    ),
    _arguments,
    _run,
)
