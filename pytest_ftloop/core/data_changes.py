"""How a data set changed between two versions, as plain records for the reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["relabelled", "edited", "removed", "added"]


@dataclass(frozen=True)
class RowEdit:
    """One row that changed, with its text before and after.

    A removed row has no `after`, an added one no `before`. `prompt` is that of the row now, or of
    the removed one.
    """

    kind: Kind
    id: str
    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class DataChange:
    """What changed in the data set of a role: the counts in a line, and a few rows as examples.

    `file` is the set's file as the loop file names it, if the baseline's commit has the version
    from before: then git can restore it.
    """

    role: str
    text: str
    edits: tuple[RowEdit, ...] = ()
    file: str = ""
