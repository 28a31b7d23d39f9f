"""Real kills of real trainings: SIGKILL while the embedded model is trained, then another run.

The second run has to reach the weights and figures of a run that was never killed. The runs are
forks of a process that has imported what trains: importing would be most of their time.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.log import ImprovementLog
from tests.torture.calls import Done, called_apart, faults_of, started
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
RUN = ("run", "-q")
PATIENCE = 30.0
"""How much longer than other commands a training may take."""

BUILDING = 200.0
"""How much longer the first run may take, which builds the model: minutes with one thread."""


Figures = Mapping[tuple[str, str], Mapping[str, float]]
"""The metrics of each iteration, by its name and the hash of its adapter."""


@dataclass(frozen=True)
class Reference:
    """A run without a kill: its seconds, its figures, the names of its files."""

    seconds: float
    figures: Figures
    names: set[str]


def prepare(folder: Path) -> Callable[[int, Random], Attempt]:
    """Make the loop, and run it once without a kill."""
    import pytest_ftloop.train.lora_trainer  # noqa: F401 - so that no fork imports it again

    start = _start(folder)
    whole = start.copy(folder / "whole")
    begun = time.monotonic()
    done = _run(whole)
    assert done.code in (0, 1), done.printed
    reference = Reference(time.monotonic() - begun, _figures(whole), untagged(whole.contents()))

    def attempt(_: int, random: Random) -> Attempt:
        shutil.rmtree(folder / "attempt", ignore_errors=True)
        world = start.copy(folder / "attempt")
        after_s = random.uniform(0.05, 1.05) * reference.seconds
        with _entered(world):
            process = started(RUN, world.folder / "output", patience=PATIENCE)
            time.sleep(after_s)
            os.kill(process, signal.SIGKILL)
            ended = os.WIFEXITED(os.waitpid(process, 0)[1])
        kept = {record.id for record in ImprovementLog(world.log).read()}
        done = _run(world)
        faults = [*faults_of(done, (0, 1)), *_differences(world, reference, kept)]
        how = "ended before the kill" if ended else f"{len(kept)} logged"
        return Attempt(
            f"run, killed after {after_s:.1f} of {reference.seconds:.1f} s, {how}", tuple(faults)
        )

    return attempt


def _start(folder: Path) -> World:
    """A loop that was never trained, and the embedded model, which is built if no cache has it."""
    start = new_world(folder / "start")
    (start.root / "x.ftloop.yaml").write_text(LOOP)
    shutil.rmtree(start.folder / "cache")
    embedded = cache_folder() / "tiny"
    if not embedded.is_dir():
        built = start.copy(folder / "built")
        done = _run(built, BUILDING)
        assert done.code in (0, 1), done.printed
        embedded = built.folder / "cache" / "tiny"
    shutil.copytree(embedded, start.folder / "cache" / "tiny")
    return start


def _differences(world: World, reference: Reference, kept: set[str]) -> Iterator[Fault]:
    log = ImprovementLog(world.log).read()
    for gone in sorted(kept - {record.id for record in log}):
        yield Fault(LOST, f"iteration {gone} was logged before the kill")
    figures = _figures(world)
    if not _are_equal(figures, reference.figures):
        yield Fault(OTHER, f"figures {figures}, without the kill {reference.figures}")
    for name in sorted(untagged(world.contents()) - reference.names):
        yield Fault(LEFT, f"{name} is left")


def _figures(world: World) -> Figures:
    return {
        (record.name, record.adapter): dict(record.metrics)
        for record in ImprovementLog(world.log).read()
    }


def _are_equal(found: Figures, wanted: Figures) -> bool:
    """Whether the weights are equal to the bit, and the figures as far as a log has digits.

    What was killed before it was scored is scored from its table, where losses have six decimals.
    """
    return found.keys() == wanted.keys() and all(
        found[of].keys() == wanted[of].keys()
        and all(math.isclose(found[of][k], wanted[of][k], rel_tol=1e-6) for k in wanted[of])
        for of in wanted
    )


def _entered(world: World) -> AbstractContextManager[None]:
    from pytest_ftloop.loop.local_backend import LocalBackend

    return world.entered(LocalBackend)


def _run(world: World, patience: float = PATIENCE) -> Done:
    with _entered(world):
        return called_apart(RUN, world.folder / "output", patience=patience)


KIND = Kind("kills of trainings", 16, 120, prepare)
