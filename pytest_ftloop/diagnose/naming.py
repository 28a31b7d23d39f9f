"""How the rules over data read an example, and name it: shortly, whatever its texts and ids are."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example

LONGEST_NAME = 70
"""Characters of an id or of a gate's name in a message."""


def answer_of(x: Example) -> str:
    """What the example expects, without outer white space; empty where nothing of it shows."""
    answer = (x.expected or "").strip()
    return "" if is_blank(answer) else answer


def is_blank(text: str) -> bool:
    """Whether a text shows nothing: white space, control and zero width characters alone."""
    return all(c.isspace() or unicodedata.category(c) in {"Cc", "Cf"} for c in text)


def said_of(x: Example) -> tuple[str, str]:
    """Prompt and completion: two examples that agree in both are the same."""
    return x.prompt_text.strip(), answer_of(x)


def quoted(text: str, most: int = 40, *, keep_end: bool = False) -> str:
    """The text in quotes, cut to `most` characters; fewer where they are told by their codes."""
    shown = text
    if len(text) > most:
        shown = f"...{text[-most:]}" if keep_end else f"{text[:most]}..."
    told = repr(shown)
    return told if len(told) <= 60 or most < 5 else quoted(text, most // 2, keep_end=keep_end)


def some(ids: Sequence[str]) -> str:
    """`e1, e2, e3, ...`: three at most."""
    return ", ".join(id_[:LONGEST_NAME] for id_ in ids[:3]) + (", ..." if len(ids) > 3 else "")


def pairs_of(pairs: Sequence[Sequence[str]]) -> str:
    """`e1 and t4, e2 and t9`: three at most; ids of content may be the same in both sets."""
    return some([" and ".join(i[:30] for i in dict.fromkeys(pair)) for pair in pairs])


def plural(count: int, noun: str) -> str:
    """`1 label`, `2 labels`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
