"""What a run leaves to commit: the log's files, and the command that adds them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import relative_path
from pytest_ftloop.report.escape import columns_of, shorten, visible
from pytest_ftloop.report.ignored import ignored_lines, one_of_each_kind
from pytest_ftloop.report.phrases import plural

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_ftloop.loop.result import LoopResult


def files_to_commit(result: LoopResult) -> tuple[Path, ...]:
    """The log's files, where this run wrote an iteration; else none.

    Of a loop with regression gates also one of each kind that judging may write yet.
    """
    if not result.written:
        return ()
    judged = result.log.places(result.best) if result.log and result.regressions else ()
    return (*result.files, *judged)


def commit_lines(
    result: LoopResult,
    width: int,
    cwd: Path | None = None,
    ignored: Collection[Path] = (),
) -> list[str]:
    """The `git add` for the files that this run wrote; empty if there are none.

    It names the log's folder in place of its files where the command exceeds one line, or where the
    loop has regression gates, which write verdicts into the log. The command is never shortened.

    `git add` would refuse an ignored file, or pass over it: then the lines say what the commit
    would lack, and the command is the one that shows the rules.
    """
    files = result.files if result.written else ()
    if not files:
        return []
    here = Path.cwd() if cwd is None else cwd
    if refused := [file for file in files_to_commit(result) if file in ignored]:
        command = _command("git check-ignore -v", one_of_each_kind(refused), here)
        return ignored_lines(refused, command, width)
    command = _command("git add", files, here)
    if columns_of(command) + 2 > width or result.regressions:
        in_log = [file for file in result.files if result.log_folder in file.parents]
        others = [file for file in result.files if file not in in_log]
        command = _command("git add", [*others, *([result.log_folder] if in_log else [])], here)
    count = "" if result.regressions else f" ({plural(len(files), 'file')})"
    return [shorten(f"to commit{count}:", width), f"  {command}"]


def _command(start: str, paths: Sequence[Path], cwd: Path) -> str:
    return visible(" ".join([start, *(shlex.quote(relative_path(path, cwd)) for path in paths)]))
