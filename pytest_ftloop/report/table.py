"""`ftloop log`: the iterations of improvement logs as tables, in four formats."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pytest_ftloop.core.metrics import depends_on_scoring, own_metrics
from pytest_ftloop.core.printable import printable_json
from pytest_ftloop.core.records import UNTRAINED
from pytest_ftloop.report.escape import shorten, visible
from pytest_ftloop.report.layout import Column, table
from pytest_ftloop.report.markdown import inert, markdown_table
from pytest_ftloop.report.phrases import decision_text, figure_text, format_changes, plural
from pytest_ftloop.report.text import WIDTH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ftloop.core.records import Iteration


Format = Literal["csv", "json", "markdown", "text"]

FIGURES = ("train_loss", "eval_loss", "overfit_gap", "pass_rate")
"""The metrics with a column of their own."""

FIELDS = (
    *("loop", "number", "id", "parent", "change"),
    *FIGURES,
    *("failing", "findings", "decision", "seconds"),
)
"""The keys of a row, in order."""

# Columns dropped from a narrow terminal, the highest number first: as in `text.iterations_table`.
_DROP = {"parent": 9, "seconds": 8, "failing": 7, "train_loss": 6, "findings": 5}

_DROP |= {"overfit_gap": 4, "id": 3, "decision": 2, "pass_rate": 1}

_LEAST = {"loop": 8, "change": 28, "findings": 11, "decision": 13}

_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Table:
    """The iterations of one loop as rows (`log_rows`), and the place of its log."""

    loop: str
    place: str
    rows: list[dict[str, Any]]

    @property
    def title(self) -> str:
        """`topic: 3 iterations in improvement_log/topic`; for an empty log, how to fill it."""
        loop, place = visible(self.loop), visible(self.place)
        if not self.rows:
            return f"{loop}: no iterations in {place} yet; pytest --ftloop trains the first"
        trained = [row for row in self.rows if row["number"] != UNTRAINED]
        return f"{loop}: {plural(len(trained), 'iteration')} in {place}"


def format_tables(tables: Sequence[Table], form: Format, width: int = WIDTH) -> str:
    """Text (`width` columns) and Markdown: one table per loop. JSON and CSV: one list of all."""
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


def log_rows(iterations: Iterable[Iteration]) -> list[dict[str, Any]]:
    """One row per iteration, with the keys `FIELDS` and the iteration's own metrics.

    Texts are visible, missing figures None.
    """
    chain = tuple(iterations)
    return [
        _row(iteration, [it for it in chain if it.loop == iteration.loop]) for iteration in chain
    ]


def as_text(rows: Sequence[Mapping[str, Any]], width: int = WIDTH) -> str:
    """The rows as a table for a terminal of `width` columns."""
    columns = [_column(field, rows) for field in _fields(rows) if _shown(field, rows)]
    return "\n".join(table(columns, width))


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table, in which text of users is inert."""
    fields = [field for field in _fields(rows) if _shown(field, rows)]
    cells = [[shorten(_said(field, row.get(field)), 200) for field in fields] for row in rows]
    return markdown_table(fields, cells, [n for n, field in enumerate(fields) if _is_number(field)])


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a JSON list. NaN and infinity become null, like missing figures."""
    finite = [{field: _finite(row.get(field)) for field in _fields(rows)} for row in rows]
    return printable_json(json.dumps(finite, indent=2, allow_nan=False))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV with a header. An apostrophe keeps spreadsheets from running formulas."""
    target = io.StringIO()
    fields = _fields(rows)
    writer = csv.DictWriter(target, fields, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({field: _cell(field, row.get(field)) for field in fields} for row in rows)
    return target.getvalue()


def _row(iteration: Iteration, chain: Sequence[Iteration]) -> dict[str, Any]:
    return {
        "loop": visible(iteration.loop),
        "number": iteration.number,
        "id": visible(iteration.id),
        "parent": None if iteration.parent is None else visible(iteration.parent),
        "change": format_changes(iteration, chain),
        **{n: iteration.metrics.get(n) for n in (*FIGURES, *own_metrics([iteration.metrics]))},
        "failing": len(iteration.failing),
        "findings": ", ".join(visible(finding.kind) for finding in iteration.findings),
        "decision": decision_text(iteration.decision),
        "seconds": round(iteration.cost.seconds, 1),
    }


def _fields(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """`FIELDS`, with the loops' own metrics after the pass rate."""
    own = dict.fromkeys(field for row in rows for field in row if field not in FIELDS)
    place = FIELDS.index("pass_rate") + 1
    return (*FIELDS[:place], *own, *FIELDS[place:])


def _markdown(table: Table) -> str:
    title = inert(table.title)
    return f"{title}\n\n{as_markdown(table.rows)}\n" if table.rows else f"{title}\n"


def _text(table: Table, width: int) -> str:
    return f"{table.title}\n{as_text(table.rows, width)}\n" if table.rows else f"{table.title}\n"


def _column(field: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    first, _, second = {"number": "#", "overfit_gap": "gap"}.get(field, field).rpartition("_")
    return Column(
        header=(first, second),
        cells=[_said(field, row.get(field)) for row in rows],
        right=_is_number(field),
        drop=_DROP.get(field, 0 if field in FIELDS else 1),
        least=_LEAST.get(field),
    )


def _shown(field: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether people see this column: the loop's name only where there are several loops."""
    return field != "loop" or len({row["loop"] for row in rows}) > 1


def _said(field: str, value: Any) -> str:
    if _is_figure(field):
        return figure_text(field, value)
    return "" if value is None else str(value)


def _is_figure(field: str) -> bool:
    return field in FIGURES or field not in FIELDS


def _is_number(field: str) -> bool:
    return _is_figure(field) or field in ("number", "failing", "seconds")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(field: str, value: Any) -> Any:
    """A value for CSV: what is still to be scored is missing, as in JSON."""
    is_unscored = depends_on_scoring(field) and isinstance(value, float) and math.isnan(value)
    return None if is_unscored else inert_cell(value)


def inert_cell(value: Any) -> Any:
    """A value for CSV that no spreadsheet runs as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
