"""What a loop reads rows from: a source or a mixture of them, guards, and the columns of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.config.sections import HubSource, PartSection


@dataclass(frozen=True)
class Mixture:
    """Several sources as one: each with the number of times that its rows are taken per epoch."""

    parts: tuple[tuple[Any, float], ...]


@dataclass(frozen=True)
class GuardSource:
    """Where a guard's rows come from. Without a `scoring` they are scored like the eval set.

    `source` is as for the eval set; it may be a live object in a loop from Python.
    """

    name: str
    source: Any
    scoring: Scoring | None = None


def sources_in(source: Any) -> tuple[Any, ...]:
    """The sources of a mixture, or the one source."""
    return tuple(part for part, _ in source.parts) if isinstance(source, Mixture) else (source,)


@dataclass(frozen=True)
class Columns:
    """The columns of a data set that hold ids, tags and text, and those kept for scorers.

    Without `id`, ids come from a column of that name if there is one, else from the content. `keep`
    are named in the loop file; `read` are those that the user's scorer reads by its source, None
    for any. `answers` holds the acceptable answers besides the expected text. `template` and
    `tools` are the arguments of the chat template for all rows that lack their own. Rows of
    `another_task`, a guard's, need not have the columns.
    """

    id: str | None = None
    tags: tuple[str, ...] = ("tags",)
    text: str = "text"
    keep: tuple[str, ...] = ()
    answers: str | None = None
    read: frozenset[str] | None = frozenset()
    another_task: bool = False
    template: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tools: list[dict[str, Any]] | None = field(default=None, hash=False)


def plain_source(source: Any) -> Any:
    """A stated source as the data room reads it."""
    if isinstance(source, HubSource):
        return source.model_dump(exclude_none=True)
    if isinstance(source, list):
        return Mixture(tuple(_part(part) for part in source))
    return source


def _part(part: Any) -> tuple[Any, float]:
    if isinstance(part, PartSection):
        return plain_source(part.source), part.weight
    return plain_source(part), 1.0
