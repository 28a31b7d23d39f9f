"""Make untrusted text safe to show: prompts, outputs, tags and messages reach nobody raw."""

from __future__ import annotations

from collections.abc import Iterable

ELLIPSIS = "..."
"""What stands for text left out; ASCII, as a terminal need not speak UTF-8."""

_MOST_PER_COLUMN = 8
"""Characters looked at for each column of room: a Hindi or Thai syllable takes up to five."""


def visible(text: str) -> str:
    r"""Every character that is not printable as an escape (`\n`, `\x1b`, `\u202e`).

    Printable is what `str.isprintable` says: controls, ANSI escapes, bidirectional and zero-width
    marks, lone surrogates, line separators and unusual spaces all show. A backslash is doubled: a
    newline and the two characters `\n` must not look the same beside each other. A combining mark
    that begins the text shows too: it would be drawn over what precedes the text.
    """
    start = _escaped(text[0]) if _begins_with_mark(text) else ""
    rest = text[1:] if start else text
    if rest.isprintable() and "\\" not in rest:
        return start + rest
    return start + "".join(map(_visible_character, rest))


def columns_of(text: str) -> int:
    """How many terminal columns visible text takes: an emoji two, a combining mark none."""
    if text.isascii():
        return len(text)
    from wcwidth import width

    return width(text, control_codes="ignore")


def clusters_of(text: str) -> list[str]:
    """The text in pieces that may stand apart: each letter with its marks, each whole emoji."""
    if text.isascii():
        return list(text)
    from wcwidth import iter_graphemes

    return list(iter_graphemes(text))


def shorten(text: str, width: int, *, middle: bool = False) -> str:
    """Visible text cut to `width` columns, the cut marked; at the end or, on request, inside."""
    if columns_of(text) <= width:
        return text
    if width <= len(ELLIPSIS):
        return ELLIPSIS[: max(width, 0)]
    room, clusters = width - len(ELLIPSIS), clusters_of(text)
    tail = _fitting(reversed(clusters), room // 2)[::-1] if middle else []
    head = _fitting(clusters, room - columns_of("".join(tail)))
    # Marks foreign to the script before them may widen it: then the parts take less than the whole.
    while columns_of(cut := "".join((*head, ELLIPSIS, *tail))) > width:
        head, tail = (head[:-1], tail) if head else (head, tail[1:])
    return cut


def one_line(text: str, width: int | None = None, *, middle: bool = False) -> str:
    """Any text as one visible line of at most `width` columns."""
    if width is None:
        return visible(text)
    most = _MOST_PER_COLUMN * max(width, 1)
    if len(text) > 2 * most + len(ELLIPSIS):  # a huge output: look at its ends only
        text = text[:most] + ELLIPSIS + text[-most:]
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
    short = max(len(expected), len(actual)) <= _MOST_PER_COLUMN * width and all(
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


def _begins_with_mark(text: str) -> bool:
    first = text[:1]
    return not first.isascii() and first.isprintable() and not columns_of(first)


def _visible_character(character: str) -> str:
    if character == "\\":
        return r"\\"
    return character if character.isprintable() else _escaped(character)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _fitting(clusters: Iterable[str], width: int) -> list[str]:
    """As many clusters, from the first on, as there is room for."""
    taken: list[str] = []
    for cluster in clusters:
        width -= columns_of(cluster)
        if width < 0:
            break
        taken.append(cluster)
    return taken
