"""Which groups of examples there are: by tag, expected text, length, words of the prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from pytest_ftloop.records import Example, ExampleResult

_V = TypeVar("_V", str, tuple[str, str])
Kind = Literal["tag", "label", "length", "word", "pair"]

KINDS: tuple[Kind, ...] = ("tag", "label", "length", "word", "pair")
"""The simplest first: of two names for the same examples it is preferred."""

SUPPORT = 5
"""Examples that a group has at least; and that it leaves out, which it is compared with."""

MOST_LABELS = 100
"""Expected texts are labels where there are no more of them, and each has `SUPPORT` on average."""

QUANTILES = (0.1, 0.25)
"""The shortest and the longest texts that are groups, as shares of all."""

SHOWN = 40
"""Characters of a user's text in a group's name."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True)
class Traits:
    """What an example can be grouped by."""

    tags: tuple[str, ...]
    expected: str
    words: tuple[str, ...]

    @classmethod
    def of_result(cls, result: ExampleResult, example: Example | None) -> Traits:
        """Those of an eval example; without the example itself its prompt is not known."""
        return cls(result.tags, result.expected, words_of(example) if example else ())

    @classmethod
    def of_example(cls, example: Example) -> Traits:
        """Those of any example."""
        return cls(example.tags, (example.expected or "").strip(), words_of(example))


@dataclass(frozen=True)
class Group:
    """Examples that share something; `holds` says which, `name` what it is called."""

    kind: Kind
    name: str
    holds: Callable[[Traits], bool]


@dataclass(frozen=True)
class Members:
    """A group, and the places of its members among the examples asked about."""

    group: Group
    places: tuple[int, ...]


def words_of(example: Example) -> tuple[str, ...]:
    """The words of its prompt in lower case; of its text where it has no prompt."""
    text = example.prompt if example.prompt is not None else example.row.get("text")
    return tuple(_WORD.findall(text.lower())) if isinstance(text, str) else ()


def groups_of(traits: Sequence[Traits]) -> list[list[Members]]:
    """All groups of these examples with `SUPPORT`, those of equal members together.

    In order of `KINDS`, then of their names; so the first of equals is the simplest.
    """
    equals: dict[tuple[int, ...], list[Members]] = {}
    for find in (_tags, _labels, _lengths, _words, _pairs):
        for found in find(traits):
            if SUPPORT <= len(found.places) <= len(traits) - SUPPORT:
                equals.setdefault(found.places, []).append(found)
    return list(equals.values())


def has_labels(expected: Sequence[str], least: int = 2) -> bool:
    """Whether expected texts are a few that repeat, at least so many."""
    different = len(set(expected))
    return least <= different <= min(MOST_LABELS, len(expected) // SUPPORT)


def short(text: str) -> str:
    """A user's text in one short line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 3] + "..."


def _tags(traits: Sequence[Traits]) -> Iterator[Members]:
    for tag, places in _places(t.tags for t in traits):
        yield Members(Group("tag", f"tagged '{short(tag)}'", _in_tags(tag)), places)


def _labels(traits: Sequence[Traits]) -> Iterator[Members]:
    # Of two labels, one that fails says only to which the model leans: a confusion tells that.
    if not has_labels([t.expected for t in traits], least=3):
        return
    for label, places in _places((t.expected,) for t in traits):
        yield Members(Group("label", f"that expect '{short(label)}'", _expects(label)), places)


def _words(traits: Sequence[Traits]) -> Iterator[Members]:
    for word, places in _places(t.words for t in traits):
        yield Members(Group("word", f"with the word '{short(word)}'", _in_words(word)), places)


def _pairs(traits: Sequence[Traits]) -> Iterator[Members]:
    for pair, places in _places(pairwise(t.words) for t in traits):
        name = f"with the words '{short(' '.join(pair))}'"
        yield Members(Group("pair", name, _in_pairs(pair)), places)


def _lengths(traits: Sequence[Traits]) -> Iterator[Members]:
    yield from _by_length(traits, "prompts", lambda t: len(t.words))
    if not has_labels([t.expected for t in traits]):
        yield from _by_length(traits, "expected texts", lambda t: len(t.expected.split()))


def _by_length(
    traits: Sequence[Traits], of_what: str, length: Callable[[Traits], int]
) -> Iterator[Members]:
    lengths = sorted(length(t) for t in traits)
    for share in QUANTILES:
        place = int(share * len(lengths))
        most, least = lengths[place], lengths[-1 - place]
        bounds = (
            (f"with {of_what} of up to {most} words", _at_most(length, most)),
            (f"with {of_what} of {least} words or more", _at_least(length, least)),
        )
        for name, holds in bounds:
            places = tuple(n for n, t in enumerate(traits) if holds(t))
            yield Members(Group("length", name, holds), places)


def _places(values: Iterable[Iterable[_V]]) -> list[tuple[_V, tuple[int, ...]]]:
    """Where each value occurs, of those that `SUPPORT` examples have; in the values' order."""
    found: dict[_V, list[int]] = {}
    for place, several in enumerate(values):
        for value in dict.fromkeys(several):
            found.setdefault(value, []).append(place)
    enough = sorted(value for value, places in found.items() if len(places) >= SUPPORT)
    return [(value, tuple(found[value])) for value in enough]


def _in_tags(tag: str) -> Callable[[Traits], bool]:
    return lambda traits: tag in traits.tags


def _expects(label: str) -> Callable[[Traits], bool]:
    return lambda traits: traits.expected == label


def _in_words(word: str) -> Callable[[Traits], bool]:
    return lambda traits: word in traits.words


def _in_pairs(pair: tuple[str, str]) -> Callable[[Traits], bool]:
    return lambda traits: pair in pairwise(traits.words)


def _at_most(length: Callable[[Traits], int], most: int) -> Callable[[Traits], bool]:
    return lambda traits: length(traits) <= most


def _at_least(length: Callable[[Traits], int], least: int) -> Callable[[Traits], bool]:
    return lambda traits: length(traits) >= least
