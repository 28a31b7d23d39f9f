"""What an attempt is, and in which columns its faults count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

LOST, TRACEBACK, HANG, RAW, LEFT, OTHER = (
    "lost iterations",
    "tracebacks",
    "hangs over 5 s",
    "raw control characters",
    "leftovers",
    "other",
)
COLUMNS = (LOST, TRACEBACK, HANG, RAW, LEFT, OTHER)
"""The columns of the table, which must all be 0. `other` is what a kind checks by itself."""


@dataclass(frozen=True)
class Fault:
    """Something that may not happen: in which column it counts, and what it was."""

    column: str
    what: str


@dataclass(frozen=True)
class Attempt:
    """One attempt: what was tried, in words, and the faults that came of it."""

    what: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of torture.

    `prepare` makes what all its attempts share in an empty folder; what it returns makes one
    attempt, given its number and a random generator of its own. `attempts` are as many as a whole
    campaign has; `seconds` are about those that they take on two cores, by which kinds share time.
    """

    name: str
    attempts: int
    seconds: float
    prepare: Callable[[Path], Callable[[int, Random], Attempt]]
