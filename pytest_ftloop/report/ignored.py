"""What a commit would lack where git ignores files of the log, and what would come of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from pytest_ftloop.report.escape import shorten

_TABLE = ".examples.csv"
_KINDS = {
    "records": "a clone has no log, so nothing is compared and all is trained again",
    "tables of examples": "a clone finds the log damaged",
    "seeds": "a verdict that needed them is incomplete in a clone",
    "verdicts": "what was accepted is forgotten",
    "holdout": "its openings are not counted",
}
"""The kinds of files of a log, and what is missed without them."""


def ignored_lines(ignored: Collection[Path], command: str, width: int) -> list[str]:
    """What git ignores, by kind, and the command that shows the rules."""
    lines = [shorten("git ignores files of the log, so that no commit has them:", width)]
    kinds = {kind_of(file) for file in ignored}
    lines += [shorten(f"  {kind}: {then}", width) for kind, then in _KINDS.items() if kind in kinds]
    return [*lines, shorten("mend the rules, which this shows:", width), f"  {command}"]


def one_of_each_kind(ignored: Sequence[Path]) -> list[Path]:
    """The first file of each kind."""
    found: dict[str, Path] = {}
    for file in ignored:
        found.setdefault(kind_of(file), file)
    return [found[kind] for kind in _KINDS if kind in found]


def kind_of(file: Path) -> str:
    """The kind of a file of the log, in the words above."""
    if file.parent.name in {"seeds", "verdicts", "holdout"}:
        return file.parent.name
    return "tables of examples" if file.name.endswith(_TABLE) else "records"
