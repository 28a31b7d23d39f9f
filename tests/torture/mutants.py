"""Mutated files through the real commands: each is read, or refused in one message, in time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from tests.torture.calls import Done, called, called_pytest, faults_of
from tests.torture.frame import LEFT, Attempt, Fault, Kind
from tests.torture.mutate import Mutant, mutants, sealed
from tests.torture.world import World, filled_world

_OFTEN = (
    *("run --replay", "log", "log --format json", "show best", "show 1", "diff", "gate"),
    *("gate --json", "suggest", "diagnose x.ftloop.yaml", "accept best", "export best -o made"),
    *("calibrate --seeds 3", "accept 1 --baseline", "run -q", "diff HEAD~1..HEAD"),
)
_RARELY = ("report -o out/page.html", "ci --out out", "pytest --ftloop --ftloop-replay -q")
"""These take three times as long."""
READING = (*_OFTEN, *_OFTEN, *_OFTEN, *_RARELY)
"""Commands that read a loop, its data and its log."""

FOLDERS = ("seeds/", "base/", "holdout/")
"""Those of a log that hold records of other kinds than iterations; verdicts are apart."""


@dataclass(frozen=True)
class Target:
    """A kind of file: the patterns of its places, and the commands that read it."""

    name: str
    patterns: tuple[str, ...]
    commands: Sequence[str] = READING


TARGETS = (
    Target("loop files", ("project/*.ftloop.yaml",)),
    Target(
        "records",
        tuple(f"project/improvement_log/x/{of}*.yaml" for of in ("", *FOLDERS)),
    ),
    Target("tables", ("project/improvement_log/x/**/*.csv",)),
    Target("verdicts", ("project/improvement_log/x/verdicts/*.yaml",)),
    Target("states", ("project/trainer_state.json",), ("diagnose trainer_state.json",)),
    Target("data rows", ("project/*.jsonl",)),
    Target("reports", ("project/out/report.json",), ("comment out --dry-run",)),
    Target("trainings", ("cache/trainings/*.json",), ("run", "calibrate --seeds 3")),
    Target("adapters", ("cache/adapters/*/adapter_config.json",), ("export best -o made",)),
    Target("kept records", ("records/**/*.yaml", "records/**/*.csv"), ("run", "calibrate")),
)
OFTEN = (0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 7, 8, 9)
"""Which target each of sixteen attempts has."""


def prepare(folder: Path) -> Callable[[int, Random], Attempt]:
    """Make the world whose files are mutated, one at a time."""
    world = filled_world(folder / "world")
    (world.root / "out" / "report.html").unlink()
    pristine = world.contents()

    @cache
    def versions(name: str) -> list[Mutant]:
        return mutants(name, pristine[name] or b"")

    def attempt(number: int, random: Random) -> Attempt:
        target = TARGETS[OFTEN[number % len(OFTEN)]]
        name = random.choice(list(_matching(world, target)))
        mutant = random.choice(versions(name))
        command = random.choice(target.commands)
        with world.entered():
            seals = _put(world, target, name, mutant, random)
            done, faults = _tried(world, command)
        world.restore(pristine)
        what = f"{name}: {mutant.name}{' (sealed)' if seals else ''}: {command}: {done.code}"
        return Attempt(what, faults)

    return attempt


def _matching(world: World, target: Target) -> Iterator[str]:
    for pattern in target.patterns:
        for path in sorted(world.folder.glob(pattern)):
            yield path.relative_to(world.folder).as_posix()


def _put(world: World, target: Target, name: str, mutant: Mutant, random: Random) -> bool:
    """Write the mutant; whether the hashes in the log were made to fit it."""
    (world.folder / name).write_bytes(mutant.content)
    if target.name == "trainings":  # it is read where an iteration is measured again
        loop = world.root / "x.ftloop.yaml"
        loop.write_text(loop.read_text().replace("scorer: exact", "scorer: contains"))
    if target.name == "kept records":  # they are read where the log lacks them
        shutil.rmtree(world.log)
    seals = target.name in ("records", "tables", "verdicts") and random.random() < 0.6
    if seals:
        sealed(world.log)
    return seals


def _tried(world: World, command: str) -> tuple[Done, tuple[Fault, ...]]:
    before = world.files()
    if command.startswith("pytest "):
        done = called_pytest(command.split()[1:])
        faults = list(faults_of(done, (0, 1, 2, 4, 5)))
    else:
        done = called(command.split())
        faults = list(faults_of(done))
    faults += _left(command, done, before, world.files())
    return done, tuple(faults)


def _left(
    command: str, done: Done, before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[Fault]:
    """What a command that refused its input wrote, and what any left half-made."""
    for name in sorted(after):
        if name in before and after[name] == before[name]:
            continue
        # Both report an error as they do a verdict, into a file of their own.
        is_report = name.startswith("project/out/") and command.startswith(("ci ", "report "))
        if (done.code in (2, 3) and not is_report) or ".tmp" in name or "making-" in name:
            yield Fault(LEFT, f"{command}: exit code {done.code}, but {name} was written")
    for name in sorted(before.keys() - after.keys()):
        if done.code in (2, 3):
            yield Fault(LEFT, f"{command}: exit code {done.code}, but {name} was removed")


KIND = Kind("mutants", 10_400, 600, prepare)
