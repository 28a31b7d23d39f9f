"""What trains and measures for a loop: the interface, and the way to what needs torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pytest_ftloop.core.errors import TrainingError

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import DataSet, ExampleResult, Run, Settings
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.early_end import Pace


class Runner(Protocol):
    """Trains and evaluates one iteration."""

    def __call__(
        self,
        settings: Settings,
        adapter: Path | None,
        base_eval_loss: float | None,
        *,
        name: str,
        pace: Pace | None = None,
    ) -> Run:
        """Run with these settings; save the best adapter to the folder `adapter`, if any.

        `name` tells the run from the loop's others, wherever it is reported to. It may be ended
        where it can't be of use any more, held against `pace`.
        """


Measure = Callable[..., "tuple[ExampleResult, ...]"]

RunnerFactory = Callable[["Inputs", "LoopConfig", "Progress"], Runner]

Environment = Callable[["LoopConfig", "Settings", "Progress"], Mapping[str, str]]
"""What a training with these settings would be recorded with here."""


def lora_runner(inputs: Inputs, config: LoopConfig, progress: Progress) -> Runner:
    """The runner that trains for real: imports torch, loads the base model once."""
    progress.working("loading torch and the base model")
    try:
        from pytest_ftloop.train import arguments
        from pytest_ftloop.train import lora as train
    except ImportError as error:
        raise TrainingError(
            f"training needs the training extra, {error.name or error} is missing",
            cure='pip install "pytest-ftloop[train]"',
        ) from None
    runner = train.runner(inputs, config, progress)
    with train.quiet():
        arguments.check_policy(config.loop.policy, config.settings, config.locate)
    return runner


def lora_environment(
    config: LoopConfig, settings: Settings, progress: Progress
) -> Mapping[str, str]:
    """Where a training with these settings would run: imports torch, loads no model.

    Empty where the training extra is not installed: the runner then says so.
    """
    progress.working("loading torch")
    try:
        from pytest_ftloop.train import arguments
        from pytest_ftloop.train import lora as train
    except ImportError:
        return {}
    with train.quiet():
        args = arguments.sft_config(settings, tempfile.gettempdir(), config.locate)
        return train.environment(args)


def lora_measure(
    inputs: Inputs,
    config: LoopConfig,
    holdout: DataSet,
    settings: Settings,
    adapter: Path,
    progress: Progress,
) -> tuple[ExampleResult, ...]:
    """What an adapter really shows on the holdout: imports torch."""
    progress.working("loading torch and the base model")
    from pytest_ftloop.train import lora as train

    return train.holdout_results(inputs, config, holdout, settings, adapter, progress)
