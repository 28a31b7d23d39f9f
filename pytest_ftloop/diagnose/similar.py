"""Texts that differ in a few characters only, found among thousands in seconds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

SIMILAR = 95
"""Percent of characters that the questions of near duplicates share (rapidfuzz's ratio)."""

SIMILAR_ANSWERS = 90
"""The same of their answers: `12 + 7` and `12 + 8` are near, but no duplicates."""

SHORTEST, LONGEST = 20, 128
"""Shorter questions must be equal, as a letter may be all of a difference. Of longer ones both
ends are compared, as the time grows with the square of the length."""


class Text(NamedTuple):
    """One example as it is compared."""

    id: str
    question: str
    answer: str


def can_compare() -> bool:
    """Whether rapidfuzz, of the extra `train`, is installed."""
    return find_spec("rapidfuzz") is not None


def neighbours(asked: Sequence[Text], known: Sequence[Text]) -> list[tuple[str, str]]:
    """The ids of each asked text that has a near duplicate among the known, and of that one.

    Case and white space do not count. It needs rapidfuzz: `can_compare`.
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
        # Two texts share so many characters only if their lengths are near to each other.
        first = bisect_left(lengths, len(question) * SIMILAR / (200 - SIMILAR))
        last = bisect_right(lengths, len(question) * (200 - SIMILAR) / SIMILAR)
        near = process.extract(
            question,
            questions[first:last],
            scorer=fuzz.ratio,
            score_cutoff=SIMILAR if len(question) >= SHORTEST else 100,
            limit=3,
        )
        for _, _, place in near:
            other = by_length[first + place][1]
            if fuzz.ratio(answer, folded(other.answer)) >= SIMILAR_ANSWERS:
                pairs.append((text.id, other.id))
                break
    return pairs


def folded(text: str) -> str:
    """A text without differences of case and white space."""
    return " ".join(text.casefold().split())


def _compared(question: str) -> str:
    text = folded(question)
    return text if len(text) <= LONGEST else text[: LONGEST // 2] + text[-LONGEST // 2 :]


def _length(pair: tuple[str, Text]) -> int:
    return len(pair[0])
