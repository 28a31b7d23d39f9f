"""What a log says, read from a folder or a commit; a file that is not what was written is refused.

Each record's name holds the start of a hash of its content, and each record the hash of its table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn, TypeVar

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.records import (
    ID_LENGTH,
    HoldoutUse,
    Iteration,
    Judgement,
    SeedRun,
    Untrained,
)
from pytest_ftloop.log.files import RECORD_NAME, Files, damaged
from pytest_ftloop.log.leftovers import replaced
from pytest_ftloop.log.record import (
    from_text,
    holdout_of,
    iteration_of,
    judgement_of,
    seed_run_of,
    untrained_of,
)
from pytest_ftloop.log.table import ExampleTable, Table
from pytest_ftloop.log.writing import as_written

_SEED_NAME = re.compile(r"seeds/([0-9a-f]{8})-(\d+)-([0-9a-f]{4})\.yaml")

_VERDICT_NAME = re.compile(r"verdicts/([0-9a-f]{8})-([0-9a-f]{8})\.yaml")

_HOLDOUT_NAME = re.compile(r"holdout/([0-9a-f]{8})-([0-9a-f]{4})\.yaml")

_BASE_NAME = re.compile(r"base/([0-9a-f]{8})-([0-9a-f]{4})\.yaml")

ITERATIONS = "iterations"
"""Where a view knows the list of them, with the names of the files that there were then."""

Kept = TypeVar("Kept")

Read = Callable[["LogView", str, re.Match[str]], Kept]
"""Reads one file of a view, given its name and the parts of that."""


@dataclass(frozen=True)
class LogView:
    """What a log says, wherever its files are. Each file is read once.

    `known` are the records that were read, by the names of their files. It has more than ten
    methods: each of the five kinds of record is listed by one and read by another.
    """

    files: Files
    known: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def names(self) -> frozenset[str]:
        """The files there were when it was first asked for, without records just replaced."""
        names = frozenset(self.files.names())
        return names - replaced(names)

    def iterations(self) -> tuple[Iteration, ...]:
        """All iterations, by number and id. A `LogError` names a damaged file and the cure.

        One that two branches trained, each under a number of its own or with a tag of its own,
        counts once: the lower name stands for both.
        """
        names: frozenset[str] | None
        iterations: tuple[Iteration, ...]
        names, iterations = self.known.get(ITERATIONS, (None, ()))
        if names != self.names:
            found: dict[str, Iteration] = {}
            for iteration in self._each(RECORD_NAME, LogView._iteration):
                found.setdefault(iteration.fingerprint, iteration)
            iterations = tuple(found.values())
            self.known[ITERATIONS] = self.names, iterations
        return iterations

    def seed_runs(self) -> tuple[SeedRun, ...]:
        """All seed runs, by the iteration's id and the seed."""
        runs = self._each(_SEED_NAME, LogView._seed_run)
        return tuple(sorted(runs, key=lambda run: (run.iteration, run.seed)))

    def judgements(self) -> tuple[Judgement, ...]:
        """All judgements, by name."""
        return tuple(self._each(_VERDICT_NAME, LogView._judgement))

    def holdout_uses(self) -> tuple[HoldoutUse, ...]:
        """All openings of the holdout, by name."""
        return tuple(self._each(_HOLDOUT_NAME, LogView._holdout_use))

    def bases(self) -> tuple[Untrained, ...]:
        """All measurements of the untrained base, by name."""
        return tuple(self._each(_BASE_NAME, LogView._base))

    def records(self) -> Iterator[Iteration | SeedRun | Untrained | Judgement | HoldoutUse]:
        """Every record of every kind that can be read; of two trainings of an iteration, both.

        A damaged one is left out: it is an error where its figures are needed.
        """
        for pattern, read in _KINDS:
            for name, match in self._matching(pattern):
                try:
                    record = read(self, name, match)
                except LogError:
                    continue
                yield record

    def check(self) -> None:
        """Raise a `LogError` for the first record of any kind that can't be read."""
        for pattern, read in _KINDS:
            for _ in self._each(pattern, read):
                pass

    def is_empty(self) -> bool:
        """Whether there is no iteration in it."""
        return next(self._matching(RECORD_NAME), None) is None

    def _each(self, pattern: re.Pattern[str], read: Read[Kept]) -> Iterator[Kept]:
        """What the files of one kind say, in order."""
        for name, match in self._matching(pattern):
            yield read(self, name, match)

    def _matching(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
        found = [(match, name) for name in self.names if (match := pattern.fullmatch(name))]

        def order(pair: tuple[re.Match[str], str]) -> tuple[int, str]:
            first = pair[0][1]
            return (int(first) if pattern is RECORD_NAME else 0, pair[1])

        for match, name in sorted(found, key=order):
            yield name, match

    def _iteration(self, name: str, match: re.Match[str]) -> Iteration:
        iteration = self._with_table(name, iteration_of, match[3] or "")
        if f"{match[1]}-{match[2]}" != iteration.name:
            self._says(name, iteration.name)
        if iteration.id != iteration.fingerprint[:ID_LENGTH]:
            why = f"its id {iteration.id} is not the start of its fingerprint"
            raise damaged(self.files.shown(name), why)
        if not match[3] and iteration.schema > 1:
            raise damaged(self.files.shown(name), "its name lacks the hash of what was written")
        return iteration

    def _seed_run(self, name: str, match: re.Match[str]) -> SeedRun:
        run = self._with_table(name, seed_run_of, match[3])
        if (match[1], match[2]) != (run.iteration, str(run.seed)):
            self._says(name, f"{run.iteration} with seed {run.seed}")
        return run

    def _judgement(self, name: str, match: re.Match[str]) -> Judgement:
        def read() -> Judgement:
            judgement = self._checked(name, judgement_of, match[2])
            if judgement.candidate != match[1]:
                self._says(name, judgement.candidate)
            return replace(judgement, tag=match[2])

        return self._once(name, read)

    def _holdout_use(self, name: str, match: re.Match[str]) -> HoldoutUse:
        use = self._with_table(name, holdout_of, match[2])
        if use.iteration != match[1]:
            self._says(name, use.iteration)
        return use

    def _base(self, name: str, match: re.Match[str]) -> Untrained:
        base = self._with_table(name, untrained_of, match[2])
        if base.id != match[1]:
            self._says(name, base.id)
        return base

    def _says(self, name: str, other: str) -> NoReturn:
        raise damaged(self.files.shown(name), f"it says it is {other}")

    def _once(self, name: str, make: Callable[[], Kept]) -> Kept:
        """What a file says, made of it where it is not known yet."""
        if name not in self.known:
            self.known[name] = make()
        kept: Kept = self.known[name]
        return kept

    def _checked(self, name: str, make: Callable[[str], Kept], tag: str) -> Kept:
        """What a file says, if that is what was written under this tag (schema 1 had none)."""
        text = self.files.read(name)
        written = as_written(text, tag) if tag else text
        kept = from_text(make, text if written is None else written, lambda: self.files.shown(name))
        if written is None:
            why = f"it is not what was written: the hash {tag} in its name is of other values"
            raise damaged(self.files.shown(name), why)
        return kept

    def _with_table(self, name: str, make: Callable[[str], tuple[Kept, Table]], tag: str) -> Kept:
        """A record together with its table, of which nothing is read yet."""
        table = table_of(name)

        def read() -> Kept:
            kept, said = self._checked(name, make, tag)
            of_guards = {guard: guard_table_of(name, guard) for guard in said.guards}
            for each in (table, *of_guards.values()):
                self._check_there(name, each)
            guards = {g: self._rows(of_guards[g], of) for g, of in said.guards.items()}
            more = {"guards": guards} if guards else {}
            return replace(kept, tag=tag, examples=self._rows(table, said), **more)  # type: ignore[type-var]

        kept = self._once(name, read)
        self._check_there(name, table)
        return kept

    def _check_there(self, name: str, table: str) -> None:
        """A `LogError` for a record whose table is missing."""
        if table not in self.names:
            why = f"its table {table.rpartition('/')[2]} is missing"
            cure = "Commit that, too (a rule of git may ignore it: git check-ignore -v shows it), "
            cure += "or delete the record and run pytest --ftloop."
            raise damaged(self.files.shown(name), why, cure=cure)

    def _rows(self, table: str, said: Table) -> ExampleTable:
        return ExampleTable(self.files, table, said)


_KINDS: tuple[tuple[re.Pattern[str], Read[Any]], ...] = (
    (RECORD_NAME, LogView._iteration),
    (_SEED_NAME, LogView._seed_run),
    (_BASE_NAME, LogView._base),
    (_VERDICT_NAME, LogView._judgement),
    (_HOLDOUT_NAME, LogView._holdout_use),
)
"""The kinds of record: the names of their files, and what reads one."""


def table_of(record: str) -> str:
    """The name of a record's table."""
    return f"{record.removesuffix('.yaml')}.examples.csv"


def guard_table_of(record: str, guard: str) -> str:
    """The name of the table of one of a record's guards."""
    return f"{record.removesuffix('.yaml')}.guard-{guard}.examples.csv"
