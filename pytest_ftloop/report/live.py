"""The live line of a terminal: what is under way, redrawn in place; and lines that stay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.report.escape import shorten
from pytest_ftloop.report.text import found_lines, progress_line

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding

EVERY_S = 0.1
"""Seconds between two redraws; a training step may take a millisecond."""

CLEAR = "\r\x1b[2K"


class LiveLine:
    """A `Progress` that redraws one line. `write` must reach the terminal past any capture.

    `under` gives what stood on the line before: `done` puts it back.
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
        """Note which iteration is under way."""
        self._loop, self._number, self._of = loop, number, of
        self._began = self._clock()

    def step(self, step: int, steps: int, loss: float) -> None:
        """Draw a training step with the time it leaves."""
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
        """Draw any other work."""
        share = f" {done}/{of}" if of else ""
        where = f"{self._loop}  iteration {self._number}/{self._of}  " if self._number else ""
        self._draw(shorten(f"{where}{what}{share}", self._width - 1), always=done in (0, of))

    def done(self) -> None:
        """Take the line away."""
        if self._drawn_at is not None:
            self._write(CLEAR + self._under())
            self._drawn_at = None

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Write lines that stay, above the one that is redrawn."""
        if lines := found_lines(loop, findings, self._width):
            self._write(CLEAR + "".join(f"{line}\n" for line in lines) + self._under())
            self._drawn_at = None

    def _draw(self, line: str, *, always: bool = False) -> None:
        now = self._clock()
        if always or self._drawn_at is None or now - self._drawn_at >= EVERY_S:
            self._drawn_at = now
            self._write(CLEAR + line)


class StayingLines(Silent):
    """A `Progress` for a file or a CI log, where no line can be redrawn: only those that stay."""

    def __init__(
        self, write: Callable[[str], None], width: int, under: Callable[[], str] = lambda: ""
    ) -> None:
        self._write, self._width, self._under = write, width, under

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Write below what stands on the line, which goes on after it."""
        if lines := found_lines(loop, findings, self._width):
            before = self._under()
            start = "\n" if before else ""
            self._write(start + "".join(f"{line}\n" for line in lines) + before)
