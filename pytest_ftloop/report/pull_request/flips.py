"""Examples that broke or were fixed: what they have in common, then two, then the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.report.escape import one_line, quoted
from pytest_ftloop.report.phrases import broken_text, plural
from pytest_ftloop.report.pull_request.writing import folded, inert_on_hosts, table

if TYPE_CHECKING:
    from pytest_ftloop.report.pull_request.model import ExampleRow, Flips

_OPEN = 2
"""Broken examples that are not folded: they say what kind of mistake it is."""

_CELL = 200
_HEAD = ["id", "tags", "prompt", "expected", "before", "now"]


def broken_text_and_examples(flips: Flips, most: int) -> str:
    """What broke in a sentence, and the first examples."""
    shown = flips.examples[: min(most, _OPEN)]
    if not shown:
        return f"{_head(flips)}." if flips.total else ""
    return f"**{_head(flips)}**\n\n{_table(shown)}"


def more_broken(flips: Flips, most: int) -> str:
    """The other broken examples, folded; only their number where there is no room."""
    left = flips.total - min(len(flips.examples), most, _OPEN)
    others = flips.examples[_OPEN:most]
    if not others:
        return f"{left} more broken are not shown." if left and flips.examples[:most] else ""
    more = left - len(others)
    note = [f"{more} more are not shown."] if more else []
    return folded(f"{left} more broken", [_table(others), *note])


def flipped(what: str, flips: Flips, most: int) -> str:
    """Fixed examples, folded; only their number where there is no room."""
    if not flips.total:
        return ""
    count = f"{plural(flips.total, 'example')} {what}"
    rows = flips.examples[:most]
    if not rows:
        return f"{count}."
    more = [f"{flips.total - len(rows)} more are not shown."] if flips.total > len(rows) else []
    return folded(count, [_table(rows), *more])


def _head(flips: Flips) -> str:
    """`45 of 48 examples that passed now fail; ...`; older reports lack the second number."""
    if not flips.passed:
        return f"{plural(flips.total, 'example')} broken"
    return inert_on_hosts(broken_text(flips.total, flips.passed, flips.alike, flips.output))


def _table(rows: tuple[ExampleRow, ...]) -> str:
    return table(_HEAD, map(_example, rows))


def _example(row: ExampleRow) -> list[str]:
    """The cells of an example. Its texts are in quotes: an output may be empty, or `passed`."""
    names = [one_line(text, _CELL, middle=True) for text in (row.id, ", ".join(row.tags))]
    texts = [quoted(text, _CELL, middle=True) for text in (row.expected, row.before, row.after)]
    prompt = "" if row.prompt is None else quoted(row.prompt, _CELL, middle=True)
    return [*names, prompt, *texts]
