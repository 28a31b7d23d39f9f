"""What a killed process leaves in a log: half-written files, lone tables, half a replacement.

To replace a record is to write the new one and to remove the old one. Between the two the log holds
both, so before them a mark is written, the hidden file `.<new record>.replaces`: where the new
record is there with its mark, the others of its iteration do not count, and the next that holds the
log's lock removes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pytest_ftloop.core.leftovers import is_leftover, sweep
from pytest_ftloop.log.files import RECORD_NAME

_MARK = re.compile(r"\.(\d{3,7}-([0-9a-f]{8})-[0-9a-f]{4})\.replaces")

_TABLE = re.compile(r"([0-9a-f-]+-[0-9a-f]{4})(?:\.guard-[^/]+)?\.examples\.csv")
"""A table of a record. Those of schema 1, which had no tag, were never left alone."""

_FOLDERS = ("", "seeds", "holdout", "base", "verdicts", "judge")
"""The folders of a log that files are written in."""


def mark_of(record: Path) -> Path:
    """The file that marks a record as replacing the others of its iteration."""
    return record.with_name(f".{record.stem}.replaces")


def replaced(names: Iterable[str]) -> frozenset[str]:
    """The records among these files of a log that a newer record with its mark replaces."""
    names = frozenset(names)
    marks = [m for name in names if name[0] == "." and (m := _MARK.fullmatch(name))]
    new = {match[2]: f"{match[1]}.yaml" for match in marks if f"{match[1]}.yaml" in names}
    if not new:
        return frozenset()
    records = (match for name in names if (match := RECORD_NAME.fullmatch(name)))
    return frozenset(m[0] for m in records if new.get(m[2], m[0]) != m[0])


def has_leftovers(names: Iterable[str]) -> bool:
    """Whether killed processes left something among these files of a log, or may be writing it."""
    names = frozenset(names)
    for name in names:
        folder, _, last = name.rpartition("/")
        if folder not in _FOLDERS:
            continue
        if last[0] == "." and (_MARK.fullmatch(last) or is_leftover(last)):
            return True
        if (match := _TABLE.fullmatch(last)) and _record(folder, match) not in names:
            return True
    return False


def _record(folder: str, table: re.Match[str]) -> str:
    return f"{folder}/{table[1]}.yaml" if folder else f"{table[1]}.yaml"


def remove_record(record: Path) -> None:
    """Remove a record, then its tables: a table alone is no record."""
    record.unlink(missing_ok=True)
    for table in sorted(record.parent.glob(f"{record.stem}.*examples.csv")):
        table.unlink(missing_ok=True)


def sweep_log(folder: Path) -> None:
    """Remove what killed processes left; only for one that holds the log's lock."""
    with suppress(OSError):  # what can't be removed is no reason for a run to fail: it stays
        names = {entry.name for entry in _files(folder)}
        for name in sorted(replaced(names)):
            remove_record(folder / name)
        for name in names:
            if _MARK.fullmatch(name):
                (folder / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        if not (folder / name).is_symlink():
            sweep(folder / name)
            _remove_lone_tables(folder / name)


def _remove_lone_tables(folder: Path) -> None:
    with suppress(OSError):
        names = {entry.name for entry in _files(folder)}
        for name in sorted(names):
            match = _TABLE.fullmatch(name)
            if match and f"{match[1]}.yaml" not in names:
                (folder / name).unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if entry.is_file(follow_symlinks=False))
