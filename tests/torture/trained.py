"""Real kills of real trainings: SIGKILL while the embedded model is trained, then another run.

The second run has to reach the figures of a run that was never killed, to the last digit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.log import ImprovementLog
from tests.torture.calls import Done, faults_of
from tests.torture.frame import LEFT, LOST, OTHER, Attempt, Fault, Kind
from tests.torture.sigkill import untagged
from tests.torture.world import World, new_world

LOOP = """\
data: {train: train.jsonl, eval: eval.jsonl}
lora: {r: 4, lora_alpha: 8, target_modules: all-linear}
training: {num_train_epochs: 2, learning_rate: 1.0e-3, per_device_train_batch_size: 2}
gates: {eval_loss: "<= 0.01"}
loop: {iterations: 2}
"""
LONGEST_S = 900
"""Seconds after which a run hangs: on a busy machine importing torch alone takes a minute."""


@dataclass(frozen=True)
class Reference:
    """A run without a kill: its seconds, its figures, the names of its files."""

    seconds: float
    figures: list[object]
    names: set[str]


def prepare(folder: Path) -> Callable[[int, Random], Attempt]:
    """Make the loop, and run it once without a kill."""
    start = new_world(folder / "start")
    (start.root / "x.ftloop.yaml").write_text(LOOP)
    shutil.rmtree(start.folder / "cache")
    embedded = cache_folder() / "tiny"
    if embedded.is_dir():  # else each of the worlds would build it
        shutil.copytree(embedded, start.folder / "cache" / "tiny")
    whole = start.copy(folder / "whole")
    begun = time.monotonic()
    done = _run(whole)
    assert done.code in (0, 1), done.printed
    reference = Reference(time.monotonic() - begun, _figures(whole), untagged(whole.contents()))

    def attempt(_: int, random: Random) -> Attempt:
        shutil.rmtree(folder / "attempt", ignore_errors=True)
        world = start.copy(folder / "attempt")
        after_s = random.uniform(0.2, 1.05) * reference.seconds
        killed = _start(world)
        time.sleep(after_s)
        killed.kill()
        killed.wait()
        kept = {record.id for record in ImprovementLog(world.log).read()}
        done = _run(world)
        faults = [*faults_of(done, (0, 1)), *_differences(world, reference, kept)]
        what = f"run, killed after {after_s:.1f} of {reference.seconds:.1f} s, {len(kept)} logged"
        return Attempt(what, tuple(faults))

    return attempt


def _differences(world: World, reference: Reference, kept: set[str]) -> Iterator[Fault]:
    log = ImprovementLog(world.log).read()
    for gone in sorted(kept - {record.id for record in log}):
        yield Fault(LOST, f"iteration {gone} was logged before the kill")
    if (figures := _figures(world)) != reference.figures:
        yield Fault(OTHER, f"figures {figures}, without the kill {reference.figures}")
    for name in sorted(untagged(world.contents()) - reference.names):
        yield Fault(LEFT, f"{name} is left")


def _figures(world: World) -> list[object]:
    return [
        (record.name, dict(record.metrics), record.adapter)
        for record in ImprovementLog(world.log).read()
    ]


def _start(world: World, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    env: Mapping[str, str] = {**os.environ, **world.environment(), "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_ftloop", "run", "-q"],
        cwd=world.root,
        env={name: value for name, value in env.items() if name != "CI"},
        stdout=output,
        stderr=output,
    )


def _run(world: World) -> Done:
    with (world.folder / "output").open("wb") as output:
        process = _start(world, output.fileno())
        try:
            code: int | None = process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    printed = (world.folder / "output").read_text(encoding="utf-8", errors="surrogateescape")
    return Done(("run", "-q"), code, printed, "")


KIND = Kind("kills of trainings", 8, prepare)
