"""What the marks and words of a table of figures mean, in Markdown: only those that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.report.phrases import TERMS
from pytest_ftloop.report.verdict import MARKS

if TYPE_CHECKING:
    from collections.abc import Collection

_MEANINGS = {
    "improved": "proven better",
    "regressed": "proven worse",
    "inconclusive": f"inconclusive: {TERMS['inconclusive']}",
}


def legend_lines(kinds: Collection[str], *, over_seeds: bool) -> list[str]:
    """A line on the marks of these kinds of change, and one per word.

    `over_seeds`: the figures of a side are means over several seeds.
    """
    marks = [f"`{MARKS[kind]}` {said}" for kind, said in _MEANINGS.items() if kind in kinds]
    lines = [", ".join(marks)] if marks else []
    words = ["p", "detectable", *(["seeds"] if over_seeds else [])]
    lines += [f"{word}: {TERMS[word]}" for word in words]
    return [f"- {line}." for line in lines]
