"""Markdown in which no text of users, models or data files has any effect."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pytest_ftloop.report.escape import one_line

# `_` and `>` inside a word stay readable: Markdown ignores them there (`eval_loss`, `->`).
_MARKDOWN = re.compile(r"[\\`*\[\]<|~$&]|\A>|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Mentions, references, links and emoji names. The `#` of an entity is matched first, and kept.
_AUTOLINK = re.compile(r"&#\d+;|(@|#|\bGH(?=-)|:(?=//)|\bwww(?=\.)|:(?=[\w+-]+:))", re.IGNORECASE)


def inert(text: str) -> str:
    """Disable Markdown, HTML, mentions, references and links in visible text.

    Characters with a meaning in Markdown or HTML become entities. Code hosts search for mentions
    and references after they have resolved entities, so those are broken by a zero-width space.
    """
    entities = _MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", text)
    return _AUTOLINK.sub(lambda match: match[0] + ("&#8203;" if match[1] else ""), entities)


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
