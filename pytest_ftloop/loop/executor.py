"""The seam to what runs workers: this machine's processes, or another engine.

An executor is given the file of a spec, and sees to it that a worker does once what it asks for,
now or when there is room. All else goes through the files beside the spec (`loop.spec`): the worker
writes what it is doing and its result there. Where the loop's files and the cache are at the same
paths, that is to run `worker_command`; where they are not, `loop.parcel` says what to send.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import FtloopError, TrainingError


class Handle(Protocol):
    """A worker's training, submitted to an executor.

    It may have `waits`, a text that says why no worker has begun; it is shown then.
    """

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


def worker_command(spec: Path) -> list[str]:
    """The command of a spec's worker, for a machine with Python, files and cache at these paths.

    It states the two variables that the worker needs: of the environment nothing else is taken.
    """
    paths = [str(Path(entry).absolute()) for entry in sys.path if entry]
    variables = {
        "FTLOOP_CACHE": str(cache_folder().absolute()),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    stated = [f"{name}={value}" for name, value in variables.items()]
    return ["env", *stated, sys.executable, "-m", "pytest_ftloop", "worker", str(spec)]
