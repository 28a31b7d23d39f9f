"""Commands that a report prints: each runs as printed, whether one loop is there or several."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.loop_yaml import SUFFIXES
from pytest_ftloop.log import FOLDER
from pytest_ftloop.report.escape import visible

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


def show(result: LoopResult, iteration: int | str) -> str:
    """The command that prints one iteration in full."""
    return f"ftloop show {iteration} {_log(result)}"


def diff(result: LoopResult, option: str = "") -> str:
    """The command that shows what changed since the baseline."""
    return _of_loop(f"ftloop diff {option}".strip(), result)


def accept(result: LoopResult, iteration: int | str = "best", option: str = "") -> str:
    """The command that accepts an iteration."""
    return _of_loop(f"ftloop accept {iteration}", result, option)


def calibrate(result: LoopResult) -> str:
    """The command that measures the noise of the seed."""
    return _of_loop("ftloop calibrate", result)


def retrain(result: LoopResult, option: str = "") -> str:
    """Pytest with an option that trains: this loop's tests, or all if only its log is known."""
    is_log = Path(result.source).absolute() == result.log_folder.absolute()
    where = "" if is_log else _quoted(result.source)
    return " ".join(filter(None, ("pytest --ftloop", option, where)))


def relative(path: Path, cwd: Path | None = None) -> str:
    """A path as it can be typed in the working folder."""
    try:
        return Path(os.path.relpath(path, cwd or Path.cwd())).as_posix()
    except ValueError:  # on another drive of Windows
        return path.as_posix()


def _of_loop(command: str, result: LoopResult, option: str = "") -> str:
    """A command on the loop file; on the log of a loop that is made in Python."""
    where = _quoted(result.source) if result.source.endswith(SUFFIXES) else _log(result)
    parts = [command, where, option]
    beside = Path(result.source).absolute().parent / FOLDER
    if result.source.endswith(SUFFIXES) and result.log_folder.absolute().parent != beside:
        parts.append(f"--log {_quoted(relative(result.log_folder.parent))}")
    return " ".join(filter(None, parts))


def _log(result: LoopResult) -> str:
    return _quoted(relative(result.log_folder))


def _quoted(path: str) -> str:
    return visible(shlex.quote(path))
