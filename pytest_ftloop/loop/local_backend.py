"""The backend that trains in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.collector import importing
from pytest_ftloop.core.credentials import texts_in
from pytest_ftloop.core.errors import ConfigError, FtloopError, TrainingError
from pytest_ftloop.core.files import plain_files
from pytest_ftloop.core.progress import ToldOnce
from pytest_ftloop.core.ranks import processes_of, ranks_in
from pytest_ftloop.train.threads import set_threads

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.lora_trainer import LoraTrainer
    from pytest_ftloop.train.task import FoundAll, ToMeasure


class LocalBackend:
    """Trains in this process with trl and peft. Imports torch and loads the base on first use.

    `told` shows the findings on the rows, once however often the base is loaded.
    """

    def __init__(self, config: LoopConfig, inputs: Inputs, progress: Progress) -> None:
        self._stated, self._inputs, self._progress = config, inputs, progress
        self._config = replace(config, settings=config.with_credentials(config.settings))
        self.told = ToldOnce(config.name, progress)

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """See `Backend`. Raises `TrainingError` if the training extra is not installed."""
        self._check_ranks(settings)
        with self._without_credentials():
            return self._trainer.train(self._to_train(settings), **how)

    def _check_ranks(self, settings: Settings) -> None:
        wanted, found = processes_of(settings), ranks_in()
        if wanted != found:
            raise ConfigError(
                f"wanted {wanted} processes (loop.processes), found WORLD_SIZE={found}: "
                f"the launcher started {found}",
                where=self._config.locate("loop.launcher") or self._config.locate("loop.processes"),
                cure="Give launcher and loop file the same number: that of the processes of all "
                "machines together.",
            )

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        """See `Backend`."""
        plain_files(adapter)
        with self._without_credentials():
            return self._trainer.measure(self._to_train(settings), adapter, examples)

    def _to_train(self, settings: Settings) -> Settings:
        """Logged settings with what only the loop file may decide, and with its credentials."""
        return self._stated.with_credentials(self._stated.only_it_decides(settings))

    @contextmanager
    def _without_credentials(self) -> Iterator[None]:
        """Hide the loop's credentials in an error: a library may quote them."""
        try:
            yield
        except FtloopError as error:
            given = self._stated.credentials
            error.hide(*texts_in(given.lora), *texts_in(given.training))
            raise

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """See `Backend`."""
        plain_files(adapter)
        with self._without_credentials():
            return self._trainer.measure_missing(self._to_train(settings), adapter, missing)

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """See `Backend`."""
        with self._without_credentials():
            return self._trainer.measure_base(self._to_train(settings))

    def release(self) -> None:
        """Give back the memory of the base model, which is loaded again when it is needed."""
        if self.__dict__.pop("_trainer", None) is None:
            return
        import gc

        import torch

        gc.collect()  # a trainer and its model refer to each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """See `Backend`. Loads no model. Empty if the training extra is not installed."""
        self._progress.working("loading torch")
        set_threads()
        try:
            with importing():
                from pytest_ftloop.train.arguments import sft_config
                from pytest_ftloop.train.environment import environment
                from pytest_ftloop.train.quantised import quantised_by
                from pytest_ftloop.train.quiet import quiet
        except ImportError:
            return {}
        settings = self._to_train(settings)
        with quiet(), self._without_credentials():
            args = sft_config(settings, tempfile.gettempdir(), self._config.locate)
            return environment(args, quantised_by(self._config))

    @cached_property
    def _trainer(self) -> LoraTrainer:
        self._progress.working("loading torch and the base model")
        set_threads()
        try:
            with importing():
                from pytest_ftloop.train.lora_trainer import LoraTrainer
        except ImportError as error:
            raise TrainingError(
                f"training needs the training extra: {error.name or error} is not installed",
                cure='pip install "pytest-ftloop[train]"',
            ) from None
        task = replace(self._inputs.task(self._config), found=self.told.found)
        return LoraTrainer.loaded(self._config, task, self._progress)
