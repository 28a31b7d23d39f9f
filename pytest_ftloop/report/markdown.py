"""Markdown in which nothing that users, models or data files wrote is active."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pytest_ftloop.report.escape import one_line

# An underscore or `>` inside is left readable: neither is Markdown there (`eval_loss`, `->`).
_MARKDOWN = re.compile(r"[\\`*\[\]<|~$&]|\A>|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# Mentions, references, links and emoji names; entities have a `#` of their own, which must stay.
_AUTOLINK = re.compile(r"&#\d+;|(@|#|\bGH(?=-)|:(?=//)|\bwww(?=\.)|:(?=[\w+-]+:))", re.IGNORECASE)


def inert(text: str) -> str:
    """Visible text with Markdown, HTML, mentions, references and links made inert.

    Characters that Markdown or HTML read become entities, which are never structure. Code hosts
    look for mentions and references after entities are resolved, so those get a zero-width space.
    """
    entities = _MARKDOWN.sub(lambda match: f"&#{ord(match[0])};", text)
    return _AUTOLINK.sub(lambda match: match[0] + ("&#8203;" if match[1] else ""), entities)


def inert_line(text: str) -> str:
    """Any text on one line, inert. Spaces at its start would make it code, so they are left out."""
    return inert(one_line(text)).strip()


def markdown_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Iterable[int] = (),
    *,
    escape: Callable[[str], str] = inert,
    compact: bool = False,
) -> str:
    """A Markdown table of visible text (see `escape.visible`), which `escape` makes inert.

    The headers are our own words and stay as they are. The columns at the places `right` are
    aligned to the right. `compact` leaves the padding out, for cells that may be long.
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
