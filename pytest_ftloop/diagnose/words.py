"""The words of a text, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

Runs = tuple[tuple[str, ...], ...]
"""Neighbouring words of a text; two runs where its middle is left out."""

LONG = 12
"""Characters read for each word that is wanted: enough for those of any script and what is between
them, and a page of text need not be read to its end."""

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Chinese characters
)
"""Scripts without blanks: each character is a word, and two words are a pair of characters."""


class _Spaced(dict[int, str]):
    """What to read for each character: itself, or a blank where no word goes on."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in "'\u2019":
            read = "'"
        elif category == "Cf" or unicodedata.name(char, "").startswith("VARIATION SELECTOR"):
            # Joiners, soft hyphens, directions: not seen within a word; one of them is a blank.
            read = " " if char == "\u200b" else ""
        elif category[0] not in "LMN":
            read = " "
        else:
            read = f" {char} " if _UNSPACED.match(char) else char
        self[code] = read
        return read


_SPACED = _Spaced()


def runs_of(text: str, most: int) -> Runs:
    """The words of a text in lower case; of a long one so many, from both ends.

    Words are letters, their marks, and digits, with apostrophes inside.
    """
    half = most // 2
    if len(text) > 2 * half * LONG:
        ends = [_split(text[: half * LONG])[:half], _split(text[-half * LONG :])[-half:]]
    else:
        words = _split(text)
        ends = [words] if len(words) <= most else [words[:half], words[-half:]]
    return tuple(tuple(bare for word in end if (bare := word.strip("'"))) for end in ends)


def count_words(text: str) -> int:
    """How many words a text has, by its blanks, or by its characters in scripts without them."""
    spaced = len(text.split())
    return spaced if text.isascii() else max(spaced, len(_UNSPACED.findall(text)))


def joined(words: Sequence[str]) -> str:
    """Neighbouring words as they are written."""
    return ("" if all(map(_UNSPACED.match, words)) else " ").join(words)


def _split(text: str) -> list[str]:
    # One code for a letter and its accent, however they were typed.
    return unicodedata.normalize("NFC", text.lower()).translate(_SPACED).split()
