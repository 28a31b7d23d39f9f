"""Split a text into words, in any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

Runs = tuple[tuple[str, ...], ...]
"""The words of a text in runs of neighbours: one run, or two if its middle is left out."""

CHARACTERS_PER_WORD = 12
"""Characters read per wanted word, so that a long text is not read in full. Words of any script are
shorter on average, with what is between them."""

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Chinese characters
)
"""Scripts without spaces between words: there each character counts as a word."""


class _Spaced(dict[int, str]):
    """A table for `str.translate`: each character itself, or a space if it ends a word."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if char in "'\u2019":
            read = "'"
        elif category == "Cf" or unicodedata.name(char, "").startswith("VARIATION SELECTOR"):
            # Joiners, soft hyphens and marks of direction are invisible inside a word. Only the
            # zero width space separates words.
            read = " " if char == "\u200b" else ""
        elif category[0] not in "LMN":
            read = " "
        else:
            read = f" {char} " if _UNSPACED.match(char) else char
        self[code] = read
        return read


_SPACED = _Spaced()


def runs_of(text: str, most: int) -> Runs:
    """The words of a text in lower case; of a long text at most `most`, from both ends.

    Words consist of letters, their marks and digits, with apostrophes inside.
    """
    half = most // 2
    size = half * CHARACTERS_PER_WORD
    if len(text) > 2 * size:
        ends = [_split(text[:size])[:half], _split(text[-size:])[-half:]]
    else:
        words = _split(text)
        ends = [words] if len(words) <= most else [words[:half], words[-half:]]
    return tuple(tuple(bare for word in end if (bare := word.strip("'"))) for end in ends)


def count_words(text: str) -> int:
    """The number of words, by spaces, or by characters in scripts without spaces."""
    spaced = len(text.split())
    return spaced if text.isascii() else max(spaced, len(_UNSPACED.findall(text)))


def joined(words: Sequence[str]) -> str:
    """Neighbouring words as they are written: with spaces, if the script has them."""
    return ("" if all(map(_UNSPACED.match, words)) else " ").join(words)


def _split(text: str) -> list[str]:
    # NFC: a letter with an accent is one code, however it was typed.
    return unicodedata.normalize("NFC", text.lower()).translate(_SPACED).split()
