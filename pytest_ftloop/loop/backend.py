"""What the loop asks of a backend, and which one trains by default."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.core.ranks import ranks_in
from pytest_ftloop.loop.launched import LaunchedBackend
from pytest_ftloop.loop.local_backend import LocalBackend

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.task import FoundAll, ToMeasure


class Backend(Protocol):
    """Trains and measures for one loop.

    The examples, the scorer and the model are in the `Inputs` and the `LoopConfig` that its factory
    is given; both may hold live Python objects. Retrying after out of memory and reporting what is
    wrong with the rows (`Task.found`) are the backend's own business.
    """

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """Train one iteration, evaluate its best point, and save that one, as `How` says.

        Raises a `ConfigError` for settings that can't be trained; the loop then takes its decision
        back.
        """

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        """Evaluate a saved adapter on these examples, without training."""

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """Measure what is missing with a saved adapter, and with the base, without training."""

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """Evaluate the untrained base on the eval set and the guards, without training."""

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """The environment (device, precision, versions) that training with these settings records.

        It must equal `Run.environment`, or nothing that an earlier run trained is restored.
        """


BackendFactory = Callable[["LoopConfig", "Inputs", "Progress"], Backend]
"""Makes the backend of one loop. `local` is the default; tests give a fake."""


def local(config: LoopConfig, inputs: Inputs, progress: Progress) -> Backend:
    """The backend that trains in this process, or in the `loop.processes` that it starts."""
    here = LocalBackend(config, inputs, progress)
    if config.loop.processes == 1:
        return here
    return LaunchedBackend(config, inputs, progress, here)


def check_one_process(environ: Mapping[str, str] = os.environ) -> None:
    """Raise `ConfigError` in one of several processes that a launcher such as torchrun started.

    Each would wait for the lock of the loop's log, and the one that has it for the others.
    """
    if (found := ranks_in(environ)) > 1:
        raise ConfigError(
            f"wanted one process, found WORLD_SIZE={found}: torchrun or accelerate launch started "
            f"{found}",
            cure="Run pytest --ftloop by itself: it starts the processes that loop.processes says.",
        )
