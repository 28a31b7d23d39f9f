"""What a long run tells while it works; plugin and command line show it, tests ignore it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Finding


class Progress(Protocol):
    """Receives news of the work. Called often: implementations throttle themselves."""

    def iteration(self, loop: str, number: int, of: int) -> None:
        """Iteration `number` (1-based in this chain, at most `of`) of `loop` begins."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """One of `steps` optimiser steps is done."""

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Something else is under way: `done` of `of` (0 when the amount is unknown)."""

    def done(self) -> None:
        """Nothing is under way any more."""

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """What the data or the wiring of `loop` shows, before its first step."""


class Silent:
    """A `Progress` that shows nothing."""

    def iteration(self, loop: str, number: int, of: int) -> None:
        """Show nothing."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Show nothing."""

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Show nothing."""

    def done(self) -> None:
        """Show nothing."""

    def found(self, loop: str, findings: Sequence[Finding]) -> None:
        """Show nothing."""


class ToldOnce:
    """Tells a loop's findings, each once: its runs show the same again and again."""

    def __init__(self, loop: str, progress: Progress) -> None:
        self._loop, self._progress = loop, progress
        self._told: list[Finding] = []

    def found(self, findings: Sequence[Finding]) -> None:
        """Tell those that were not told yet."""
        new = [finding for finding in findings if finding not in self._told]
        if new:
            self._told += new
            self._progress.found(self._loop, new)
