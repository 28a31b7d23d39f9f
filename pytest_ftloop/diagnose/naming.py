"""Read the texts of an example, and name examples and labels briefly in messages."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example

LONGEST_NAME = 70
"""Maximum number of characters of an id, or of a gate's name, in a message: about one line."""


def answer_of(x: Example) -> str:
    """The expected text without outer white space; empty if no character of it is visible."""
    answer = (x.expected or "").strip()
    return "" if is_blank(answer) else answer


def is_blank(text: str) -> bool:
    """Whether a text has only white space, control characters and characters of zero width."""
    return all(c.isspace() or unicodedata.category(c) in {"Cc", "Cf"} for c in text)


def texts_of(x: Example) -> tuple[str, str]:
    """Prompt and completion without outer white space. Examples with equal ones are copies."""
    return x.prompt_text.strip(), answer_of(x)


def quoted(text: str, most: int = 40, *, keep_end: bool = False) -> str:
    """The text in quotes, cut to `most` characters, or to fewer if many of them need escapes."""
    shown = text
    if len(text) > most:
        shown = f"...{text[-most:]}" if keep_end else f"{text[:most]}..."
    literal = repr(shown)
    fits = len(literal) <= 60 or most < 5
    return literal if fits else quoted(text, most // 2, keep_end=keep_end)


def some(ids: Sequence[str]) -> str:
    """`e1, e2, e3, ...`: the first three ids."""
    return ", ".join(id_[:LONGEST_NAME] for id_ in ids[:3]) + (", ..." if len(ids) > 3 else "")


def pairs_of(pairs: Sequence[Sequence[str]]) -> str:
    """`e1 and t4, e2 and t9`: the first three pairs. An id that both sets share appears once."""
    return some([" and ".join(i[:30] for i in dict.fromkeys(pair)) for pair in pairs])


def plural(count: int, noun: str) -> str:
    """`1 label`, `2 labels`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
