"""Make untrusted text (prompts, outputs, tags, messages) safe to print, and cut it to a width."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pytest_ftloop.core.printable import escaped

ELLIPSIS = "..."
"""Replaces text that was cut out. It is ASCII because some terminals can't show UTF-8."""

_MOST_PER_COLUMN = 4
"""Characters read per column of the wanted width: a Thai letter with vowel and tone has three."""


# Printable by Unicode, but nothing is drawn: fillers and a blank Braille cell; and selectors of
# variants, except after a symbol (an emoji), a digit of a keycap, an ideograph, a Mongolian letter.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]"
    "|(?<![^\\w\\s])[\ufe00-\ufe0f](?!\u20e3)"
    "|(?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[\U000e0100-\U000e01ef]"
    "|(?<![\u1820-\u18aa])[\u180b-\u180d\u180f]"
)


def visible(text: str) -> str:
    r"""Replace every character that can't be seen by an escape (`\n`, `\x1b`, `\u202e`).

    `str.isprintable` decides: controls, ANSI escapes, bidirectional and zero-width marks, lone
    surrogates, line separators and unusual spaces become escapes. A backslash is doubled, so that a
    newline differs from the two characters `\n`. A combining mark at the start becomes an escape,
    because a terminal would draw it over the character before the text.
    """
    start = escaped(text[0]) if _begins_with_mark(text) else ""
    rest = text[1:] if start else text
    if rest.isprintable() and "\\" not in rest:
        return start + (rest if rest.isascii() else _without_blanks(rest))
    return start + _without_blanks("".join(map(_visible_character, rest)))


def columns_of(text: str) -> int:
    """The number of terminal columns of visible text: two per emoji, none per combining mark."""
    if text.isascii():
        return len(text)
    from wcwidth import width

    return width(text, control_codes="ignore")


def clusters_of(text: str) -> list[str]:
    """Split text into pieces that can be separated: letters with their marks, whole emoji."""
    if text.isascii():
        return list(text)
    from wcwidth import iter_graphemes

    return list(iter_graphemes(text))


def shorten(text: str, width: int, *, middle: bool = False) -> str:
    """Cut visible text to `width` columns, at the end or in the middle, and mark the cut."""
    if columns_of(text) <= width:
        return text
    if width <= len(ELLIPSIS):
        return ELLIPSIS[: max(width, 0)]
    room, clusters = width - len(ELLIPSIS), clusters_of(text)
    tail = _fitting(reversed(clusters), room // 2)[::-1] if middle else []
    head = _fitting(clusters, room - columns_of("".join(tail)))
    # A mark after a letter of another script can widen it, so the whole may exceed its parts.
    while columns_of(cut := "".join((*head, ELLIPSIS, *tail))) > width:
        head, tail = (head[:-1], tail) if head else (head, tail[1:])
    return cut


def one_line(text: str, width: int | None = None, *, middle: bool = False) -> str:
    """Turn any text into one visible line of at most `width` columns."""
    if width is None:
        return visible(text)
    most = max(width, 1) * (1 if text.isascii() else _MOST_PER_COLUMN)
    if len(text) > 2 * most + len(ELLIPSIS):  # of a huge output, read the two ends only
        text = text[:most] + ELLIPSIS + text[-most:]
    return shorten(visible(text), width, middle=middle)


def quoted(text: str, width: int, *, middle: bool = False) -> str:
    """Put text in double quotes, so that an empty text and outer spaces can be seen."""
    return f'"{one_line(text, max(width - 2, 0), middle=middle)}"'


def quoted_pair(expected: str, actual: str, width: int) -> tuple[str, str]:
    """Quote both texts, each cut so that the first difference remains in view."""
    same = next(
        (i for i, (a, b) in enumerate(zip(expected, actual, strict=False)) if a != b),
        min(len(expected), len(actual)),
    )
    room = width - len(ELLIPSIS) - 2
    short = max(len(expected), len(actual)) <= _MOST_PER_COLUMN * width and all(
        columns_of(visible(text)) <= width - 2 for text in (expected, actual)
    )
    if short or room < 10 or columns_of(visible(expected[: same + 1])) <= 2 * room // 3:
        return quoted(expected, width), quoted(actual, width)
    # Keep a third of the line for the text before the difference. An escape takes up to 10 columns.
    before = expected[:same]
    while columns_of(visible(before)) > room // 3:
        before = before[len(before) // 4 + 1 :]
    start = same - len(before)
    left = width - len(ELLIPSIS)
    return ELLIPSIS + quoted(expected[start:], left), ELLIPSIS + quoted(actual[start:], left)


def _begins_with_mark(text: str) -> bool:
    first = text[:1]
    return not first.isascii() and first.isprintable() and not columns_of(first)


def _without_blanks(text: str) -> str:
    """Escape the characters that are printable, but blank."""
    return _INVISIBLE.sub(lambda match: escaped(match[0]), text)


def _visible_character(character: str) -> str:
    if character == "\\":
        return r"\\"
    return character if character.isprintable() else escaped(character)


def _fitting(clusters: Iterable[str], width: int) -> list[str]:
    """The first clusters that fit into `width` columns."""
    taken: list[str] = []
    for cluster in clusters:
        width -= columns_of(cluster)
        if width < 0:
            break
        taken.append(cluster)
    return taken
