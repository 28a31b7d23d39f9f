"""`ftloop export`: write an iteration's adapter as a standard PEFT folder with a model card."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import (
    FAILED,
    HOLDS,
    Command,
    iteration_argument,
    log_argument,
    report,
    terminal_width,
    where_argument,
)
from pytest_ftloop.core.errors import ConfigError, shown_path

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.log import LogView
    from pytest_ftloop.loop.checked_export import Checked
    from pytest_ftloop.loop.workspace import Logged
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
    to.add_argument(
        "--check",
        action="store_true",
        help="load the export as its user would, measure it on the eval set and compare it with "
        "the log; an export that exists is checked as it is; needs torch",
    )
    to.add_argument(
        "--check-endpoint",
        metavar="URL",
        help="write nothing; ask the eval set's prompts to an OpenAI-compatible endpoint that "
        "serves the export (http://host:8000/v1) and compare its answers with the log; its key is "
        "read from the environment variable FTLOOP_API_KEY",
    )
    to.add_argument(
        "--endpoint-model",
        metavar="NAME",
        help="the name of the model at the endpoint, if it serves several",
    )
    to.add_argument(
        "--tolerance",
        type=_share,
        metavar="SHARE",
        help="share of the examples that may flip, such as 0.02 or 2%% (default: 0 if all is fp32 "
        "as in training, else 5%%)",
    )
    to.add_argument(
        "--loss-tolerance",
        type=_nats,
        metavar="NATS",
        help="how far an example's loss per token may be from the log (default: 0.001 if all is "
        "fp32 as in training, else 0.1)",
    )
    log_argument(to)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_ftloop.cli.run import screen_progress
    from pytest_ftloop.cli.show import chosen
    from pytest_ftloop.loop.doubts import doubts
    from pytest_ftloop.loop.workspace import find_logs
    from pytest_ftloop.report.escape import visible
    from pytest_ftloop.train.export import CONFIG, export

    wanted, path = arguments.iteration, arguments.path
    if path == Path() and Path(wanted).exists():  # `ftloop export examples/quickstart`
        wanted, path = "best", Path(wanted)
    iteration, logged = chosen(wanted, find_logs(path, arguments.log, report))
    checks = arguments.check or bool(arguments.check_endpoint)
    _check_options(arguments, checks)
    warnings = tuple(doubts(iteration, logged))
    for warning in warnings:
        print(f"warning: iteration {iteration.name}: {visible(warning)}", file=sys.stderr)
    folder = arguments.output or Path(f"{iteration.loop}-{iteration.name}")
    is_written = arguments.check and not arguments.force and (folder / CONFIG).is_file()
    if not (is_written or (arguments.check_endpoint and not arguments.check)):
        done = export(
            iteration,
            folder,
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
    return _checked(iteration, logged, folder, arguments) if checks else HOLDS


def _check_options(arguments: argparse.Namespace, checks: bool) -> None:
    """Raise `ConfigError` for options that would have no effect."""
    for option in ("tolerance", "loss_tolerance"):
        if getattr(arguments, option) is not None and not checks:
            name = option.replace("_", "-")
            raise ConfigError(f"--{name} is for --check and --check-endpoint")
    if arguments.endpoint_model and not arguments.check_endpoint:
        raise ConfigError("--endpoint-model is for --check-endpoint URL")
    if arguments.merged and arguments.check_endpoint and not arguments.check:
        raise ConfigError("--check-endpoint alone writes nothing: --merged needs --check beside it")


def _checked(
    iteration: Iteration, logged: Logged, folder: Path, arguments: argparse.Namespace
) -> int:
    """Check the folder, the endpoint or both, and print what was found."""
    from pytest_ftloop.cli.run import screen_progress
    from pytest_ftloop.core.endpoint import endpoint_at
    from pytest_ftloop.loop.checked_export import Recheck, Stated, check_endpoint, check_folder
    from pytest_ftloop.report.checked import check_lines
    from pytest_ftloop.report.escape import visible
    from pytest_ftloop.train.export import MERGED

    rechecks = Recheck.all_of(iteration, logged)
    for note in dict.fromkeys(note for recheck in rechecks for note in recheck.notes):
        print(f"note: {visible(note)}")
    stated = Stated(arguments.tolerance, arguments.loss_tolerance)
    progress, codes = screen_progress(), [HOLDS]

    def show(checked: Checked) -> None:
        print("\n".join(check_lines(checked, terminal_width())), flush=True)
        codes.append(FAILED if checked.problems else HOLDS)

    if arguments.check:
        for recheck in rechecks:
            show(check_folder(iteration, recheck, folder, progress, stated))
        if arguments.merged or (folder / MERGED).is_dir():
            merged = folder / MERGED
            for recheck in rechecks:
                show(check_folder(iteration, recheck, merged, progress, stated, merged=True))
    if arguments.check_endpoint:
        endpoint = endpoint_at(arguments.check_endpoint, arguments.endpoint_model)
        for recheck in rechecks:
            if not recheck.guard or recheck.is_asked:
                show(check_endpoint(endpoint, recheck, progress, stated))
    return max(codes)


def _share(text: str) -> float:
    """Parse a share of the examples: `0.02` or `2%`."""
    stated = text.strip()
    try:
        share = float(stated.removesuffix("%")) / (100 if stated.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"wanted a share such as 0.02 or 2%, found {text!r}")
    return share


def _nats(text: str) -> float:
    """Parse a difference of losses, 0 or more."""
    try:
        nats = float(text)
    except ValueError:
        nats = math.nan
    if not (nats >= 0 and math.isfinite(nats)):
        raise argparse.ArgumentTypeError(f"wanted nats per token, 0 or more, found {text!r}")
    return nats


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
    "that is out of date or fails a gate it prints a warning, and the card begins with it.\n"
    "With --check or --check-endpoint, exit code 1: the export is not what the log says.",
    (
        "ftloop export",
        "ftloop export 3 topic.ftloop.yaml -o adapters/topic",
        "ftloop export best --merged --check",
        "ftloop export best --check-endpoint http://localhost:8000/v1",
    ),
    _arguments,
    _run,
)
