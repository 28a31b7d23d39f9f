"""A worker: train a spec as the loop's own process would, and write the run beside it.

`serve` is the process that an executor of this machine starts. It trains one spec after another, so
that torch and the base model are loaded once.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.cache import adapter_hash
from pytest_ftloop.core.errors import FtloopError, Location
from pytest_ftloop.core.ranks import rank_of, ranks_in
from pytest_ftloop.core.runs import environment_changes
from pytest_ftloop.loop import backend as backends
from pytest_ftloop.loop.asked import answered
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.orphans import end_with_parent
from pytest_ftloop.loop.spec import (
    BEFORE,
    ERROR,
    RUN,
    UNSCORED,
    AtWork,
    read_run,
    read_spec,
    write_answer,
    write_error,
    write_found,
    write_progress,
    write_run,
)
from pytest_ftloop.train.early_end import ended_in_time
from pytest_ftloop.train.task import Start

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Finding, Run
    from pytest_ftloop.loop.backend import Backend, BackendFactory
    from pytest_ftloop.loop.spec import Spec

EVERY_S = 0.5
"""Least seconds between two notes of a step: a step may take only a millisecond."""


class Noted:
    """A `Progress` that notes what happens beside the spec that is being trained.

    Of several ranks the first does: the others do the same.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = Path()
        self._clock = clock
        self._noted_at = -EVERY_S

    def iteration(self, loop: str, which: str) -> None:
        """Note nothing: the loop's own process knows."""

    def step(self, step: int, steps: int, loss: float) -> None:
        """Note a training step."""
        self._note(AtWork(step, steps, loss), always=step in (1, steps))

    def working(self, what: str, done: int = 0, of: int = 0) -> None:
        """Note other work."""
        self._note(AtWork(what=f"{what} {done}/{of}" if of else what), always=done in (0, of))

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        """Note nothing: a worker has no workers."""

    def ended(self, metrics: Mapping[str, float]) -> None:
        """Note nothing: the loop's own process logs."""

    def done(self) -> None:
        """Note nothing: the run says so."""

    def found(self, loop: str, findings: Sequence[Finding]) -> None:  # noqa: ARG002 - Progress
        """Note findings."""
        if rank_of() == 0:
            write_found(self.folder, findings)

    def _note(self, now: AtWork, *, always: bool) -> None:
        if rank_of() == 0 and (always or self._clock() - self._noted_at >= EVERY_S):
            self._noted_at = self._clock()
            write_progress(self.folder, now)


@dataclass
class Worker:
    """Trains specs, of one loop after another. `make` is the factory of its backends."""

    make: BackendFactory
    progress: Noted = field(default_factory=Noted)
    _known: _Known | None = None

    def work(self, file: Path) -> bool:
        """Do what a spec asks for, and write the answer or the mistake beside it.

        Returns whether there is an answer: mostly a run.
        """
        folder = self.progress.folder = file.parent
        try:
            spec = read_spec(file)
            self.progress.working("preparing")
            known = self._loop(spec)
            config, inputs, backend = known.config, known.inputs, known.backend
            if not known.has(spec):
                raise _changed(spec, config, inputs)
            if spec.asks == "train":
                found: object = _before(spec, folder, backend) or _trained(spec, folder, backend)
            else:
                found = answered(spec, config, inputs, backend)
        except FtloopError as error:
            _note_mistake(folder, error)
            return False
        if rank_of() > 0:
            return True
        write_answer(folder / RUN, found)
        (folder / BEFORE).unlink(missing_ok=True)
        return True

    def _loop(self, spec: Spec) -> _Known:
        """The spec's loop: the last one's, unless it is another, or its rows have changed since.

        What was trained before of the loop may have been begun before its turn.
        """
        key = spec.loop_file, spec.start.get("adapter", "")
        if self._known is not None and self._known.key == key and self._known.has(spec):
            return self._known
        if self._known is not None and isinstance(self._known.backend, LocalBackend):
            self._known.backend.release()  # there is memory for one base model
        self._known = None
        config = read_loop_file(Path(spec.loop_file))
        inputs = Inputs.of(config, None)
        if spec.start:
            inputs = replace(inputs, start=Start.of_text(spec.start))
            config = replace(config, settings=inputs.own_settings(config))
        self._known = _Known(key, config, inputs, self.make(config, inputs, self.progress))
        return self._known


@dataclass(frozen=True)
class _Known:
    """A loop that a worker has read, and what trains it there."""

    key: tuple[str, str]
    config: LoopConfig
    inputs: Inputs
    backend: Backend

    def has(self, spec: Spec) -> bool:
        """Whether the spec is of this loop, on these rows."""
        return self.inputs.fingerprint(self.config, spec.settings) == spec.fingerprint


def _trained(spec: Spec, folder: Path, backend: Backend) -> Run:
    return backend.train(
        spec.settings,
        name=spec.name,
        adapter=Path(spec.adapter) if spec.adapter else None,
        base_eval_loss=spec.base_eval_loss,
        metric=spec.metric,
        pace=spec.pace,
        keep=lambda run: write_run(folder / UNSCORED, run) if rank_of() == 0 else None,
    )


def _note_mistake(folder: Path, error: FtloopError) -> None:
    """Write a mistake: of several ranks' the first, and none that follows from another's end."""
    if ranks_in() > 1:
        from pytest_ftloop.train.ranks import is_of_another

        if (folder / ERROR).exists() or is_of_another(error):
            return
    write_error(folder, error)


def _before(spec: Spec, folder: Path, backend: Backend) -> Run | None:
    """What an earlier process trained of this spec in this environment, if its adapter is there.

    Not a run that ended elsewhere than this one would, or lacks the base that this one measures.
    """
    if spec.afresh or (run := read_run(folder / BEFORE)) is None:
        return None
    if not ended_in_time(run.training, spec.pace):
        return None
    if spec.base_eval_loss is None and run.evaluation.base is None:
        return None
    if run.adapter and run.adapter != adapter_hash(Path(spec.adapter)):
        return None
    changed = environment_changes(run.environment, backend.environment(spec.settings))
    return None if changed else run


def _changed(spec: Spec, config: LoopConfig, inputs: Inputs) -> FtloopError:
    """The error of a loop that is not what the spec was written for.

    No ConfigError: the loop would take these for settings that can't be trained.
    """
    found = inputs.fingerprint(config, spec.settings)
    return FtloopError(
        f"wanted the training {spec.fingerprint[:8]}, found {found[:8]}: the loop file, its data "
        "or its code has changed since the run began",
        where=Location(config.source),
        cure="Run pytest --ftloop again.",
    )


def work_on(file: str) -> bool:
    """Train one spec in this process: what `ftloop worker SPEC` does.

    A rank never starts others, also where its launcher gives it no number.
    """
    make = LocalBackend if read_spec(Path(file)).ranks else backends.local
    return Worker(make).work(Path(file))


def serve(make: BackendFactory | None = None) -> int:
    """Train the specs whose paths come on stdin, one a line, until it closes.

    It closes when the parent ends, however that ends; then this process ends too, at once.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its workers
    end_with_parent()
    files: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            files.put(line.rstrip("\n"))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    worker = Worker(make or backends.local)
    while True:
        worker.work(Path(files.get()))
