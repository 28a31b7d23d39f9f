"""Markdown in which no text of users, models or data files has any effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pytest_ftloop.report.escape import one_line

# `_` and `>` inside a word stay readable: Markdown ignores them there (`eval_loss`, `->`).
_MARKDOWN = re.compile(r"[\\`*\[\]<|~$&]|\A>|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Mentions, references, links and emoji names.
_AUTOLINKS = r"@|#|\bGH(?=-)|:(?=//)|\bwww(?=\.)|:(?=[\w+-]+:)"

# Code hosts turn 7 or more hexadecimal digits into a link to a commit; and the start of an emoji's
# name at the end of a text could be completed by our own colon.
_HOSTS = r"(?<![0-9A-Za-z])[0-9A-Fa-f]{7,}(?![0-9A-Za-z])|:(?=[\w+-]+\Z)"

# An entity, whose `#` is kept, or a run of what a code host would read.
_READ, _READ_BY_HOSTS = (
    re.compile(rf"&#\d+;|((?:{words})+)", re.IGNORECASE)
    for words in (_AUTOLINKS, f"{_AUTOLINKS}|{_HOSTS}")
)


def inert(text: str, *, on_a_host: bool = False) -> str:
    """Disable Markdown, HTML, mentions, references and links in visible text.

    Characters with a meaning in Markdown or HTML become entities. Code hosts search for mentions
    and references after they have resolved entities, but not in code: so those become code. What
    is shown has the same characters as the text, so that an id can be copied. `on_a_host`: commits
    and half an emoji's name too.
    """
    entities = _MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", text)
    read = _READ_BY_HOSTS if on_a_host else _READ
    return read.sub(lambda match: f"`{match[1]}`" if match[1] else match[0], entities)


def inert_line(text: str) -> str:
    """Any text on one line, inert, without outer spaces (four spaces would begin a code block)."""
    return inert(one_line(text)).strip()


def markdown_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Iterable[int] = (),
    *,
    escape: Callable[[str], str] = inert,
    compact: bool = False,
) -> str:
    """A Markdown table. The cells hold visible text (see `escape.visible`), made inert by `escape`.

    The headers must be our own words: they are not escaped. `right` holds the indices of the
    columns to align right. `compact` omits the padding, for tables with long cells.
    """
    cells = [[escape(text).strip() for text in row] for row in rows]
    places = frozenset(right)
    if compact:
        rule = ["---:" if place in places else "---" for place in range(len(headers))]
        return "\n".join(f"| {' | '.join(line)} |" for line in (headers, rule, *cells))
    from tabulate import tabulate

    return tabulate(
        cells,
        headers,
        tablefmt="pipe",
        colalign=["right" if place in places else "left" for place in range(len(headers))],
        disable_numparse=True,
    )
