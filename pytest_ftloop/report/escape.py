"""Make untrusted text safe to show: prompts, outputs, tags and messages reach nobody raw."""

from __future__ import annotations

import re
from unicodedata import east_asian_width

ELLIPSIS = "..."
"""What stands for text left out; ASCII, as a terminal need not speak UTF-8."""

_LONGEST_CELL = 200
# An underscore or `>` inside is left readable: neither is Markdown there (`eval_loss`, `->`).
_MARKDOWN = re.compile(r"[\\`*\[\]<|~$&]|\A>|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Mentions, references, links and emoji names; entities have a `#` of their own, which must stay.
_AUTOLINK = re.compile(r"&#\d+;|(@|#|\bGH(?=-)|:(?=//)|\bwww(?=\.)|:(?=[\w+-]+:))", re.IGNORECASE)


def visible(text: str) -> str:
    r"""Every character that is not printable as an escape (`\n`, `\x1b`, `\u202e`).

    Printable is what `str.isprintable` says: controls, ANSI escapes, bidirectional and zero-width
    marks, lone surrogates, line separators and unusual spaces all show. A backslash is doubled: a
    newline and the two characters `\n` must not look the same beside each other.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_visible_character, text))


def columns_of(text: str) -> int:
    """How many terminal columns visible text takes: two for wide characters, else one."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def shorten(text: str, width: int, *, middle: bool = False) -> str:
    """Visible text cut to `width` columns, the cut marked; at the end or, on request, inside."""
    if columns_of(text) <= width:
        return text
    if width <= len(ELLIPSIS):
        return ELLIPSIS[: max(width, 0)]
    room = width - len(ELLIPSIS)
    tail = _head(text[::-1], room // 2)[::-1] if middle else ""
    return _head(text, room - columns_of(tail)) + ELLIPSIS + tail


def one_line(text: str, width: int | None = None, *, middle: bool = False) -> str:
    """Any text as one visible line of at most `width` columns."""
    if width is None:
        return visible(text)
    # Each character takes a column at least, so more of a huge output need not be looked at.
    if len(text) > 2 * width + 2:
        text = text[: width + 1] + (text[-width:] if middle and width > 0 else "")
    return shorten(visible(text), width, middle=middle)


def quoted(text: str, width: int, *, middle: bool = False) -> str:
    """Text in double quotes, so that an empty one and spaces at its ends are seen."""
    return f'"{one_line(text, max(width - 2, 0), middle=middle)}"'


def quoted_pair(expected: str, actual: str, width: int) -> tuple[str, str]:
    """Both texts quoted, cut where needed so that the first difference is in view."""
    same = next(
        (i for i, (a, b) in enumerate(zip(expected, actual, strict=False)) if a != b),
        min(len(expected), len(actual)),
    )
    room = width - len(ELLIPSIS) - 2
    short = max(len(expected), len(actual)) < width and all(
        columns_of(visible(text)) <= width - 2 for text in (expected, actual)
    )
    if short or room < 10 or columns_of(visible(expected[: same + 1])) <= 2 * room // 3:
        return quoted(expected, width), quoted(actual, width)
    # A third of the line for what comes before; an escape takes up to ten columns.
    before = expected[:same]
    while columns_of(visible(before)) > room // 3:
        before = before[len(before) // 4 + 1 :]
    start = same - len(before)
    left = width - len(ELLIPSIS)
    return ELLIPSIS + quoted(expected[start:], left), ELLIPSIS + quoted(actual[start:], left)


def markdown_cell(text: str, width: int = _LONGEST_CELL) -> str:
    """Any text for a cell of a Markdown table: one line, shortened, and nothing in it is active."""
    return markdown_visible(one_line(text, width))


def markdown_visible(text: str) -> str:
    """Visible text with Markdown, HTML, mentions, references and links made inert.

    Characters that Markdown or HTML read become entities, which are never structure. Code hosts
    look for mentions and references after entities are resolved, so those get a zero-width space.
    """
    entities = _MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", text)
    return _AUTOLINK.sub(lambda match: match[0] + ("&#8203;" if match[1] else ""), entities)


def _visible_character(character: str) -> str:
    if character == "\\":
        return r"\\"
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _columns(character: str) -> int:
    return 2 if east_asian_width(character) in "WF" else 1


def _head(text: str, width: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _columns(character)
        if used > width:
            return text[:index]
    return text
