"""`make torture`: all kinds in turn, until their attempts are made or the time is up.

Each attempt has a random generator of its own, made of the seed, its kind and its number, so it can
be repeated alone. When a process is killed depends on the machine's speed as well.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.torture import disk, hostile, mutants, sigkill, trained
from tests.torture.frame import COLUMNS, Kind
from tests.torture.workers import Row, attempted, tortured, work

KINDS: tuple[Kind, ...] = (sigkill.KIND, trained.KIND, disk.KIND, hostile.KIND, mutants.KIND)


def main(arguments: Sequence[str]) -> int:
    """Torture for the stated time. 0 nothing found, 1 something, 2 an error in usage."""
    stated = _parsed(arguments)
    kinds = [kind for kind in KINDS if kind.name in stated.kind] if stated.kind else list(KINDS)
    seed = secrets.randbits(32) if stated.seed is None else stated.seed
    if stated.worker:
        return work(kinds[0], seed, stated.folder, stated.first, stated.step)
    if stated.attempt is not None:
        return _one(kinds[0], seed, stated.attempt)
    print(f"torture: seed {seed}, at most {stated.seconds:.0f} s", flush=True)
    begun = time.monotonic()
    rows: list[Row] = []
    try:
        for number, kind in enumerate(kinds):
            now = time.monotonic()
            share = kind.seconds / sum(other.seconds for other in kinds[number:])
            print(f"torture: {kind.name}", flush=True)
            rows.append(Row(kind))
            tortured(rows[-1], seed, stated.workers, now + share * (begun + stated.seconds - now))
    finally:  # at Ctrl-C, too
        _conclude(rows, seed, time.monotonic() - begun)
    return 1 if any(row.faults for row in rows) or not any(row.attempts for row in rows) else 0


def _conclude(rows: Sequence[Row], seed: int, seconds: float) -> None:
    """Print what was found, and which attempts there was no time for."""
    print(_table(rows))
    faults = sum(row.faults for row in rows)
    attempts = sum(row.attempts for row in rows)
    print(f"torture: {faults or 'no'} faults in {attempts} attempts, seed {seed}, {seconds:.0f} s")
    if missing := sum(row.kind.attempts - row.attempts for row in rows):
        print(f"torture: there was no time for {missing} more: state more --seconds")


def _one(kind: Kind, seed: int, number: int) -> int:
    """Repeat one attempt in this process, and say what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        made = attempted(kind, kind.prepare(Path(folder).resolve()), seed, number)
    print(f"torture: {kind.name} {number}: {made.what}")
    for fault in made.faults:
        print(f"  {fault.column}: {fault.what}")
    return 1 if made.faults else 0


def _table(rows: Sequence[Row]) -> str:
    from tabulate import tabulate

    heads = ("kind", "attempts", "of", *COLUMNS)
    lines = [
        (row.kind.name, row.attempts, row.kind.attempts, *(row.counts[c] for c in COLUMNS))
        for row in rows
    ]
    return tabulate(lines, heads)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Kills, mutated files, hostile texts and full disks, by the real commands.",
    )
    names = [kind.name for kind in KINDS]
    parser.add_argument("--kind", action="append", choices=names, help="one kind, not all")
    parser.add_argument("--seconds", type=float, default=1500, help="shared by the kinds")
    parser.add_argument("--seed", type=int, help="that of a run that found something")
    parser.add_argument("--attempt", type=int, metavar="N", help="repeat one, with --seed, --kind")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, default=1, help=argparse.SUPPRESS)
    stated = parser.parse_args(arguments)
    if stated.attempt is not None and (stated.seed is None or not stated.kind):
        parser.error("--attempt needs --seed and --kind")
    return stated


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(128 + signal.SIGINT)
