"""Real kills: SIGKILL at a random moment of a command, which is then called again.

The second call has to end as if there had been no first: the same files, nothing beside them, and
at most the training that was killed trained twice. The commands run in forks of this process, so
nearly all of their time is work that can be torn, not the start of Python.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest import mock

from tests.torture.calls import called, called_apart, faults_of, started
from tests.torture.frame import LEFT, LOST, OTHER, Attempt, Fault, Kind
from tests.torture.world import World, filled_world, new_world

STEP_S = "0.0005"
"""Seconds per fake step: a training takes 50 ms, in which it can be killed as well."""


AFTER_RECORD = ("records/", "cache/trainings/")
"""Folders of what is written after a record, once, and whose loss costs no figure: a copy of the
record, which saves time elsewhere, and evidence that makes a later diagnosis whole."""


@dataclass(frozen=True)
class Case:
    """A command to kill, what is there before, and the command that has to mend it."""

    name: str
    start: str
    command: tuple[str, ...]
    again: tuple[str, ...]


CASES = tuple(
    Case(name, start, tuple(command.split()), tuple((again or command).split()))
    for name, start, command, again in (
        ("run", "new", "run", ""),
        ("retrain", "trained", "run --retrain", "run"),
        ("accept", "trained", "accept best --baseline", ""),
        ("calibrate", "trained", "calibrate --seeds 4", ""),
        ("export", "trained", "export best -o exported", "export best -o exported --force"),
        ("export --force", "filled", "export 1 -o exported --force", ""),
        ("report", "filled", "report -o out/report.html", ""),
        ("ci", "filled", "ci --out out", ""),
    )
)


@dataclass(frozen=True)
class Reference:
    """What a case is without a kill: its seconds, its files at the end, how often it trained."""

    seconds: float
    files: Mapping[str, bytes | None]
    trained: int


def prepare(folder: Path) -> Callable[[int, Random], Attempt]:
    """Make the three worlds that cases start from, and every case's reference."""
    starts = dict(_starts(folder))
    references: dict[str, Reference] = {}

    def attempt(number: int, random: Random) -> Attempt:
        case = CASES[number % len(CASES)]
        place = folder / "attempt"
        shutil.rmtree(place, ignore_errors=True)
        if case.name not in references:
            references[case.name] = _reference(case, starts[case.start].copy(place))
            shutil.rmtree(place)
        with starts[case.start].copy(place).entered():
            return _attempt(case, World(place), references[case.name], random)

    return attempt


def _starts(folder: Path) -> Iterator[tuple[str, World]]:
    new = new_world(folder / "new")
    new.write(rate="1.0e-3", iterations=3)
    yield "new", new
    trained = new.copy(folder / "trained")
    with trained.entered():
        assert called(["run"]).code in (0, 1)
    yield "trained", trained
    filled = filled_world(folder / "filled")
    with filled.entered():
        assert called(["export", "best", "-o", "exported"]).code == 0
    yield "filled", filled


def _reference(case: Case, world: World) -> Reference:
    """Run a case twice, as after a kill at its very end."""
    with world.entered(), mock.patch.dict(os.environ, _slow("1")):
        counted = _trained(world)
        begun = time.monotonic()
        called_apart(case.command, world.folder / "output")
        seconds = time.monotonic() - begun
        trained = _trained(world) - counted
        assert called_apart(case.again, world.folder / "output").code in (0, 1)
    return Reference(seconds, world.contents(), trained)


def _attempt(case: Case, world: World, reference: Reference, random: Random) -> Attempt:
    after_s = random.uniform(0, 1.05 * reference.seconds)
    # Another cost than before makes another record of the same training.
    with mock.patch.dict(os.environ, _slow("2" if case.name == "retrain" else "1")):
        counted = _trained(world)
        process = started(case.command, world.folder / "output")
        time.sleep(after_s)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        between = _trained(world) - counted
        done = called_apart(case.again, world.folder / "output")
        trained = _trained(world) - counted
    what = f"{' '.join(case.command)}, killed after {after_s:.3f} of {reference.seconds:.3f} s"
    faults = [*faults_of(done, (0, 1))]
    # What was killed is trained again, but for a retraining: there the old record holds.
    most = between if case.name == "retrain" else reference.trained + bool(between)
    if trained > most:
        faults.append(Fault(LOST, f"trained {trained} times, wanted {most} at most"))
    faults += _differences(case, world, reference)
    return Attempt(what, tuple(faults))


def _differences(case: Case, world: World, reference: Reference) -> Iterator[Fault]:
    """What is lost, left or another than without the kill.

    Of what trains, only the names are compared: a record says that scoring was interrupted.
    """
    found, wanted = world.contents(), reference.files
    if case.name in ("run", "retrain", "calibrate"):
        here, there = untagged(found), untagged(wanted)
        gone = [name for name in sorted(there - here) if not name.startswith(AFTER_RECORD)]
        yield from (Fault(LOST, f"{name} is missing") for name in gone)
        yield from (Fault(LEFT, f"{name} is left") for name in sorted(here - there))
        return
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield Fault(OTHER, f"{name} is missing")
        elif name not in wanted:
            yield Fault(LEFT, f"{name} is left")
        elif found[name] != wanted[name]:
            yield Fault(OTHER, f"{name} is another than without the kill")


def untagged(files: Mapping[str, bytes | None]) -> set[str]:
    """Names without the hashes of what is in the files; two records of a place give it twice."""
    names: dict[str, int] = {}
    for name in files:
        path, _, suffixes = name.partition(".")
        head, _, tag = path.rpartition("-")
        short = f"{head}.{suffixes}" if len(tag) == 4 and "-" in head else name
        names[short] = names.get(short, 0) + 1
    return {f"{name} #{n}" for name, count in names.items() for n in range(count)}


def _slow(cost: str) -> dict[str, str]:
    return {"FAKE_STEP_S": STEP_S, "FAKE_COST_S": cost}


def _trained(world: World) -> int:
    file = world.folder / "trained"
    return len(file.read_text().splitlines()) if file.exists() else 0


KIND = Kind("kills", 240, 150, prepare)
