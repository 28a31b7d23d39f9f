"""The progress of a long run, which the plugin and the command line show."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_ftloop.core.records import Finding


class Progress(Protocol):
    """Receives progress. It is called often, so implementations limit how often they print."""

    def iteration(self, loop: str, which: str) -> None:
        """A training of `loop` begins: `iteration 2/4`, or `iteration 3, seed 44`."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """One of `steps` optimiser steps is done."""

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Other work is in progress: `done` of `of`, which is 0 if the total is unknown."""

    def ended(self, metrics: Mapping[str, float]) -> None:
        """The iteration that began last is in the log, with these figures."""

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Workers are training: for each its label and what it is doing; `waiting` more are queued.

        Called several times a second while the loop waits for one of them.
        """

    def done(self) -> None:
        """The work is finished. Nothing is shown from here on until other work begins."""

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Findings in the data or the wiring of `loop`, before its first step."""


class Silent:
    """A `Progress` that shows nothing."""

    def iteration(self, loop: str, which: str) -> None:
        """Show nothing."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Show nothing."""

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Show nothing."""

    def ended(self, metrics: Mapping[str, float]) -> None:
        """Show nothing."""

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Show nothing."""

    def done(self) -> None:
        """Show nothing."""

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Show nothing."""


class ToldOnce:
    """Passes on each finding of a loop once: all of its runs have the same ones."""

    def __init__(self, loop: str, progress: Progress) -> None:
        self._loop, self._progress = loop, progress
        self._told: list[Finding] = []

    def found(self, findings: Sequence[Finding]) -> None:
        """Pass on the findings that are new."""
        new = [finding for finding in findings if finding not in self._told]
        if new:
            self._told += new
            self._progress.found(self._loop, new)


@contextmanager
def until_done(progress: Progress) -> Iterator[None]:
    """Call `done` at the end, also after an error: the line per minute ends with its work."""
    try:
        yield
    finally:
        progress.done()
