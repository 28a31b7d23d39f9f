"""How far two texts overlap: F1 over words, and ROUGE by the package rouge-score."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable

from pytest_ftloop.core.errors import ConfigError, Location

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words(text: str) -> list[str]:
    """The words that the F1 compares, as SQuAD's evaluation script takes them.

    In small letters, without ASCII punctuation and English articles, between white space.
    """
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def f1(wanted: str, found: str) -> float:
    """The F1 over words, from 0 to 1: that of SQuAD (Rajpurkar et al. 2016).

    Where either text has no words, 1 if neither has any, else 0, as for SQuAD 2.0.
    """
    right, said = words(wanted), words(found)
    if not right or not said:
        return float(right == said)
    return 2 * (Counter(right) & Counter(said)).total() / (len(right) + len(said))


def rouge(kind: str, where: Location | None) -> Callable[[str, str], float]:
    """The F-measure of a kind of ROUGE, as a function of the wanted and the found text.

    Raises `ConfigError` if the package is missing. It is imported now, which takes a second.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError(
            f"the scorer 'rouge' needs the package rouge-score: {error.name or error} is missing",
            where=where,
            cure='pip install "pytest-ftloop[rouge]"',
        ) from None
    scorer = RougeScorer([kind])
    return lambda wanted, found: float(scorer.score(wanted, found)[kind].fmeasure)
