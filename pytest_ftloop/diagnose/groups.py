"""Group examples by tag, expected text, length, and words of the prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

from pytest_ftloop.diagnose.words import Runs, count_words, joined, runs_of

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example, ExampleResult

_V = TypeVar("_V", str, tuple[str, str])
Kind = Literal["tag", "label", "length", "word", "pair"]

KINDS: tuple[Kind, ...] = ("tag", "label", "length", "word", "pair")
"""The kinds of group, simplest first: of two groups with the same examples the simpler is named."""

SUPPORT = 5
"""Fewest examples in a group, and fewest outside it: with fewer, no difference between the two can
be told from chance."""

MOST_LABELS = 100
"""Maximum number of different expected texts that are labels; each also occurs `SUPPORT` times on
average. More are open answers, which don't form groups."""

QUANTILES = (0.1, 0.25)
"""Shares of the examples that are the groups of the shortest, and of the longest, texts."""

MOST_WORDS, FEWEST_WORDS = 120_000, 32
"""Maximum number of words examined in the whole eval set, as the time grows with it, and the fewest
per prompt all the same. Of a longer prompt half are from its beginning and half from its end."""

SHOWN_TEXT, SHOWN_ID = 40, 70
"""Maximum number of characters of a user's text in a group's name, and of an example's id, so that
a finding stays readable."""

IDS_PER_GROUP = 3
"""Maximum number of ids that a finding names per slice or confusion, as there may be several."""


@dataclass(frozen=True)
class Traits:
    """The properties by which an example can be grouped.

    `runs` are the examined words of its prompt, in runs of neighbours; `length` counts all words.
    """

    tags: tuple[str, ...]
    expected: str
    runs: Runs = ()
    length: int = 0

    @classmethod
    def of_result(cls, result: ExampleResult, example: Example | None, most: int) -> Traits:
        """The traits of an eval example. Without the example itself its prompt is unknown."""
        prompt = example.prompt_text if example else ""
        return cls(result.tags, result.expected, runs_of(prompt, most), count_words(prompt))

    @classmethod
    def of_example(cls, example: Example, most: int) -> Traits:
        """The traits of a train example."""
        prompt, expected = example.prompt_text, (example.expected or "").strip()
        return cls(example.tags, expected, runs_of(prompt, most), count_words(prompt))

    @property
    def words(self) -> Iterator[str]:
        """The examined words."""
        return chain.from_iterable(self.runs)

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """The pairs of neighbouring words."""
        return chain.from_iterable(map(pairwise, self.runs))


@dataclass(frozen=True)
class Group:
    """Examples that share a trait. `holds` is True for those in the group."""

    kind: Kind
    name: str
    holds: Callable[[Traits], bool]


@dataclass(frozen=True)
class Members:
    """A group, and the places of its members in the list of examples."""

    group: Group
    places: tuple[int, ...]


def words_each(count: int) -> int:
    """The maximum number of words to examine per prompt, for so many prompts."""
    return max(FEWEST_WORDS, MOST_WORDS // max(count, 1))


def groups_of(traits: Sequence[Traits]) -> list[list[Members]]:
    """All groups of these examples that have `SUPPORT`; those with the same members are together.

    The order is that of `KINDS`, then of the names, so the first of those together is the simplest.
    """
    equals: dict[tuple[int, ...], list[Members]] = {}
    for find in (_tags, _labels, _lengths, _words, _pairs):
        for found in find(traits):
            if SUPPORT <= len(found.places) <= len(traits) - SUPPORT:
                equals.setdefault(found.places, []).append(found)
    return list(equals.values())


def has_labels(expected: Sequence[str], least: int = 2) -> bool:
    """Whether the expected texts are labels: a few that repeat, at least `least` different ones."""
    different = len(set(expected))
    return least <= different <= min(MOST_LABELS, len(expected) // SUPPORT)


def short(text: str, most: int = SHOWN_TEXT) -> str:
    """A user's text in one line of at most `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def listed(ids: Sequence[str], most: int) -> str:
    """The first `most` ids, each shortened: an id may be made of the example's whole content."""
    return ", ".join(short(id_, SHOWN_ID) for id_ in ids[:most])


def _tags(traits: Sequence[Traits]) -> Iterator[Members]:
    for tag, places in _places(traits, lambda t: t.tags):
        yield Members(Group("tag", f"tagged '{short(tag)}'", _in_tags(tag)), places)


def _labels(traits: Sequence[Traits]) -> Iterator[Members]:
    # With two labels, a group that fails only shows which one the model prefers; `confusion` does.
    if not has_labels([t.expected for t in traits], least=3):
        return
    for label, places in _places(traits, lambda t: (t.expected,)):
        yield Members(Group("label", f"that expect '{short(label)}'", _expects(label)), places)


def _words(traits: Sequence[Traits]) -> Iterator[Members]:
    for word, places in _places(traits, lambda t: t.words):
        yield Members(Group("word", f"with the word '{short(word)}'", _in_words(word)), places)


def _pairs(traits: Sequence[Traits]) -> Iterator[Members]:
    for pair, places in _places(traits, lambda t: t.pairs):
        name = f"with the words '{short(joined(pair))}'"
        yield Members(Group("pair", name, _in_pairs(pair)), places)


def _lengths(traits: Sequence[Traits]) -> Iterator[Members]:
    yield from _by_length(traits, "prompts", lambda t: t.length)
    if not has_labels([t.expected for t in traits]):
        yield from _by_length(traits, "expected texts", lambda t: count_words(t.expected))


def _by_length(
    traits: Sequence[Traits], of_what: str, length: Callable[[Traits], int]
) -> Iterator[Members]:
    lengths = [length(t) for t in traits]
    ordered = sorted(lengths)
    for share in QUANTILES:
        place = int(share * len(lengths))
        most, least = ordered[place], ordered[-1 - place]
        shortest = tuple(n for n, words in enumerate(lengths) if words <= most)
        longest = tuple(n for n, words in enumerate(lengths) if words >= least)
        name = f"with {of_what} of up to {most} words"
        yield Members(Group("length", name, _at_most(length, most)), shortest)
        name = f"with {of_what} of {least} words or more"
        yield Members(Group("length", name, _at_least(length, least)), longest)


def _places(
    traits: Sequence[Traits], values: Callable[[Traits], Iterable[_V]]
) -> list[tuple[_V, tuple[int, ...]]]:
    """The places of each value that at least `SUPPORT` examples have, in the values' order.

    Most pairs of words are rare, so all are counted first, and places are kept of the others only.
    """
    counts = Counter(chain.from_iterable(set(values(t)) for t in traits))
    enough = {value for value, count in counts.items() if count >= SUPPORT}
    found: dict[_V, list[int]] = {value: [] for value in enough}
    for place, t in enumerate(traits):
        for value in enough.intersection(values(t)):
            found[value].append(place)
    return [(value, tuple(found[value])) for value in sorted(enough)]


def _in_tags(tag: str) -> Callable[[Traits], bool]:
    return lambda traits: tag in traits.tags


def _expects(label: str) -> Callable[[Traits], bool]:
    return lambda traits: traits.expected == label


def _in_words(word: str) -> Callable[[Traits], bool]:
    return lambda traits: word in traits.words


def _in_pairs(pair: tuple[str, str]) -> Callable[[Traits], bool]:
    return lambda traits: pair in traits.pairs


def _at_most(length: Callable[[Traits], int], most: int) -> Callable[[Traits], bool]:
    return lambda traits: length(traits) <= most


def _at_least(length: Callable[[Traits], int], least: int) -> Callable[[Traits], bool]:
    return lambda traits: length(traits) >= least
