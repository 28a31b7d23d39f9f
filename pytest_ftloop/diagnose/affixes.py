"""Find what a template adds to texts: the beginning and the end that nearly all of them share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

TEMPLATE_SHARE = 0.95
"""Share of the texts that must have an affix in common for it to count as the template's. Not all,
as a few rows are often written otherwise."""

_SENTENCE_MARKS = ".,;!?'\"()…"
_WORDLIKE = re.compile(r"\w+")
_MARKS = re.compile(r"[\W_]*")


def fixed_prefix(texts: Sequence[str], share: float) -> str:
    """The longest beginning that at least this share of the texts has."""
    wanted = max(1, math.ceil(share * len(texts)))
    # In sorted order texts with the same beginning are neighbours, so the first and the last of
    # `wanted` neighbours have in common what all of them have.
    ordered = sorted(texts)
    windows = zip(ordered, ordered[wanted - 1 :], strict=False)
    return max((one[: _alike(one, other)] for one, other in windows), key=len, default="")


def fixed_suffix(texts: Sequence[str], share: float) -> str:
    """The longest end that at least this share of the texts has."""
    return fixed_prefix([text[::-1] for text in texts], share)[::-1]


def missing_prefix(prefix: str, texts: Sequence[str]) -> str:
    """The part of a beginning that half of the texts lack; empty if they lack nothing."""
    kept = sorted(_alike(prefix, text) for text in texts)
    # The upper median: at least half of the texts have that much of the beginning.
    return prefix[kept[len(kept) // 2] :] if kept else ""


def missing_suffix(suffix: str, texts: Sequence[str]) -> str:
    """The part of an end that half of the texts lack; empty if they lack nothing."""
    return missing_prefix(suffix[::-1], [text[::-1] for text in texts])[::-1]


def is_of_template(part: str) -> bool:
    """Whether a shared part can be from a template: not just punctuation or one or two letters.

    White space alone counts, because a prompt that ends in a space has other last tokens.
    """
    if not part:
        return False
    if not part.strip():
        return True
    core = part.strip().strip(_SENTENCE_MARKS).strip()
    return bool(core) and not (len(core) < 3 and _WORDLIKE.fullmatch(core))


def edges(text: str) -> tuple[str, str]:
    """The marks and spaces before a text's first letter or digit, and after its last."""
    start, end = _MARKS.match(text), _MARKS.match(text[::-1])
    return (start[0] if start else "", end[0][::-1] if end else "")


def _alike(one: str, other: str) -> int:
    """The length of the beginning that two texts share, by bisection."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
