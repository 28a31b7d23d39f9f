"""The errors that a user can cause: what was wanted, what was found, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.credentials import HIDDEN, hidden
from pytest_ftloop.core.printable import printable, printable_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Location:
    """A place in a user's file; shown as `file:line`."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


Locate = Callable[[str], "Location | None"]
"""Where a dotted setting such as `training.learning_rate` is in the user's loop file, if it is."""


class FtloopError(Exception):
    """A mistake or condition that the user can fix. Shown as text, never as a traceback.

    `message` is what was wanted and found, `where` the place, `cure` what to do about it. All three
    may quote what strangers wrote, and messages of libraries that quote a URL: they are made
    printable, and credentials in them hidden.
    """

    def __init__(self, message: str, *, where: Location | None = None, cure: str = "") -> None:
        self.message = printable(hidden(message))
        super().__init__(self.message)
        self.where = where
        self.cure = printable(hidden(cure))

    def add(self, text: str) -> None:
        """Say more at the end of the message."""
        self.message += printable(hidden(text))
        self.args = (self.message,)

    def hide(self, *texts: str) -> None:
        """Put `***` in place of these texts, which are credentials by their names."""
        for text in texts:
            self.message = self.message.replace(text, HIDDEN)
            self.cure = self.cure.replace(text, HIDDEN)
        self.args = (self.message,)

    def __str__(self) -> str:
        place = f"{printable_line(hidden(str(self.where)))}: " if self.where else ""
        cure = f"\n  {self.cure}" if self.cure else ""
        return f"{place}{self.message}{cure}"


class ConfigError(FtloopError):
    """A loop file, or the same configuration from Python, is invalid."""


class DataError(FtloopError):
    """A data file, row or column is missing or malformed."""


class TrainingError(FtloopError):
    """trl, transformers or peft refused the settings, or an iteration could not be trained."""


class ScoringError(FtloopError):
    """A scorer raised an exception, or returned neither pass or fail nor scores."""


class EndpointError(FtloopError):
    """An endpoint can't be reached, refuses a request or answers something else."""


class LogError(FtloopError):
    """The improvement log can't be read or written."""


class DamagedLogError(LogError):
    """A file of the improvement log is not what was written; `why` says how it can be seen."""

    def __init__(self, why: str, *, where: Location, cure: str) -> None:
        super().__init__(f"damaged log file: {why}", where=where, cure=cure)
        self.why = why


class StaleLogError(LogError):
    """The log lacks what the loop file now asks for, and training was not allowed."""


_CURES = {
    errno.ENAMETOOLONG: "Use a shorter name.",
    errno.ENOSPC: "Free some disk space.",
    errno.EROFS: "It is on a read-only file system: name another place.",
    errno.EACCES: "Mend its permissions, or name another place.",
}
"""What to do about an error of the system."""


@contextmanager
def system_errors_told() -> Iterator[None]:
    """Raise an `FtloopError` for an error of the system about a file: it is missing, the disk full.

    This is for errors that have no better message where they occur. A broken pipe is raised as it
    is: nobody reads the output any more.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or isinstance(error, BrokenPipeError):
            raise
        name = os.fsdecode(error.filename)
        raise FtloopError(
            error.strerror or type(error).__name__,
            where=Location(name if len(name) <= 120 else f"{name[:60]}...{name[-40:]}"),
            cure=_CURES.get(error.errno or 0, ""),
        ) from error


def wants_traceback() -> bool:
    """Whether the user asks to see where an error was raised: FTLOOP_TRACEBACK=1."""
    return os.environ.get("FTLOOP_TRACEBACK", "") not in ("", "0")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'?`, or the valid names, the most similar first."""
    names = sorted(known)
    alike = {name: _likeness(word, name) for name in names}
    names.sort(key=lambda name: -alike[name])
    if names and alike[names[0]] >= 0.6:
        return f"Did you mean {names[0]!r}?"
    few = names if len(names) <= 12 else names[:6]
    shown = ", ".join(few) + (", ..." if few is not names else "")
    return f"Valid names: {shown}."


def _likeness(word: str, name: str) -> float:
    """How alike two names are, from 0 to 1, whatever their case and the signs between words."""
    plain, other = (re.sub(r"[-_ .]", "", text).lower() for text in (word, name))
    return SequenceMatcher(None, other, plain).ratio()


def shown_path(path: Path) -> str:
    """A path as the user would type it: relative to the working folder if it is below that."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()


def relative_path(path: Path, cwd: Path | None = None) -> str:
    """A path as it can be typed in the working folder, also if it is above that."""
    try:
        return Path(os.path.relpath(path, cwd or Path.cwd())).as_posix()
    except ValueError:  # on another drive of Windows
        return path.as_posix()
