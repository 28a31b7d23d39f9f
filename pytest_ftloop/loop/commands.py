"""Commands of one loop, as they are typed in the working folder."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.loop_yaml import SUFFIXES
from pytest_ftloop.core.errors import relative_path
from pytest_ftloop.core.printable import printable_line
from pytest_ftloop.log import FOLDER

if TYPE_CHECKING:
    from pytest_ftloop.gate.verdict import Change, Verdict
    from pytest_ftloop.loop.result import LoopResult

_BARE = re.compile(r"\bftloop (?:calibrate|accept --baseline)\b")
"""The commands that the texts of a verdict name. The log keeps these texts, without any path."""


def on_loop(command: str, result: LoopResult, option: str = "") -> str:
    """A command on the loop's file; on the log of a loop that is made in Python."""
    is_file = result.source.endswith(SUFFIXES)
    parts = [command, quoted(result.source) if is_file else on_log(result), option]
    beside = Path(result.source).absolute().parent / FOLDER
    if is_file and result.log_folder.absolute().parent != beside:
        parts.append(f"--log {quoted(relative_path(result.log_folder.parent))}")
    return " ".join(filter(None, parts))


def on_log(result: LoopResult) -> str:
    """The argument that names the loop's log."""
    return quoted(relative_path(result.log_folder))


def quoted(path: str) -> str:
    """A path as a shell reads it, on one line."""
    return printable_line(shlex.quote(path))


def with_paths(verdict: Verdict, result: LoopResult) -> Verdict:
    """The verdict with the loop's file in the commands that its texts name.

    They then run as printed where there are several loops.
    """

    def full(text: str) -> str:
        return _BARE.sub(lambda found: _full(found[0], result), text)

    def of(changes: tuple[Change, ...]) -> tuple[Change, ...]:
        return tuple(replace(change, decide=full(change.decide)) for change in changes)

    return replace(
        verdict,
        because=full(verdict.because),
        notes=tuple(map(full, verdict.notes)),
        context=tuple(map(full, verdict.context)),
        changes=of(verdict.changes),
        tags=of(verdict.tags),
        runs=of(verdict.runs),
        slide=of(verdict.slide),
    )


def _full(bare: str, result: LoopResult) -> str:
    if bare.endswith("--baseline"):
        return on_loop("ftloop accept best", result, "--baseline")
    return on_loop(bare, result)
