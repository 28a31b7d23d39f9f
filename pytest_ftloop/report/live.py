"""Progress on a terminal: one line redrawn in place, and messages that stay above it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.report.escape import one_line, shorten, visible
from pytest_ftloop.report.text import found_lines, progress_line

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding

EVERY_S = 0.1
"""Least seconds between two redraws: a training step may take only a millisecond."""

BEAT_S = 60.0
"""Seconds between two lines in a log that can't be redrawn. CI systems end jobs that stay silent
for ten minutes."""

CLEAR = "\r\x1b[2K"


class LiveLine:
    """A `Progress` that redraws one line. `write` must reach the terminal even during capture.

    `under` returns the earlier content of the line, which `done` restores.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        width: int,
        clock: Callable[[], float] = time.monotonic,
        under: Callable[[], str] = lambda: "",
    ) -> None:
        self._write, self._width, self._clock, self._under = write, width, clock, under
        self._drawn_at: float | None = None
        self._loop, self._number, self._of = "", 0, 0
        self._began = clock()

    def iteration(self, loop: str, number: int, of: int) -> None:
        """Remember the current iteration."""
        self._loop, self._number, self._of = loop, number, of
        self._began = self._clock()

    def step(self, step: int, steps: int, loss: float) -> None:
        """Draw a training step and the time left."""
        if step == 1:
            self._began = self._clock()
        self._draw(
            progress_line(
                self._loop,
                self._number,
                self._of,
                step=step,
                steps=steps,
                loss=loss,
                elapsed_s=self._clock() - self._began,
                width=self._width - 1,
            )
        )

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Draw work other than training."""
        share = f" {done}/{of}" if of else ""
        where = f"{self._loop}  iteration {self._number}/{self._of}  " if self._number else ""
        self._draw(shorten(f"{where}{what}{share}", self._width - 1), always=done in (0, of))

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Draw what all workers are doing."""
        self._draw(_workers_line(loop, at_work, waiting, self._width - 1))

    def done(self) -> None:
        """Clear the line, and restore its earlier content."""
        if self._drawn_at is not None:
            self._write(CLEAR + self._under())
            self._drawn_at = None

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Write messages that stay, above the line that is redrawn."""
        if lines := found_lines(loop, findings, self._width):
            self._write(CLEAR + "".join(f"{line}\n" for line in lines) + self._under())
            self._drawn_at = None

    def _draw(self, line: str, *, always: bool = False) -> None:
        now = self._clock()
        if always or self._drawn_at is None or now - self._drawn_at >= EVERY_S:
            self._drawn_at = now
            self._write(CLEAR + line)


class StayingLines(Silent):
    """A `Progress` for a file or a CI log, where lines can't be redrawn: messages only.

    While workers train, a line now and then says what they are doing.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        width: int,
        under: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._width, self._under, self._clock = write, width, under, clock
        self._beat_at = clock()

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Write a line every `BEAT_S`."""
        if at_work and self._clock() - self._beat_at >= BEAT_S:
            self._beat_at = self._clock()
            self._stay([_workers_line(loop, at_work, waiting, self._width)])

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Write the messages on lines of their own, then the interrupted line again."""
        if lines := found_lines(loop, findings, self._width):
            self._stay(lines)

    def _stay(self, lines: Sequence[str]) -> None:
        before = self._under()
        start = "\n" if before else ""
        self._write(start + "".join(f"{line}\n" for line in lines) + before)


def _workers_line(
    loop: str, at_work: Sequence[tuple[str, str]], waiting: int, width: int = 80
) -> str:
    """`sentiment  2 at once  seed 43: 120/400 loss 1.234  seed 44: preparing  (3 waiting)`."""
    name = one_line(loop, max(width // 3, 8))
    parts = [f"{visible(label)}: {visible(now)}" for label, now in at_work]
    queued = f"({waiting} waiting)" if waiting else ""
    return shorten("  ".join(filter(None, [name, f"{len(parts)} at once", *parts, queued])), width)
