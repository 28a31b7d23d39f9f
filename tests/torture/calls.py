"""Call a command in this process or in a fork of it, and find what no command may do."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.frame import HANG, OTHER, RAW, TRACEBACK, Fault

HANG_S = 5.0
"""Seconds of this process's own time after which a command hangs: none takes a tenth of that."""

WAIT_S = 60.0
"""Seconds after which it hangs although it does nothing: on a busy machine a command waits."""

UNKNOWN = 99
"""The exit code of a fork that hangs."""


@dataclass(frozen=True)
class Done:
    """A command that was called: its exit code (None: it never ended), and what it printed."""

    arguments: tuple[str, ...]
    code: int | None
    out: str
    err: str

    @property
    def printed(self) -> str:
        """Both streams."""
        return self.out + self.err


class _HangError(BaseException):
    """The time is up; no `except Exception` in the code under test catches it."""


def _time_is_up(*_: object) -> None:
    raise _HangError


@contextlib.contextmanager
def alarm(patience: float) -> Iterator[None]:
    """Raise `_HangError` where the block works or waits longer, by so many times."""
    before = [signal.signal(of, _time_is_up) for of in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, patience * HANG_S)
    signal.setitimer(signal.ITIMER_REAL, patience * WAIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGPROF, before[0])
        signal.signal(signal.SIGALRM, before[1])


@dataclass
class _Stream:
    """What a process would have written to a pipe."""

    raw: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.text = io.TextIOWrapper(self.raw, encoding="utf-8", newline="")

    def read(self) -> str:
        self.text.flush()
        return self.raw.getvalue().decode("utf-8", "surrogateescape")


def called(arguments: Sequence[str], *, patience: float = 1.0) -> Done:
    """Call `ftloop` in this process; it may take `patience` times as long as others."""
    from pytest_ftloop.cli import main

    return _called(lambda: main(list(arguments)), arguments, patience)


def called_pytest(arguments: Sequence[str]) -> Done:
    """Call `pytest` in this process, with the plugin."""
    # Its logging keeps the stderr that it finds first, and pytest closes its own at the end: a
    # later warning would be a traceback of this harness's making.
    import huggingface_hub.utils.logging  # noqa: F401
    import pytest

    given = ["-p", "no:cacheprovider", *arguments]
    return _called(lambda: int(pytest.main(given)), ["pytest", *arguments])


def started(
    arguments: Sequence[str],
    output: Path,
    within: AbstractContextManager[object] | None = None,
    *,
    patience: float = 1.0,
) -> int:
    """Begin to call `ftloop` in a fork of this process, which prints to a file; the fork's id.

    `within` is entered in the fork alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads, from 3.12
        process = os.fork()
    if process:
        return process
    code = UNKNOWN
    try:
        with within or contextlib.nullcontext():
            done = called(arguments, patience=patience)
        output.write_text(done.printed, encoding="utf-8", errors="surrogateescape")
        code = UNKNOWN if done.code is None else done.code
    finally:
        os._exit(code)


def called_apart(
    arguments: Sequence[str],
    output: Path,
    within: AbstractContextManager[object] | None = None,
    *,
    patience: float = 1.0,
) -> Done:
    """Call `ftloop` in a fork of this process: when it is done, what it left is nobody's."""
    process = started(arguments, output, within, patience=patience)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    printed = output.read_text(encoding="utf-8", errors="surrogateescape")
    return Done(tuple(arguments), None if code == UNKNOWN else code, printed, "")


def _called(call: Callable[[], int], arguments: Sequence[str], patience: float = 1.0) -> Done:
    out, err = _Stream(), _Stream()
    code: int | None
    with contextlib.redirect_stdout(out.text), contextlib.redirect_stderr(err.text):
        try:
            with alarm(patience):
                code = call()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 2
        except _HangError:
            code = None
    return Done(tuple(arguments), code, out.read(), err.read())


def faults_of(done: Done, codes: Sequence[int] = (0, 1, 2, 3)) -> Iterator[Fault]:
    """What may never happen, whatever a command reads."""
    command = " ".join(done.arguments)
    if done.code is None:
        yield Fault(HANG, f"{command}: hung")
    if "Traceback (most recent call last)" in done.printed or "INTERNALERROR" in done.printed:
        yield Fault(TRACEBACK, f"{command}: {_last_lines(done.printed)}")
    if done.code is not None and done.code not in codes:
        yield Fault(OTHER, f"{command}: exit code {done.code}: {_last_lines(done.printed)}")
    for line in obeyed(done.printed):
        yield Fault(RAW, f"{command}: printed {line!r}")


_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}
"""Categories of characters that are obeyed rather than seen."""

_COMMANDS = re.compile(r"^\s*::|##(?:vso|teamcity)?\[")


def obeyed(text: str, *, markdown: bool = False, allowed: str = "") -> list[str]:
    """The lines in which something is obeyed by what shows them; in Markdown no command is."""
    return [
        line
        for line in text.split("\n")
        if _is_obeyed(line, allowed) or (not markdown and _COMMANDS.search(line))
    ]


def _is_obeyed(line: str, allowed: str) -> bool:
    # A report has a million characters, of which nearly every line is printable as a whole.
    return not line.isprintable() and any(
        unicodedata.category(c) in _UNSEEN and c not in allowed for c in line
    )


def _last_lines(text: str, count: int = 6) -> str:
    return " / ".join(text.strip().splitlines()[-count:])[-600:]
