"""The tables of a Markdown text as rows of cells, however they are padded."""

from __future__ import annotations


def rows_of(markdown: str) -> list[list[str]]:
    """Every row of every table, the line of dashes too, each cell without its padding."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
