"""Progress on a terminal: one line redrawn in place, and messages that stay above it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_ftloop.report import heartbeat
from pytest_ftloop.report.escape import shorten
from pytest_ftloop.report.progress_text import progress_line
from pytest_ftloop.report.text import found_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ftloop.core.records import Finding

EVERY_S = 0.1
"""Least seconds between two redraws: a training step may take only a millisecond."""

CLEAR = "\r\x1b[2K"


class _Pace:
    """The time since the first step of a training, which is a later one if it was interrupted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._first_step = clock, clock()
        self._is_new = True
        self.before = 0

    def begin(self) -> None:
        """Take the next step for the first one."""
        self._is_new = True

    def step(self, step: int) -> None:
        """Note a step; one that is the first again is that of another training."""
        if self._is_new or step == 1:
            self._is_new, self._first_step, self.before = False, self._clock(), step - 1

    def elapsed_s(self) -> float:
        return self._clock() - self._first_step


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
        self._loop, self._which = "", ""
        self._pace = _Pace(clock)

    def iteration(self, loop: str, which: str) -> None:
        """Remember the current iteration."""
        self._loop, self._which = loop, which
        self._pace.begin()

    def step(self, step: int, steps: int, loss: float) -> None:
        """Draw a training step and the time left."""
        self._pace.step(step)
        self._draw(
            progress_line(
                self._loop,
                self._which,
                step=step,
                steps=steps,
                loss=loss,
                elapsed_s=self._pace.elapsed_s(),
                width=self._width - 1,
                before=self._pace.before,
            )
        )

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Draw work other than training."""
        share = f" {done}/{of}" if of else ""
        where = f"{self._loop}  {self._which}  " if self._which else ""
        self._draw(shorten(f"{where}{what}{share}", self._width - 1), always=done in (0, of))

    def ended(self, metrics: Mapping[str, float]) -> None:
        """Show nothing: the next redraw says what is done now."""

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Draw what all workers are doing."""
        self._draw(heartbeat.workers_line(loop, at_work, waiting, self._width - 1))

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


class StayingLines:
    """A `Progress` for a file or a CI log, where lines can't be redrawn.

    An iteration has a line when it begins and one when it ends. While work is in progress, a line
    a minute says how far it is: from a thread, since a download or an import reports nothing
    meanwhile. `done` ends the thread. `under` returns the unfinished line, which is written again.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        width: int,
        under: Callable[[], str] = lambda: "",
        *,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = heartbeat.EVERY_S,
    ) -> None:
        self._write, self._width, self._under = write, width, under
        self._clock, self._every_s = clock, every_s
        self._lock = threading.Lock()
        self._end: threading.Event | None = None
        self._is_below = False
        self._loop, self._which = "", ""
        self._began = clock()
        self._now: Callable[[], str] | None = None
        self._since = clock()
        self._pace = _Pace(clock)
        self._what = ""

    def iteration(self, loop: str, which: str) -> None:
        """Say that an iteration begins."""
        self._loop, self._which = loop, which
        self._began = self._since = self._clock()
        self._pace.begin()
        self._lines([heartbeat.began_line(loop, which)])
        self._beats()

    def step(self, step: int, steps: int, loss: float) -> None:
        """Remember the step for the next line."""
        self._pace.step(step)
        self._what = ""
        loop, which, pace = self._loop, self._which, self._pace
        self._now = lambda: heartbeat.step_line(
            loop, which, step, steps, loss, pace.elapsed_s(), pace.before
        )
        self._beats()

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Remember the work for the next line."""
        if what != self._what:
            self._what, self._since = what, self._clock()
        self._now = lambda: heartbeat.working_line(
            self._loop, what, done, of, self._clock() - self._since
        )
        self._beats()

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Remember what the workers do for the next line."""
        if at_work:
            self._now = lambda: heartbeat.workers_line(loop, at_work, waiting, heartbeat.WIDE)
            self._beats()

    def ended(self, metrics: Mapping[str, float]) -> None:
        """Say that the iteration is in the log, with its figures; nothing if none began."""
        if not self._which:
            return
        seconds = self._clock() - self._began
        self._now = None  # the last step, or evaluation, is over
        self._lines([heartbeat.ended_line(self._loop, self._which, metrics, seconds)])
        self._which = ""

    def done(self) -> None:
        """End the lines of every minute, and write the line again that had begun before them."""
        with self._lock:
            end, self._end, self._now = self._end, None, None
            if self._is_below:
                self._is_below = False
                if before := self._under():
                    self._write(before)
        if end is not None:
            end.set()

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Write the messages on lines of their own."""
        self._lines(found_lines(loop, findings, self._width))

    def tell(self) -> None:
        """Say now how far the work is."""
        with self._lock:
            if self._now is not None:
                self._put([self._now()])

    def _beats(self) -> None:
        """Start the thread, unless it runs."""
        if self._end is None:
            self._end = threading.Event()
            threading.Thread(target=self._beat, args=(self._end,), daemon=True).start()

    def _beat(self, end: threading.Event) -> None:
        while not end.wait(self._every_s):
            self.tell()

    def _lines(self, lines: Sequence[str]) -> None:
        with self._lock:
            self._put(lines)

    def _put(self, lines: Sequence[str]) -> None:
        """Write lines below the line that had begun, which `done` writes again."""
        if lines:
            start = "\n" if self._under() and not self._is_below else ""
            self._is_below = True
            self._write(start + "".join(f"{line}\n" for line in lines))
