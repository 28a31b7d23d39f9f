"""Lay out visible text (see `escape.visible`) in lines of a given width: paragraphs, tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_ftloop.report.escape import clusters_of, columns_of, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SPACE = "  "


@dataclass(frozen=True)
class Column:
    """One column of a table: a header of two lines, and one visible text per row.

    Where the table is too wide, its columns are first narrowed down to `least` columns of the
    terminal, their cells shortened. Where that is not enough, whole columns are dropped, the one
    with the highest `drop` first; a column with `drop` 0 always stays.
    """

    header: tuple[str, str]
    cells: Sequence[str]
    right: bool = False
    drop: int = 0
    least: int | None = None

    @property
    def wanted(self) -> int:
        """The width at which no cell is shortened."""
        return max(map(columns_of, (*self.header, *self.cells)))

    @property
    def smallest(self) -> int:
        """The width to which the column may be narrowed."""
        return self.wanted if self.least is None else min(self.wanted, self.least)


def table(columns: Sequence[Column], width: int) -> list[str]:
    """The table's lines, header first, none wider than `width`."""
    kept = [column for column in columns if column.wanted]
    while _total([c.smallest for c in kept]) > width and any(c.drop for c in kept):
        kept.remove(max(kept, key=lambda column: column.drop))
    fitted = [_fitted(column, size) for column, size in zip(kept, _sizes(kept, width), strict=True)]
    rows = list(zip(*(_cells(column) for column in fitted), strict=True))
    return [shorten(_SPACE.join(row).rstrip(), width) for row in rows]


def paragraph(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """Break text at spaces. The first line starts with `first`, the others with `rest`."""
    rest = " " * columns_of(first) if rest is None else rest
    lines, line, empty = [], first, True
    for word in _words(text, max(width - max(columns_of(first), columns_of(rest)), 1)):
        if not empty and columns_of(line) + 1 + columns_of(word) > width:
            lines.append(line)
            line, empty = rest, True
        line += word if empty else f" {word}"
        empty = False
    return [shorten(line.rstrip(), width) for line in (*lines, line)]


def _words(text: str, width: int) -> Iterator[str]:
    """The words of the text; a word longer than a line is split."""
    for word in text.split(" "):
        piece = ""
        for cluster in clusters_of(word) if columns_of(word) > width else ():
            if piece and columns_of(piece + cluster) > width:
                yield piece
                piece = ""
            piece += cluster
        yield piece or word


def _total(sizes: Sequence[int]) -> int:
    return sum(sizes) + len(_SPACE) * (len(sizes) - 1)


def _sizes(columns: Sequence[Column], width: int) -> list[int]:
    """The width of each column. Whichever has most to spare is narrowed, until the table fits."""
    sizes = [column.wanted for column in columns]
    while _total(sizes) > width:
        spare = [s - c.smallest for s, c in zip(sizes, columns, strict=True)]
        if not any(spare):
            break
        sizes[spare.index(max(spare))] -= 1
    return sizes


def _fitted(column: Column, size: int) -> Column:
    if column.wanted <= size:
        return column
    top, bottom = column.header
    return replace(
        column,
        header=(shorten(top, size), shorten(bottom, size)),
        cells=[shorten(cell, size) for cell in column.cells],
    )


def _cells(column: Column) -> list[str]:
    size = column.wanted
    cells = (*column.header, *column.cells)
    pads = (" " * (size - columns_of(cell)) for cell in cells)
    return [p + cell if column.right else cell + p for p, cell in zip(pads, cells, strict=True)]
