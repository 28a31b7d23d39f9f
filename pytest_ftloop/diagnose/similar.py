"""Find texts that differ in only a few characters, among thousands in seconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

SIMILAR = 95
"""Smallest similarity of the questions of near duplicates, in percent of characters (rapidfuzz's
ratio). See `copies.near_duplicates` for its source."""

SIMILAR_ANSWERS = 90
"""Smallest similarity of their answers. Questions can be near without being duplicates, such as
`12 + 7` and `12 + 8`: then the answers differ."""

SHORTEST_SIMILAR = 20
"""Fewest characters of a question that is compared by similarity. Shorter ones must be equal, as a
single letter can be the whole difference."""

LONGEST_COMPARED = 128
"""Maximum number of characters of a question that are compared, half from its beginning and half
from its end, as the time grows with the square of the length."""


class Text(NamedTuple):
    """One example in the form that is compared."""

    id: str
    question: str
    answer: str


def can_compare() -> bool:
    """Whether rapidfuzz is installed, which is in the extra `train`."""
    return find_spec("rapidfuzz") is not None


def neighbours(asked: Sequence[Text], known: Sequence[Text]) -> list[tuple[str, str]]:
    """Find near duplicates of the asked texts among the known ones: pairs of their ids.

    Case and white space do not count. Needs rapidfuzz, see `can_compare`.
    """
    from rapidfuzz import fuzz, process

    by_length = sorted(((_compared(text.question), text) for text in known), key=_length)
    questions = [question for question, _ in by_length]
    lengths = [len(question) for question in questions]
    pairs = []
    for text in asked:
        question, answer = _compared(text.question), folded(text.answer)
        if not question:
            continue
        # Two texts can only share that many characters if their lengths are close.
        first = bisect_left(lengths, len(question) * SIMILAR / (200 - SIMILAR))
        last = bisect_right(lengths, len(question) * (200 - SIMILAR) / SIMILAR)
        near = process.extract(
            question,
            questions[first:last],
            scorer=fuzz.ratio,
            score_cutoff=SIMILAR if len(question) >= SHORTEST_SIMILAR else 100,
            limit=3,
        )
        for _, _, place in near:
            other = by_length[first + place][1]
            if fuzz.ratio(answer, folded(other.answer)) >= SIMILAR_ANSWERS:
                pairs.append((text.id, other.id))
                break
    return pairs


def folded(text: str) -> str:
    """A text in lower case, with single spaces."""
    return " ".join(text.casefold().split())


def _compared(question: str) -> str:
    text = folded(question)
    half = LONGEST_COMPARED // 2
    return text if len(text) <= LONGEST_COMPARED else text[:half] + text[-half:]


def _length(pair: tuple[str, Text]) -> int:
    return len(pair[0])
