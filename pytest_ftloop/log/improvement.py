"""The improvement log of one loop: read from a folder or a commit, written in a folder.

    <loop>/<number>-<id>-<tag>.yaml            the record of an iteration
    <loop>/<number>-<id>-<tag>.examples.csv    one row an eval example, sorted by id
    <loop>/seeds/<id>-<seed>-<tag>.yaml        the same settings with another seed, and its table
    <loop>/verdicts/<id>-<tag>.yaml            a judgement of an iteration
    <loop>/holdout/<id>-<tag>.yaml             an opening of the holdout, and its table
    <loop>/judge/<hash>.jsonl                  answers of the judge (`answers`)
    <loop>/base/<id>-<tag>.yaml                what the untrained base gives, and its table

A record whose loop has guards has a table more for each: `....guard-<guard>.examples.csv`.

No file is changed once it is committed, and a name says what is in it: branches that add to a log
merge without a conflict. (Two that both retrain one iteration do conflict: each removes its files.)
Keys in a fixed order, floats rounded, no times of day: the same loop on the same machine writes the
same, but for the cost and the tag, a hash of the record. A record is complete once its YAML exists;
the CSV is written before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_ftloop.core.errors import LogError, shown_path
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.records import (
    ExampleResult,
    Guarded,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Untrained,
)
from pytest_ftloop.log.consistent import verify
from pytest_ftloop.log.files import RECORD_NAME, FolderFiles, check_folder, unwritable
from pytest_ftloop.log.leftovers import mark_of, remove_record, sweep_log
from pytest_ftloop.log.record import (
    from_text,
    holdout_of,
    iteration_of,
    judgement_of,
    seed_run_of,
    untrained_of,
)
from pytest_ftloop.log.table import ExampleTable, Table, examples_csv, sha256_of
from pytest_ftloop.log.view import ITERATIONS, LogView, guard_table_of, table_of
from pytest_ftloop.log.writing import (
    holdout_yaml,
    judgement_yaml,
    seed_run_yaml,
    tag_of,
    to_yaml,
    untrained_yaml,
)

if TYPE_CHECKING:
    from pathlib import Path


Kept = TypeVar("Kept")


AnyRecord = Iteration | SeedRun | Judgement | HoldoutUse | Untrained


@dataclass(frozen=True)
class _Texts:
    """The text of a record's table, and of those of its guards by guard."""

    examples: str
    guards: Mapping[str, str]
    said: Mapping[str, Table]

    @classmethod
    def of(cls, examples: Sequence[ExampleResult], guards: Guarded) -> _Texts:
        texts = {guard: examples_csv(rows) for guard, rows in guards.items()}
        said = {guard: Table(len(guards[guard]), sha256_of(text)) for guard, text in texts.items()}
        return cls(examples_csv(examples), texts, said)

    @property
    def sha256(self) -> str:
        return sha256_of(self.examples)


def _and_then(record: AnyRecord) -> str:
    """What replaces a record that was deleted."""
    return " and train again" if isinstance(record, Iteration | SeedRun) else ""


