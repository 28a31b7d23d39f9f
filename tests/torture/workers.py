"""The processes that make the attempts of a kind, and what came of them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.torture.frame import HANG, OTHER, Attempt, Fault, Kind

ROOT = Path(__file__).parents[2]

SILENT_S = 900.0
"""Seconds without a word after which a worker hangs: it prepares for minutes on a busy machine."""

TOLD_S = 30.0
"""Seconds between two lines that say how far a kind is."""

MOST_SHOWN = 20
"""Attempts with faults that are printed of each kind; all are counted."""


@dataclass
class Row:
    """What came of one kind: its attempts, and their faults by column."""

    kind: Kind
    attempts: int = 0
    shown: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic, repr=False)
    told: float = field(default_factory=time.monotonic, repr=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def faults(self) -> int:
        """All of them."""
        return self.counts.total()

    def add(self, seed: int, number: int, made: Attempt) -> None:
        """Count an attempt, and print its faults with the command that repeats it."""
        with self.lock:
            self.attempts += 1
            self.counts.update(fault.column for fault in made.faults)
            self._tell()
            if not made.faults or self.shown == MOST_SHOWN:
                return
            self.shown += 1
        lines = [f"torture: {self.kind.name} {number}: {made.what}"]
        lines += [f"  {fault.column}: {fault.what}" for fault in made.faults[:5]]
        command = f'python -m tests.torture --kind "{self.kind.name}" --seed {seed}'
        print("\n".join([*lines, f"  again: {command} --attempt {number}"]), flush=True)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self.told < TOLD_S and self.attempts < self.kind.attempts:
            return
        self.told = now
        print(
            f"torture: {self.kind.name}: {self.attempts} of {self.kind.attempts}, "
            f"{self.faults or 'no'} faults, {now - self.begun:.0f} s",
            flush=True,
        )


# --- in the worker --------------------------------------------------------------------------------


def work(kind: Kind, seed: int, folder: Path, first: int, step: int) -> int:
    """Make every `step`-th attempt, and tell of each in a line of JSON on the first stdout."""
    told = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what is called prints into streams of its own; its children might not

    def tell(**what: Any) -> None:
        os.write(told, json.dumps(what).encode() + b"\n")

    attempt = kind.prepare(folder.resolve())
    for number in range(first, kind.attempts, step):
        tell(begins=number)
        made = attempted(kind, attempt, seed, number)
        tell(ended=number, **asdict(made))
    return 0


def attempted(
    kind: Kind, attempt: Callable[[int, Random], Attempt], seed: int, number: int
) -> Attempt:
    """Make one attempt; an error of its own is a fault, too."""
    try:
        return attempt(number, Random(f"{seed} {kind.name} {number}"))
    except Exception:  # noqa: BLE001 - counted and shown, so that no attempt is lost silently
        return Attempt("an attempt that failed", (Fault(OTHER, traceback.format_exc()[-2000:]),))


# --- around it ------------------------------------------------------------------------------------


class Time:
    """When the attempts of a kind end: at a moment, or as soon as someone stops them."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let no attempt begin any more, and end those that are made."""
        self._stopped.set()

    @property
    def left(self) -> float:
        """Seconds, 0 at the end."""
        return 0 if self._stopped.is_set() else max(0.0, self._until - time.monotonic())


def tortured(row: Row, seed: int, workers: int, until: float) -> None:
    """Let workers make a kind's attempts, until all are made or it is `until`."""
    ends, workers = Time(until), min(workers, row.kind.attempts)
    with ThreadPoolExecutor(workers) as pool:
        try:
            made = [pool.submit(_attempts, row, seed, n, workers, ends) for n in range(workers)]
            for each in made:
                each.result()
        finally:  # at Ctrl-C the workers, whose sessions are their own, would go on
            ends.stop()


def _attempts(row: Row, seed: int, first: int, step: int, ends: Time) -> None:
    """Those of one worker; one that hangs is ended, and another goes on behind where it was."""
    number = first
    while number < row.kind.attempts and ends.left:
        begun: int | None = None
        for said in _said(row.kind, seed, number, step, ends):
            if "begins" in said:
                begun = said["begins"]
            elif "ended" in said:
                faults = tuple(Fault(**fault) for fault in said["faults"])
                row.add(seed, said["ended"], Attempt(said["what"], faults))
                number, begun = said["ended"] + step, None
            else:
                row.add(seed, number if begun is None else begun, _no_end(said))
                begun = number if begun is None else begun
                number = begun + step


def _no_end(said: dict[str, Any]) -> Attempt:
    if said["silent"]:
        return Attempt("no end", (Fault(HANG, f"no word for {SILENT_S:.0f} s"),))
    return Attempt("the worker died", (Fault(OTHER, said["why"]),))


def _said(kind: Kind, seed: int, first: int, step: int, ends: Time) -> Iterator[dict[str, Any]]:
    """What a worker tells; at last, if that was not its end, that it was silent or died."""
    command = [sys.executable, "-m", "tests.torture", "--worker", "--kind", kind.name]
    command += ["--seed", str(seed), "--first", str(first), "--step", str(step)]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*command, "--folder", folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield from _lines(process, ends)
            if process.poll() not in (None, 0):
                errors.seek(0)
                yield {"silent": False, "why": errors.read().decode(errors="replace")[-2000:]}
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and left none
                os.killpg(process.pid, signal.SIGKILL)  # its forks too
            process.wait()


def _lines(process: subprocess.Popen[bytes], ends: Time) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    rest, told = b"", time.monotonic()
    while left := ends.left:
        ready, _, _ = select.select([process.stdout], [], [], min(1.0, left))
        now = time.monotonic()
        if not ready:
            if now - told > SILENT_S:
                yield {"silent": True}
                return
            continue
        if not (piece := os.read(process.stdout.fileno(), 65536)):
            process.wait()
            return
        told = now
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines)
