"""The log at a commit, as far as it can be read: what is damaged there must not block its repair.

A damaged file of the commit gives way to the file of the same name in the log that is judged: the
hash in the name says that it is the same. If there is none, its record counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

from pytest_ftloop.core.errors import DamagedLogError
from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.log.files import CommitFiles, FolderFiles
from pytest_ftloop.log.table import ExampleTable, Table
from pytest_ftloop.log.view import Kept, LogView, Read, guard_table_of, table_of


@dataclass(frozen=True)
class Damage:
    """A damaged file, by its path in the repository; why; and whether another took its place."""

    file: str
    why: str
    is_replaced: bool


@dataclass(frozen=True)
class MendedView(LogView):
    """What the log at a commit says. `damages` are the damaged files among those read so far.

    `spare` is the log that is judged. A file that is damaged there, too, is an error.
    """

    spare: LogView = field(default_factory=lambda: LogView(FolderFiles(Path())), repr=False)
    damages: dict[str, Damage] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_lost(self) -> bool:
        """Whether files are damaged, and no iteration could be read."""
        return bool(self.damages) and not self.iterations()

    def notes(self, shown: str) -> tuple[str, ...]:
        """What to tell of the damages; `shown` names the commit."""
        replaced = [damage for damage in self.damages.values() if damage.is_replaced]
        absent = [damage for damage in self.damages.values() if not damage.is_replaced]
        how = (
            (replaced, "judged with the repaired files of this change"),
            (absent, "nothing of it can be read" if self.is_lost else "judged without it"),
        )
        return tuple(
            f"the log at {shown} is damaged: {_listed(damages)}; {then}"
            for damages, then in how
            if damages
        )

    def _each(self, pattern: re.Pattern[str], read: Read[Kept]) -> Iterator[Kept]:
        if self._alone:
            tables = {table_of(name) for name, _ in self._matching(pattern)}
            cast("CommitFiles", self.files).read_ahead(sorted(tables & self._alone))
        for name, match in self._matching(pattern):
            try:
                kept = read(self, name, match)
                self._check_table(name, kept)
            except DamagedLogError as error:
                if name in self.spare.names:
                    kept = read(self.spare, name, match)
                    self.tell(name, error, is_replaced=True)
                else:
                    self.tell(name, error, is_replaced=False)
                    continue
            yield kept

    @cached_property
    def _alone(self) -> frozenset[str]:
        """The tables that nothing could take the place of."""
        return frozenset(n for n in self.names - self.spare.names if n.endswith(".csv"))

    def _check_table(self, name: str, kept: object) -> None:
        # Other tables are read when they are looked at: 200 of them would take seconds.
        if not self._alone:
            return
        tables = {table_of(name): getattr(kept, "examples", None)}
        guards = getattr(kept, "guards", {})
        tables |= {guard_table_of(name, guard): rows for guard, rows in guards.items()}
        for table, rows in tables.items():
            if isinstance(rows, ExampleTable) and table in self._alone:
                rows.check()

    def _rows(self, table: str, said: Table) -> ExampleTable:
        return _MendedTable(self, table, said)

    def tell(self, name: str, error: DamagedLogError, *, is_replaced: bool) -> None:
        """Note a damaged file."""
        file = error.where.file.partition(":")[2] if error.where else name
        self.damages[name] = Damage(file, error.why, is_replaced)


class _MendedTable(ExampleTable):
    """A commit's table, or that of the same name in the log that is judged."""

    def __init__(self, view: MendedView, name: str, said: Table) -> None:
        super().__init__(view.files, name, said)
        self._view = view

    def _sound(self) -> tuple[ExampleResult, ...]:
        try:
            return super()._sound()
        except DamagedLogError as error:
            if self._name not in self._view.spare.names:
                raise
            rows = ExampleTable(self._view.spare.files, self._name, self._said)._sound()
            self._view.tell(self._name, error, is_replaced=True)
            return rows


def mended(files: CommitFiles, log_folder: Path) -> MendedView:
    """The log at a commit, mended with the one in a folder."""
    return MendedView(files, spare=LogView(FolderFiles(log_folder)))


def _listed(damages: list[Damage]) -> str:
    first = f"{damages[0].file}: {damages[0].why}"
    more = len(damages) - 1
    return first + (f", and {more} more file{'s' if more > 1 else ''}" if more else "")
