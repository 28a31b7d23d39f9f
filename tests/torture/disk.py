"""A disk that refuses each single write of a command: full, read-only, broken, not ours.

A command that is refused says so, loses nothing that was there, leaves nothing half-written, and
works once the disk does.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from unittest import mock

from tests.torture.calls import called, called_apart, faults_of
from tests.torture.frame import LEFT, LOST, OTHER, Attempt, Fault, Kind
from tests.torture.kills import CREATES, Write, refusing, writes_of
from tests.torture.world import World, filled_world, new_world

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES)
COMMANDS = (
    ("new", "run"),
    ("filled", "run --retrain"),
    ("filled", "accept 1 --baseline"),
    ("filled", "accept best"),
    ("filled", "calibrate --seeds 4"),
    ("filled", "export best -o made"),
    ("filled", "export 1 -o exported --force"),
    ("filled", "report -o out/report.html"),
    ("filled", "ci --out out"),
    ("filled", "init fresh"),
    ("filled", "init --github --requirement pytest-ftloop==1.0"),
)
"""The world that a command starts in, and the command."""


def prepare(folder: Path) -> Callable[[int, Random], Attempt]:
    """Make both worlds, and count the writes of every command."""
    starts = {"new": new_world(folder / "new"), "filled": filled_world(folder / "filled")}
    with starts["filled"].entered():
        assert called(["export", "best", "-o", "exported"]).code == 0
    writes = {command: _writes(starts[start], folder, command) for start, command in COMMANDS}
    places = [
        (start, command, n, lasts)
        for start, command in COMMANDS
        for n in range(1, len(writes[command]) + 1)
        for lasts in (False, True)
    ]

    def attempt(number: int, random: Random) -> Attempt:
        # Every place once, before one comes again with another error.
        start, command, n, lasts = places[number * _stride(len(places)) % len(places)]
        why = ERRORS[(number // len(places) + random.randrange(4)) % 4]
        faults = tuple(_faults(starts[start], folder / "attempt", command, (n, why, lasts)))
        # A full disk still renames and removes.
        counted = [w for w in writes[command] if why != errno.ENOSPC or w.what in CREATES]
        where = str(counted[n - 1]) if n <= len(counted) else "nothing"
        how = f"{errno.errorcode[why]} {'from' if lasts else 'at'} write {n}"
        return Attempt(f"{command}: {how}, {where.replace(f'{folder}/', '')}", faults)

    return attempt


def _stride(length: int) -> int:
    """A step through all places that takes each once, and soon some of every command."""
    import math

    return next(n for n in range(length * 61 // 100 + 1, 2 * length) if math.gcd(n, length) == 1)


def _writes(start: World, folder: Path, command: str) -> list[Write]:
    world = start.copy(folder / "counted")
    with world.entered(), mock.patch.dict(os.environ, {"FAKE_COST_S": "2"}):
        made = writes_of(lambda: called(command.split()), *world.places)
    shutil.rmtree(world.folder)
    return made


def _faults(start: World, place: Path, command: str, how: tuple[int, int, bool]) -> Iterator[Fault]:
    n, why, lasts = how
    shutil.rmtree(place, ignore_errors=True)
    world = start.copy(place)
    before, output = world.contents(), world.folder / "output"
    with world.entered(), mock.patch.dict(os.environ, {"FAKE_COST_S": "2"}):
        refused = refusing(n, why, *world.places, lasts=lasts)
        done = called_apart(command.split(), output, refused)
        yield from faults_of(done)
        yield from _lost(command, before, world.contents())
        again = called_apart(command.split(), output)
        yield from faults_of(again)
    # What `init` wrote before is the user's by then, and so is an export that was complete.
    is_there = command.startswith("init ") or (done.code == 0 and command == "export best -o made")
    if again.code not in (0, 1) and not is_there:
        yield Fault(OTHER, f"again: exit code {again.code}: {again.printed[-300:]}")
    yield from _left(world)


def _left(world: World) -> Iterator[Fault]:
    """What is half-made: nothing that a user or a reader of the log would take for a file."""
    for name in world.files():
        last = name.rstrip("/").rpartition("/")[2]
        if last.endswith((".tmp", ".old")) or "making-" in last or "probe" in last:
            yield Fault(LEFT, f"{name} is left")
    tables = set(world.log.rglob("*.examples.csv")) if world.log.exists() else set()
    for table in sorted(tables):
        record = table.name.split(".")[0]
        if not table.with_name(f"{record}.yaml").exists():
            yield Fault(LEFT, f"{table.relative_to(world.folder)} has no record")


def _lost(
    command: str, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]
) -> Iterator[Fault]:
    """Records that are gone, or that are not what was written."""
    for name, content in before.items():
        if not name.startswith("project/improvement_log/") or not name.endswith(".yaml"):
            continue
        place = name[: -len("-0000.yaml")]
        if "--retrain" in command and any(other.startswith(place) for other in after):
            continue
        if after.get(name) != content:
            yield Fault(LOST, f"{name} is {'gone' if name not in after else 'changed'}")


KIND = Kind("full and read-only disks", 600, 200, prepare)
