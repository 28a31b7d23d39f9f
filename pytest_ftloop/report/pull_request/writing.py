"""How the Markdown of a report is written: inert text on one line, tables, folded blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_ftloop.report.escape import one_line, shorten, visible
from pytest_ftloop.report.markdown import inert, markdown_table


def say(text: str, width: int, *, middle: bool = False) -> str:
    """Any text on one inert line of at most `width` columns."""
    return inert_on_hosts(one_line(text, width, middle=middle))


def shown(text: str, width: int) -> str:
    """The same for text in which unprintable characters are escaped already."""
    return inert_on_hosts(fitted(text, width))


def fitted(text: str, width: int) -> str:
    """Visible text of at most `width` columns, of text that may be visible already."""
    return shorten(text if text.isprintable() else visible(text), width)


def inert_on_hosts(text: str) -> str:
    """Make visible text inert on a code host too: commit ids and emoji names included."""
    return inert(text.strip(), on_a_host=True)


def folded(title: str, blocks: Sequence[str]) -> str:
    """Folded blocks. The title must not contain text of users."""
    head = f"<details><summary>{title}</summary>"
    return "\n\n".join([head, *blocks, "</details>"])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table of visible text, without padding: the bytes of a comment are limited."""
    return markdown_table(head, rows, right, escape=inert_on_hosts, compact=True)
