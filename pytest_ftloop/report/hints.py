"""Commands that a report prints: each runs as printed, whether one loop is there or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import relative_path
from pytest_ftloop.loop.commands import on_log, on_loop, quoted

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


def show(result: LoopResult, iteration: int | str) -> str:
    """The command that prints one iteration in full."""
    return f"ftloop show {iteration} {on_log(result)}"


def diff(result: LoopResult, option: str = "") -> str:
    """The command that shows what changed since the baseline."""
    return on_loop(f"ftloop diff {option}".strip(), result)


def accept(result: LoopResult, iteration: int | str = "best", option: str = "") -> str:
    """The command that accepts an iteration."""
    return on_loop(f"ftloop accept {iteration}", result, option)


def calibrate(result: LoopResult) -> str:
    """The command that measures the noise of the seed."""
    return on_loop("ftloop calibrate", result)


def restore(result: LoopResult, file: str, commit: str) -> str:
    """The command that gives a data file the content that it had at a commit."""
    path = relative_path(Path(result.source).absolute().parent / file)
    return f"git checkout {commit[:12]} -- {quoted(path)}"


def retrain(result: LoopResult, option: str = "") -> str:
    """Pytest with an option that trains: this loop's tests, or all if only its log is known."""
    is_log = Path(result.source).absolute() == result.log_folder.absolute()
    where = "" if is_log else quoted(result.source)
    return " ".join(filter(None, ("pytest --ftloop", option, where)))
