"""The improvement log of one loop: read from a folder or a commit, written in a folder.

    <loop>/<number>-<id>-<tag>.yaml            the record of an iteration
    <loop>/<number>-<id>-<tag>.examples.csv    one row an eval example, sorted by id
    <loop>/seeds/<id>-<seed>-<tag>.yaml        the same settings with another seed, and its table
    <loop>/verdicts/<id>-<tag>.yaml            a judgement of an iteration
    <loop>/holdout/<id>-<tag>.yaml             an opening of the holdout, and its table

No file is changed once it is committed, and a name says what is in it: branches that add to a log
merge without a conflict. (Two that both retrain one iteration do conflict: each removes its files.)
Keys in a fixed order, floats rounded, no times of day: the same loop on the same machine writes the
same, but for the cost and the tag, a hash of the record. A record is complete once its YAML exists;
the CSV is written before it.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.metrics import best_metrics, split_name
from pytest_ftloop.core.records import (
    Evaluation,
    ExampleResult,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
)
from pytest_ftloop.log.files import (
    RECORD_NAME,
    Files,
    FolderFiles,
    damaged,
    unwritable,
)
from pytest_ftloop.log.record import (
    from_text,
    holdout_of,
    iteration_of,
    judgement_of,
    seed_run_of,
)
from pytest_ftloop.log.table import ExampleTable, examples_csv
from pytest_ftloop.log.writing import (
    holdout_yaml,
    judgement_yaml,
    seed_run_yaml,
    tag_of,
    to_yaml,
)

if TYPE_CHECKING:
    from pathlib import Path


FOLDER = "improvement_log"

_SEED_NAME = re.compile(r"seeds/([0-9a-f]{8})-(\d+)-([0-9a-f]{4})\.yaml")

_VERDICT_NAME = re.compile(r"verdicts/([0-9a-f]{8})-([0-9a-f]{8})\.yaml")

_HOLDOUT_NAME = re.compile(r"holdout/([0-9a-f]{8})-([0-9a-f]{4})\.yaml")

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class LogView:
    """What a log says, wherever its files are. Each file is read once.

    `known` are the records that were read, by the names of their files.
    """

    files: Files
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def names(self) -> frozenset[str]:
        """The files there were when it was first asked for."""
        return self.files.names()

    def iterations(self) -> tuple[Iteration, ...]:
        """All iterations, by number and id. A `LogError` names a damaged file and the cure.

        One that two branches trained, each under a number of its own or with a tag of its own,
        counts once: the lower name stands for both.
        """
        found: dict[str, Iteration] = {}
        for name, match in self._matching(RECORD_NAME):
            iteration = self._with_table(name, iteration_of, match[3] or "")
            if f"{match[1]}-{match[2]}" != iteration.name:
                self._says(name, iteration.name)
            found.setdefault(iteration.fingerprint, iteration)
        return tuple(found.values())

    def seed_runs(self) -> tuple[SeedRun, ...]:
        """All seed runs, by the iteration's id and the seed."""
        runs = []
        for name, match in self._matching(_SEED_NAME):
            run = self._with_table(name, seed_run_of, match[3])
            if (match[1], match[2]) != (run.iteration, str(run.seed)):
                self._says(name, f"{run.iteration} with seed {run.seed}")
            runs.append(run)
        return tuple(sorted(runs, key=lambda run: (run.iteration, run.seed)))

    def judgements(self) -> tuple[Judgement, ...]:
        """All judgements, by name. One that was changed after it was written is damaged."""
        found = self._matching(_VERDICT_NAME)
        return tuple(
            self._once(name, partial(self._judgement, name, match)) for name, match in found
        )

    def holdout_uses(self) -> tuple[HoldoutUse, ...]:
        """All openings of the holdout, by name."""
        found = []
        for name, match in self._matching(_HOLDOUT_NAME):
            use = self._with_table(name, holdout_of, match[2])
            if use.iteration != match[1]:
                self._says(name, use.iteration)
            found.append(use)
        return tuple(found)

    def is_empty(self) -> bool:
        """Whether there is no iteration in it."""
        return next(self._matching(RECORD_NAME), None) is None

    def _matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
        found = [(match, name) for name in self.names if (match := pattern.fullmatch(name))]

        def order(pair: tuple[re.Match[str], str]) -> tuple[int, str]:
            first = pair[0][1]
            return (int(first) if pattern is RECORD_NAME else 0, pair[1])

        for match, name in sorted(found, key=order):
            yield name, match

    def _says(self, name: str, other: str) -> NoReturn:
        raise damaged(self.files.shown(name), f"it says it is {other}")

    def _once(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What a file says, made of it where it is not known yet."""
        if name not in self.known:
            self.known[name] = make()
        kept: Kept = self.known[name]
        return kept

    def _judgement(self, name: str, match: re.Match[str]) -> Judgement:
        text = self.files.read(name)
        judgement = from_text(judgement_of, text, lambda: self.files.shown(name))
        if tag_of(text, 8) != match[2]:
            raise damaged(self.files.shown(name), "it is not what was written")
        if judgement.candidate != match[1]:
            self._says(name, judgement.candidate)
        return replace(judgement, tag=match[2])

    def _with_table(self, name: str, make: Callable[[str], tuple[Kept, str]], tag: str) -> Kept:
        """A record together with its table, of which nothing is read yet."""
        table = f"{name.removesuffix('.yaml')}.examples.csv"

        def read() -> Kept:
            text = self.files.read(name)
            kept, digest = from_text(make, text, lambda: self.files.shown(name))
            rows = ExampleTable(self.files, table, digest)
            return replace(kept, tag=tag, examples=rows)  # type: ignore[type-var]

        kept = self._once(name, read)
        if table not in self.names:
            why = f"its table {table.rpartition('/')[2]} is missing"
            raise damaged(self.files.shown(name), why)
        return kept


@dataclass(frozen=True)
class ImprovementLog:
    """The log of one loop: the folder `<log folder>/<loop>`.

    A file is read once, so a command makes one of these for each log and hands it down. It has more
    than ten methods because nothing else writes to the folder: one appends each of the four kinds
    of record, the others sweep, remove and verify.
    """

    folder: Path
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def view(self) -> LogView:
        """What it says now, of the files that are there now."""
        return LogView(FolderFiles(self.folder), self._known)

    def read(self) -> tuple[Iteration, ...]:
        """All iterations, by number and id. A `LogError` names a damaged file and the cure."""
        return self.view.iterations()

    def append(self, iteration: Iteration) -> Iteration:
        """Write an iteration's two files and return it as it reads back, rounded as it is kept."""
        rows = examples_csv(iteration.examples)
        return self._write_pair(iteration, to_yaml(iteration, _digest(rows)), rows, iteration_of)

    def append_seed_run(self, run: SeedRun) -> SeedRun:
        """Write a seed run's two files and return it as it reads back."""
        rows = examples_csv(run.examples)
        return self._write_pair(run, seed_run_yaml(run, _digest(rows)), rows, seed_run_of)

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
        silent = tuple(replace(row, expected="", output="") for row in use.examples)
        use = replace(use, examples=silent)
        rows = examples_csv(silent)
        return self._write_pair(use, holdout_yaml(use, _digest(rows)), rows, holdout_of)

    def verify(self, iteration: Iteration | SeedRun | HoldoutUse) -> None:
        """Raise a `LogError` where a record's figures are not those of its table of examples.

        A log that blocks merges must not be mended by writing a better figure into it.
        """
        verify(iteration, self.files(iteration)[0])

    def sweep(self) -> None:
        """Remove what a killed process left half-written; only for the one that holds the lock."""
        if self.folder.is_dir():
            for leftover in self.folder.rglob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def remove(self, iteration: Iteration) -> None:
        """Remove every file of an iteration, records first: a table alone is no iteration.

        That is one pair of files, or as many as branches that trained it were merged.
        """
        self._remove_trainings(iteration, ())

    def remove_others(self, iteration: Iteration) -> None:
        """Remove every other training of an iteration, which would count in its place."""
        self._remove_trainings(iteration, self.files(iteration))

    def _remove_trainings(self, iteration: Iteration, kept: Sequence[Path]) -> None:
        for record in self.folder.glob(f"*-{iteration.id}*.yaml"):
            if RECORD_NAME.fullmatch(record.name) and record not in kept:
                record.unlink(missing_ok=True)
                record.with_name(f"{record.stem}.examples.csv").unlink(missing_ok=True)

    def check_writable(self) -> None:
        """A `LogError` now rather than after a training; nothing is left behind."""
        existing = self.folder
        while not existing.exists():
            existing = existing.parent
        if not existing.is_dir():
            raise unwritable(self.folder, NotADirectoryError(20, "Not a directory"))
        probe = existing / f".ftloop-probe-{os.getpid()}"
        try:
            probe.touch()
            probe.unlink(missing_ok=True)  # another thread's probe has the same name
        except OSError as error:
            raise unwritable(self.folder, error) from None

    def files(self, kept: Iteration | SeedRun | Judgement | HoldoutUse) -> tuple[Path, ...]:
        """The files of what the log holds: a record, and its table where it has one."""
        match kept:
            case Iteration():
                stem = f"{kept.name}-{kept.tag}" if kept.tag else kept.name
            case SeedRun():
                stem = f"seeds/{kept.iteration}-{kept.seed}-{kept.tag}"
            case Judgement():
                return (self.folder / f"verdicts/{kept.name}.yaml",)
            case HoldoutUse():
                stem = f"holdout/{kept.iteration}-{kept.tag}"
        return (self.folder / f"{stem}.yaml", self.folder / f"{stem}.examples.csv")

    def _write_pair(
        self, new: Kept, text: str, rows: str, make: Callable[[str], tuple[Kept, str]]
    ) -> Kept:
        """Write a record and its table; what was written, as it reads back.

        It is read first: nothing that can't be read is written.
        """
        tag = tag_of(text)
        tagged: Any = replace(new, tag=tag)  # type: ignore[type-var]
        record, table = self.files(tagged)
        kept, digest = from_text(make, text, lambda: shown_path(record))
        self._write({table: rows, record: text})
        name = table.relative_to(self.folder).as_posix()
        back = ExampleTable(FolderFiles(self.folder), name, digest)
        return replace(kept, tag=tag, examples=back)  # type: ignore[type-var]

    def _write(self, files: Mapping[Path, str]) -> None:
        """Write files in this order: the record last, which completes what it belongs to."""
        try:
            for path, text in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, text)
                self._known.pop(path.relative_to(self.folder).as_posix(), None)
        except OSError as error:
            raise unwritable(self.folder, error) from None


def verify(kept: Iteration | SeedRun | HoldoutUse, where: Path | str) -> None:
    """Raise a `LogError` where a record's figures are not those of its table of examples."""
    rows: tuple[ExampleResult, ...] = tuple(kept.examples)
    said = best_metrics(Evaluation(rows, (), (), math.nan))
    for name, value in said.items():
        if split_name(name)[0] not in {"eval_loss", "pass_rate", "token_accuracy"}:
            continue
        found = kept.metrics.get(name, math.nan)
        # A table's losses are rounded; each token's share of that is far below this.
        both_nan = math.isnan(found) and math.isnan(value)
        if not both_nan and not math.isclose(found, value, abs_tol=1e-5):
            shown = where if isinstance(where, str) else shown_path(where)
            raise damaged(shown, f"it says {name} {found}, its table of examples {value}")


def _digest(rows: str) -> str:
    return hashlib.sha256(rows.encode()).hexdigest()
