"""A log's tables: one CSV row an example, one line a row, so that a diff reads well."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.bounds import check_digits, read_json
from pytest_ftloop.core.csv_cells import allow_long_cells
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.metrics import DECIMALS
from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.log.files import damaged

if TYPE_CHECKING:
    from pytest_ftloop.log.files import Files

COLUMNS = (
    "id", "content", "tags", "loss", "tokens", "correct", "passed", "expected", "output",
)  # fmt: skip


SCORES, OUTPUTS = "scores", "outputs"
"""Columns that follow where any row has such: its scores, its sampled outputs, each as JSON."""

_MORE = ((), (SCORES,), (OUTPUTS,), (SCORES, OUTPUTS))

_PASSED = {"yes": True, "no": False, "": None}


@dataclass(frozen=True)
class Table:
    """What a record says of its table: its number of rows, and the hash of its text.

    `guards` is the same of the tables of its guards, by guard.
    """

    rows: int
    sha256: str
    guards: Mapping[str, Table] = field(default_factory=dict)


class ExampleTable(Sequence[ExampleResult]):
    """The rows of an examples.csv, read when first looked at.

    A table of 2,000 rows takes 13 ms, and a replay of 200 iterations needs a few of the 200.
    """

    def __init__(self, files: Files, name: str, said: Table) -> None:
        self._files, self._name, self._said = files, name, said
        self._rows: tuple[ExampleResult, ...] | None = None
        self._is_checked = False

    def __len__(self) -> int:
        return len(self._read())

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __iter__(self) -> Iterator[ExampleResult]:
        return iter(self._read())

    def check(self) -> None:
        """Raise a `LogError` if these are not the rows that its record was made with."""
        if self._rows is None and not self._is_checked:
            self._text(self._files.shown(self._name))
            self._is_checked = True

    def _read(self) -> tuple[ExampleResult, ...]:
        if self._rows is None:
            self._rows = self._sound()
        return self._rows

    def _sound(self) -> tuple[ExampleResult, ...]:
        """The rows that its record was made with; a `LogError` where these are others."""
        shown = self._files.shown(self._name)
        rows = tuple(_rows_of(self._text(shown), shown))
        if len(rows) != self._said.rows:
            why = f"its record says that it has {self._said.rows} rows, found {len(rows)}"
            raise damaged(shown, why)
        return rows

    def _text(self, shown: str) -> str:
        text = self._files.read(self._name)
        if sha256_of(text) == self._said.sha256:
            return text
        # Another program may have changed its line ends or quotes, but no cell.
        with suppress(LogError):
            text = examples_csv(_rows_of(text, shown))
        if sha256_of(text) != self._said.sha256:
            raise damaged(shown, "it differs from what its record was made with")
        return text


def sha256_of(text: str) -> str:
    """The hash of a table's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def examples_csv(examples: Iterable[ExampleResult]) -> str:
    """The table of an iteration's examples, sorted by id."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rows = sorted(examples, key=lambda r: r.id)
    more = [
        *((SCORES,) if any(row.scores for row in rows) else ()),
        *((OUTPUTS,) if any(row.outputs for row in rows) else ()),
    ]
    writer.writerow([*COLUMNS, *more])
    for row in rows:
        passed = "" if row.passed is None else "yes" if row.passed else "no"
        loss = f"{row.loss:.{DECIMALS}f}"
        id_, tags = _one_cell(row.id), _one_cell(";".join(row.tags))
        cells = [id_, row.content, tags, loss, row.tokens, row.correct, passed]
        # A space at the end of a line would not survive an editor.
        output = re.sub(r" \Z", r"\\u0020", _one_cell(row.output))
        extra = {SCORES: _as_json(_rounded(row.scores)), OUTPUTS: _as_json(row.outputs)}
        added = [_one_cell(extra[name]) for name in more]
        writer.writerow([*cells, _one_cell(row.expected), output, *added])
    return out.getvalue()


def _rows_of(text: str, shown: str) -> Iterator[ExampleResult]:
    """The rows of a table; a `LogError` that names its file and line for one that is not ours."""
    allow_long_cells()
    rows = csv.reader(io.StringIO(text, newline=""))
    header = tuple(next(rows, ()))
    columns, more = header[: len(COLUMNS)], header[len(COLUMNS) :]
    if columns != COLUMNS or more not in _MORE:
        wanted, found = ",".join(COLUMNS), ",".join(header)[:80]
        raise damaged(shown, f"wanted the columns {wanted}, found {found}", 1)
    unescaped = _text if "\\" in text else str  # nearly always nothing is escaped
    try:
        # An editor may have left a blank line at the end.
        for row in filter(None, rows):
            id_, content, tags, loss, tokens, correct, passed, expected, output, *cells = row
            if len(cells) != len(more):
                raise ValueError("too many values" if len(cells) > len(more) else "too few values")
            extra = dict(zip(more, cells, strict=True))
            yield ExampleResult(
                unescaped(id_),
                content,
                _tags(tags),
                float(loss),
                _count(tokens),
                _count(correct),
                _PASSED[passed],
                unescaped(expected),
                unescaped(output),
                _scores(unescaped(extra.get(SCORES, ""))),
                _outputs(unescaped(extra.get(OUTPUTS, ""))),
            )
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        why = f"no row of a table: {str(error)[:80]}"
        raise damaged(shown, why, rows.line_num) from None


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, DECIMALS) + 0.0 for name, value in scores.items()}


def _scores(cell: str) -> dict[str, float]:
    """Scores by name, each a number from 0 to 1; a `ValueError` or `TypeError` if not."""
    if not cell:
        return {}
    found = read_json(cell)
    if not isinstance(found, dict):
        raise TypeError("wanted scores by name")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"wanted a score from 0 to 1 as {name!r}, found {value!r}")
    return {name: float(value) for name, value in found.items()}


def _count(cell: str) -> int:
    """A number of tokens."""
    if not (cell.isascii() and cell.isdecimal()):
        raise ValueError(f"wanted a number of tokens, found {cell[:40]!r}")
    check_digits(cell)
    return int(cell)


def _outputs(cell: str) -> tuple[str, ...]:
    if not cell:
        return ()
    found = read_json(cell)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise TypeError("wanted a list of outputs")
    return tuple(found)


@lru_cache(maxsize=1024)
def _tags(cell: str) -> tuple[str, ...]:
    return tuple(tag for tag in _text(cell).split(";") if tag)


def _one_cell(text: str) -> str:
    """A text on one line, so that a diff shows one line an example; `_text` reads it back."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    # Control characters and lone surrogates as \u escapes: a code host shows and git diffs it.
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text
    )


def _text(cell: str) -> str:
    if "\\" not in cell:  # nearly always
        return cell

    def back(match: re.Match[str]) -> str:
        escape = match[1]
        return {"n": "\n", "r": "\r", "\\": "\\"}.get(escape) or chr(int(escape[1:], 16))

    return re.sub(r"\\(n|r|\\|u[0-9a-f]{4})", back, cell)
