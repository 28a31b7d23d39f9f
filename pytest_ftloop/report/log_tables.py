"""`ftloop log`: the tables of several loops as one text, in each of its formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pytest_ftloop.report.escape import markdown_visible, visible
from pytest_ftloop.report.phrases import plural
from pytest_ftloop.report.table import as_csv, as_json, as_markdown, as_text
from pytest_ftloop.report.text import WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

Format = Literal["csv", "json", "markdown", "text"]


@dataclass(frozen=True)
class Table:
    """The iterations of one loop as rows (`table.log_rows`), and where they are kept."""

    loop: str
    place: str
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """`topic: 3 iterations in improvement_log/topic`; an empty log says what fills it."""
        loop, place = visible(self.loop), visible(self.place)
        if not self.rows:
            return f"{loop}: no iterations in {place} yet; pytest --ftloop trains the first"
        return f"{loop}: {plural(len(self.rows), 'iteration')} in {place}"


def format_tables(tables: Sequence[Table], form: Format, width: int = WIDTH) -> str:
    """A table a loop as text (`width` columns) or Markdown; of all loops one JSON list, or CSV."""
    rows = [row for table in tables for row in table.rows]
    match form:
        case "csv":
            return as_csv(rows)
        case "json":
            return as_json(rows) + "\n"
        case "markdown":
            return "\n".join(map(_markdown, tables))
        case "text":
            return "\n".join(_text(table, width) for table in tables)


def _markdown(table: Table) -> str:
    title = markdown_visible(table.title)
    return f"{title}\n\n{as_markdown(table.rows)}\n" if table.rows else f"{title}\n"


def _text(table: Table, width: int) -> str:
    return f"{table.title}\n{as_text(table.rows, width)}\n" if table.rows else f"{table.title}\n"
