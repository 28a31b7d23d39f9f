"""TORCH: a loop's base model, loaded once, and what is trained and measured with it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
from pytest_ftloop.data.identity import model_path
from pytest_ftloop.train import evaluating
from pytest_ftloop.train.arguments import check_policy, lora_config, sft_config, with_paths
from pytest_ftloop.train.base import Base, live_base, load_base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.quantised import quantised_by
from pytest_ftloop.train.quiet import quiet
from pytest_ftloop.train.ranks import check_launch
from pytest_ftloop.train.task import FoundAll, Task, ToMeasure
from pytest_ftloop.train.tiny import tiny_folder
from pytest_ftloop.train.tokenizer import beside
from pytest_ftloop.train.trackers import Tracked, settings_to_report
from pytest_ftloop.train.warm import check_shape

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.train.how import How


@dataclass(frozen=True)
class LoraTrainer:
    """A loop's base model, loaded once and lent to each run of the loop's task."""

    base: Base
    task: Task
    config: LoopConfig
    progress: Progress

    @classmethod
    def loaded(cls, config: LoopConfig, task: Task, progress: Progress) -> LoraTrainer:
        """Check the loop's settings, then load its base model."""
        with quiet():
            use_cpu = bool(config.settings.training.get("use_cpu"))
            place = config.locate("loop.launcher") or config.locate("loop.processes")
            check_launch(use_cpu=use_cpu, where=place)
            # Before the model, which can take minutes to load, so that a typo is reported at once.
            sft_config(config.settings, tempfile.gettempdir(), config.locate)
            lora_config(config.settings, config.locate)
            check_policy(config.loop.policy, config.settings, config.locate)
            _check_start(config, task)
            base = base_of(config, progress)
        return cls(base, task, config, progress)

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """Train one run, as `How` says. See `run_lora`."""
        return run_lora(
            self.base,
            self.task,
            with_paths(settings_to_report(settings, self.config), self.config.folder),
            self.progress,
            tracked=Tracked.of(self.config, how["name"]),
            adapter=how.get("adapter"),
            base_eval_loss=how.get("base_eval_loss"),
            pace=how.get("pace"),
            metric=how.get("metric", "eval_loss"),
            keep=how.get("keep"),
        )

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """Evaluate the untrained base. See `evaluating`."""
        stated = with_paths(settings, self.config.folder)
        return evaluating.measure_base(self.base, self.task, stated, self.progress)

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        """Evaluate a saved adapter on these examples. See `evaluating`."""
        task = replace(self.task, eval=examples)
        stated = with_paths(settings, self.config.folder)
        return evaluating.measure(self.base, task, stated, adapter, self.progress)

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """Measure what is missing. See `evaluating`."""
        stated = with_paths(settings, self.config.folder)
        return evaluating.measure_missing(
            self.base, self.task, stated, adapter, missing, self.progress
        )


def _check_start(config: LoopConfig, task: Task) -> None:
    """Check the adapter that the loop goes on from, if it is here, against settings and model."""
    if task.start is not None and task.start.folder is not None:
        start = task.start
        lora = lora_config(config.settings, config.locate)
        base = config.model if isinstance(config.model, str) else ""
        check_shape(lora, start, base, config.locate)


def base_of(config: LoopConfig, progress: Progress) -> Base:
    """Load a loop's base model, or take the live one of a loop made in Python."""
    if not isinstance(config.model, str):
        return replace(live_base(config.model, config.tokenizer), quantised_by=quantised_by(config))
    name = config.model
    if name == "tiny":
        name = str(tiny_folder(progress))
    elif (path := model_path(name, config.folder)).is_dir():
        name = str(path)
    section = config.tokenizer
    if section is not None and section.name:
        section = section.model_copy(update={"name": beside(section.name, config.folder)})
    base = load_base(name, config.settings.training, config.locate, config.model, section)
    return replace(base, quantised_by=quantised_by(config))
