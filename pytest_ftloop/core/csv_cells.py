"""How long a cell of a CSV file may be."""

import csv


def allow_long_cells() -> None:
    """Let the csv module read cells of any length: a cell may hold a whole document."""
    csv.field_size_limit(2**31 - 1)
