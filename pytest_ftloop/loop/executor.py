"""The seam to what runs workers: this machine's processes, or another engine.

An executor is given the file of a spec, and sees to it that `ftloop worker SPEC` runs once, now or
when there is room, with the loop's files and the cache (`FTLOOP_CACHE`) at the same paths. All else
goes through the files beside the spec (`loop.spec`): the worker writes what it is doing and its
result there. So an executor for a cluster is a `submit` and a status:

    class Slurm:
        def __init__(self): self._slurm = submitit.AutoExecutor(folder="logs")
        def submit(self, spec): return Submitted(self._slurm.submit(work_on, str(spec)))
        def close(self): ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_ftloop.core.errors import FtloopError, TrainingError


class Handle(Protocol):
    """A worker's training, submitted to an executor."""

    def ended(self) -> Ended | None:
        """How it ended; None while it waits or runs. It is asked several times a second."""

    def cancel(self) -> None:
        """End it, whether it waits or runs; then it has `ended`. Does nothing if it has already."""


@dataclass(frozen=True)
class Ended:
    """How a training ended. `why` is empty if its worker wrote a run or a mistake.

    With `again` another worker may succeed: this one was killed, and not by what it trains.
    """

    why: str = ""
    again: bool = False


class Executor(Protocol):
    """Runs workers."""

    def submit(self, spec: Path) -> Handle:
        """Run the worker of this spec, at once or when there is room; does not wait for it."""

    def close(self) -> None:
        """End all that still runs or waits, and wait until it is gone."""


ExecutorFactory = Callable[[int], Executor]
"""Makes the executor of a batch of trainings, for so many at once."""


class WorkerError(TrainingError):
    """A worker ended without a result: it was killed, or it crashed."""


class EngineError(FtloopError):
    """What `loop.run_on` names can't be used.

    No `ConfigError`: the loop would take its settings for ones that can't be trained.
    """