@dataclass(frozen=True)
class ImprovementLog:
    """The log of one loop: the folder `<log folder>/<loop>`.

    A file is read once, so a command makes one of these for each log and hands it down. It has more
    than ten methods because nothing else writes to the folder: one appends each of the five kinds
    of record, the others sweep, remove, verify and name what it exposes.
    """

    folder: Path
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def view(self) -> LogView:
        """What it says now, of the files that are there now."""
        check_folder(self.folder)
        return LogView(FolderFiles(self.folder), self._known)

    def read(self) -> tuple[Iteration, ...]:
        """All iterations, by number and id. A `LogError` names a damaged file and the cure."""
        return self.view.iterations()

    def append(self, iteration: Iteration) -> Iteration:
        """Write an iteration's files and return it as it reads back, rounded as it is kept."""
        tables = _Texts.of(iteration.examples, iteration.guards)
        text = to_yaml(iteration, tables.sha256, tables.said)
        return self._write_all(iteration, text, tables, iteration_of)

    def put(self, iteration: Iteration) -> Iteration:
        """As `append`, in place of every other record of the iteration.

        Whenever it is interrupted, either the old ones count or the new one.
        """
        tables = _Texts.of(iteration.examples, iteration.guards)
        text = to_yaml(iteration, tables.sha256, tables.said)
        record, *_ = self.files(replace(iteration, tag=tag_of(text)))
        others = [path for path in self._records(iteration) if path != record]
        if not others:
            return self._write_all(iteration, text, tables, iteration_of)
        mark = mark_of(record)
        try:
            mark.touch()
        except OSError as error:
            raise unwritable(self.folder, error) from None
        try:
            written = self._write_all(iteration, text, tables, iteration_of)
        except LogError:
            with suppress(OSError):  # without the new record it has no effect
                mark.unlink(missing_ok=True)
            raise
        self._remove(others)
        with suppress(OSError):  # nor without the others
            mark.unlink(missing_ok=True)
        return written

    def append_seed_run(self, run: SeedRun) -> SeedRun:
        """Write a seed run's files and return it as it reads back."""
        tables = _Texts.of(run.examples, run.guards)
        text = seed_run_yaml(run, tables.sha256, tables.said)
        return self._write_all(run, text, tables, seed_run_of)

    def append_base(self, base: Untrained) -> Untrained:
        """Write the files of a measurement of the base and return it as it reads back."""
        tables = _Texts.of(base.examples, base.guards)
        text = untrained_yaml(base, tables.sha256, tables.said)
        return self._write_all(base, text, tables, untrained_of)

    def append_judgement(self, judgement: Judgement) -> Judgement:
        """Write a judgement's file and return it with its name."""
        text = judgement_yaml(judgement)
        tagged = replace(judgement, tag=tag_of(text, 8))
        (path,) = self.files(tagged)
        kept = from_text(judgement_of, text, lambda: shown_path(path))
        self._write({path: text})
        return replace(kept, tag=tagged.tag)

    def append_holdout_use(self, use: HoldoutUse) -> HoldoutUse:
        """Write a holdout use's two files, without any text of the holdout's."""
        silent = tuple(replace(row, expected="", output="", outputs=()) for row in use.examples)
        use = replace(use, examples=silent)
        tables = _Texts.of(silent, {})
        return self._write_all(use, holdout_yaml(use, tables.sha256), tables, holdout_of)

    def exposed(self) -> tuple[str, ...]:
        """A note for each record that holds a credential: older versions wrote some."""
        return tuple(
            f"{self.shown(record)} holds a credential ({', '.join(record.exposed)}): renew it, "
            f"since version control keeps it, then delete the record{_and_then(record)}"
            for record in self.view.records()
            if record.exposed
        )

    def verify(self, iteration: Iteration | SeedRun | HoldoutUse | Untrained) -> None:
        """Raise a `LogError` where a record's figures contradict its table or one another.

        A log that blocks merges must not be mended by writing a better figure into it.
        """
        verify(iteration, self.files(iteration)[0])

    def sweep(self) -> None:
        """Remove what killed processes left; only for the one that holds the lock."""
        check_folder(self.folder)
        sweep_log(self.folder)

    def remove(self, iteration: Iteration) -> None:
        """Remove every file of an iteration.

        That is one pair of files, or as many as branches that trained it were merged.
        """
        self._remove(self._records(iteration))

    def remove_seed_run(self, run: SeedRun) -> None:
        """Remove a seed run's files."""
        self._remove(self.files(run)[:1])

    def _records(self, iteration: Iteration) -> list[Path]:
        """The records of an iteration: several where branches that trained it were merged."""
        found = sorted(self.folder.glob(f"*-{iteration.id}*.yaml"))
        return [path for path in found if RECORD_NAME.fullmatch(path.name)]

    def _remove(self, records: Sequence[Path]) -> None:
        check_folder(self.folder)
        for record in records:
            self._read_rows(record)
        try:
            for record in records:
                remove_record(record)
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def _read_rows(self, record: Path) -> None:
        """Read the tables of a record that is about to be removed, for those that hold it.

        The diagnosis of a training that replaces it may compare the two.
        """
        kept = self._known.get(record.relative_to(self.folder).as_posix())
        tables = (kept.examples, *getattr(kept, "guards", {}).values()) if kept else ()
        for table in tables:
            with suppress(LogError):  # damaged, it is an error where something rests on it
                len(table)

    def check_writable(self) -> None:
        """A `LogError` now rather than after a training; nothing is left behind."""
        check_folder(self.folder)
        existing = self.folder
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise unwritable(self.folder, NotADirectoryError(20, "Not a directory"))
        try:
            with tempfile.TemporaryFile(dir=existing):  # without a name, where the system can
                pass
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def files(self, kept: AnyRecord) -> tuple[Path, ...]:
        """The files of what the log holds: a record, then its table, then those of its guards."""
        match kept:
            case Untrained() | Iteration(is_untrained=True):
                stem = f"base/{kept.id}-{kept.tag}"
            case Iteration():
                stem = f"{kept.name}-{kept.tag}" if kept.tag else kept.name
            case SeedRun():
                stem = f"seeds/{kept.iteration}-{kept.seed}-{kept.tag}"
            case Judgement():
                return (self.folder / f"verdicts/{kept.name}.yaml",)
            case HoldoutUse():
                stem = f"holdout/{kept.iteration}-{kept.tag}"
        record = f"{stem}.yaml"
        guards = () if isinstance(kept, HoldoutUse) else kept.guards
        tables = (table_of(record), *(guard_table_of(record, guard) for guard in guards))
        return tuple(self.folder / name for name in (record, *tables))

    def places(self, iteration: Iteration) -> tuple[Path, ...]:
        """The files in which what is known of an iteration may be written, one of each kind.

        The hash in their names is 0, as long as there is nothing in them.
        """
        seed = f"seeds/{iteration.id}-{iteration.seed + 1}-0000"
        verdict, holdout = f"verdicts/{iteration.id}-00000000", f"holdout/{iteration.id}-0000"
        base = f"base/{iteration.id}-0000"
        names = [f"{stem}.yaml" for stem in (seed, verdict, holdout, base)]
        names += [f"{stem}.examples.csv" for stem in (seed, holdout, base)]
        return tuple(self.folder / name for name in names)

    def shown(self, kept: AnyRecord) -> str:
        """What to call a record's file in messages."""
        return shown_path(self.files(kept)[0])

    def _write_all(
        self, new: Kept, text: str, tables: _Texts, make: Callable[[str], tuple[Kept, Table]]
    ) -> Kept:
        """Write a record and its tables; what was written, as it reads back.

        It is read first: nothing that can't be read is written.
        """
        tag = tag_of(text)
        tagged: Any = replace(new, tag=tag)  # type: ignore[type-var]
        record, table, *of_guards = self.files(tagged)
        kept, said = from_text(make, text, lambda: shown_path(record))
        by_guard = dict(zip(tables.guards, of_guards, strict=True))
        texts = {by_guard[guard]: rows for guard, rows in tables.guards.items()}
        self._write({table: tables.examples, **texts, record: text})

        def back(path: Path, said: Table) -> ExampleTable:
            name = path.relative_to(self.folder).as_posix()
            return ExampleTable(FolderFiles(self.folder), name, said)

        guards = {guard: back(by_guard[guard], of) for guard, of in said.guards.items()}
        more = {"guards": guards} if guards else {}
        return replace(kept, tag=tag, examples=back(table, said), **more)  # type: ignore[type-var]

    def _write(self, files: Mapping[Path, str]) -> None:
        """Write files in this order: the record last, which completes what it belongs to."""
        check_folder(self.folder)
        try:
            for path, text in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, text)
                self._known.pop(path.relative_to(self.folder).as_posix(), None)
            self._known.pop(ITERATIONS, None)  # a record that was removed may be written again
        except OSError as error:
            raise unwritable(self.folder, error) from None
