"""What a template leaves in texts: the beginning and the end that nearly all of them share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

FIXED = 0.95
"""Share of prompts that must have an affix in common for it to be the template's."""

_SENTENCE_MARKS = ".,;!?'\"()…"
_WORDLIKE = re.compile(r"\w+")
_MARKS = re.compile(r"[\W_]*")


def fixed_prefix(texts: Sequence[str], share: float) -> str:
    """The longest beginning that at least this share of the texts have."""
    wanted = max(1, math.ceil(share * len(texts)))
    # Sorted, texts with the same beginning are neighbours.
    ordered = sorted(texts)
    windows = zip(ordered, ordered[wanted - 1 :], strict=False)
    return max((one[: _alike(one, other)] for one, other in windows), key=len, default="")


def fixed_suffix(texts: Sequence[str], share: float) -> str:
    """The longest end that at least this share of the texts have."""
    return fixed_prefix([text[::-1] for text in texts], share)[::-1]


def missing_prefix(prefix: str, texts: Sequence[str]) -> str:
    """What half of the texts lack of a beginning, from where they differ on; empty for nothing."""
    kept = sorted(_alike(prefix, text) for text in texts)
    # The upper median: as much of it as at least half of them have.
    return prefix[kept[len(kept) // 2] :] if kept else ""


def missing_suffix(suffix: str, texts: Sequence[str]) -> str:
    """What half of the texts lack of an end; empty for nothing."""
    return missing_prefix(suffix[::-1], [text[::-1] for text in texts])[::-1]


def is_of_template(part: str) -> bool:
    """Whether a shared part can be a template's: more than a sentence's end or a few letters.

    White space alone counts: a prompt that ends in a space has other last tokens.
    """
    if not part:
        return False
    if not part.strip():
        return True
    told = part.strip().strip(_SENTENCE_MARKS).strip()
    return bool(told) and not (len(told) < 3 and _WORDLIKE.fullmatch(told))


def edges(text: str) -> tuple[str, str]:
    """The marks and spaces around a text's first and last letter or digit."""
    start, end = _MARKS.match(text), _MARKS.match(text[::-1])
    return (start[0] if start else "", end[0][::-1] if end else "")


def _alike(one: str, other: str) -> int:
    """How many characters two texts begin with alike: halving is faster than looking at each."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
