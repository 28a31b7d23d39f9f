"""The processes that train one run together (ranks), as a process that computes a part sees them.

Every rank goes the same way through the same code. What each computes a part of is put together on
all of them, and what one alone may do is done by the first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Settings

T = TypeVar("T")
K = TypeVar("K")

PROCESSES = "processes"
"""The key of the settings' group `training` that holds `loop.processes`. SFTConfig has none such.
"""


class Ranks(Protocol):
    """What a rank does of the common work, and what it learns from the others.

    All ranks must call `union`, `each` and `of_first` in the same order: they wait for each other.
    """

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and scores."""

    def share(self, batches: Iterable[T]) -> Iterator[T]:
        """Those of the batches that this rank computes."""

    def union(self, found: Mapping[K, T]) -> dict[K, T]:
        """What all ranks have found of their shares."""

    def each(self, value: T) -> tuple[T, ...]:
        """The values of all ranks, in their order."""

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on the first rank; the others do not call it."""


class Alone:
    """The only process of a run."""

    is_first = True

    def share(self, batches: Iterable[T]) -> Iterator[T]:
        """All of them."""
        return iter(batches)

    def union(self, found: Mapping[K, T]) -> dict[K, T]:
        """What was found."""
        return dict(found)

    def each(self, value: T) -> tuple[T, ...]:
        """The one value."""
        return (value,)

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` gives."""
        return make()


ALONE = Alone()


def every(batches: Iterable[T], number: int, count: int) -> Iterator[T]:
    """Every `count`-th batch from the one of this number on.

    Where the batches are sorted by length, all ranks have about as much to do.
    """
    return islice(batches, number, None, count)


def rank_of(environ: Mapping[str, str] = os.environ) -> int:
    """The number of this process among the ranks, as its launcher gives it; 0 without one."""
    return _number(environ.get("RANK"), 0)


def ranks_in(environ: Mapping[str, str] = os.environ) -> int:
    """The number of ranks that a launcher has started, of which this process is one; or 1."""
    return max(1, _number(environ.get("WORLD_SIZE"), 1))


def are_on_one_machine(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether all ranks are on this machine, as torchrun and accelerate say."""
    return _number(environ.get("LOCAL_WORLD_SIZE"), ranks_in(environ)) == ranks_in(environ)


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def with_processes(settings: Settings, count: int) -> Settings:
    """The settings with the number of processes that train a run, which multiplies the batch.

    One process is left out, as in the logs of loops that know of no other number.
    """
    if count == 1:
        return settings
    return replace(settings, training={**settings.training, PROCESSES: count})


def processes_of(settings: Settings) -> int:
    """The number of processes that train a run of these settings."""
    return int(settings.training.get(PROCESSES, 1))
