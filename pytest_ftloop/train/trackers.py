"""TORCH: report each run separately to the experiment trackers of `training.report_to`.

The trainer's integrations send the figures, but expect a process that trains once. This module adds
what a loop needs: a name for each run, an end for each run even after an error, and for TensorBoard
a folder that outlives the trainer's temporary one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    MLflowCallback,
    TensorBoardCallback,
)

from pytest_ftloop.core.errors import (
    ConfigError,
    FtloopError,
    Location,
    TrainingError,
    did_you_mean,
)

if TYPE_CHECKING:
    from trl import SFTConfig, SFTTrainer

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Settings

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "azure_ml": ("azureml", "azureml-sdk"),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""The module that each tracker needs, and the name of its package if it has a different one."""

ALTERNATIVES = {"tensorboard": "tensorboardX"}
"""A module that a tracker accepts in place of its own."""

OURS = frozenset(
    {
        "report_to",
        "run_name",
        "project",
        "hub_private_repo",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
    }
)
"""Settings that choose where to report. They can't change a figure, so every run uses those of the
current loop file, not those that its iteration was logged with."""


@dataclass(frozen=True)
class Tracked:
    """How trackers know a run: by its `name`; TensorBoard writes its files to `folder`.

    `project` is the loop file's. The trackers' own environment variables take precedence over it.
    """

    name: str
    folder: Path
    project: str | None = None

    @classmethod
    def of(cls, config: LoopConfig, name: str) -> Tracked:
        """Name a run `sentiment/003-3fa9c1d2`, with `run_name`, if it is set, for the loop."""
        stated = config.settings.training
        root = os.environ.get("TENSORBOARD_LOGGING_DIR")
        runs = Path(root).expanduser() if root else config.folder / "runs"
        prefix = stated.get("run_name") or config.name
        return cls(f"{prefix}/{name}", runs / config.name / name, stated.get("project"))


@dataclass
class Report:
    """A run that is being reported. `failed` decides the status that trackers show for it."""

    tracked: Tracked | None
    failed: bool = False
    trainer: SFTTrainer | None = field(default=None, repr=False)

    def watch(self, trainer: SFTTrainer) -> None:
        """Set TensorBoard's folder: by default it writes to the trainer's temporary one."""
        self.trainer = trainer
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and self.tracked:
                callback.logging_dir = str(self.tracked.folder)

    def release(self) -> None:
        """Keep MLflow's callback from ending a later run: when collected it ends the active one."""
        for callback in self.trainer.callback_handler.callbacks if self.trainer else ():
            if isinstance(callback, MLflowCallback):
                callback._auto_end_run = False
        self.trainer = None


def settings_to_report(settings: Settings, config: LoopConfig) -> Settings:
    """These settings, with the loop file's current choice of where to report (`OURS`)."""
    kept = {name: value for name, value in settings.training.items() if name not in OURS}
    stated = {name: v for name, v in config.settings.training.items() if name in OURS}
    return replace(settings, training={**kept, **stated})


def check_trackers(report_to: Any, where: Location | None) -> None:
    """Raise `ConfigError` for an unknown tracker, or one whose package is not installed."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names in ([], ["none"], ["all"]):
        return
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(
                f"training.report_to: unknown tracker {name!r}",
                where=where,
                cure=did_you_mean(name, {*INTEGRATION_TO_CALLBACK, "all", "none"}),
            )
        module, *_, package = PACKAGES.get(name, ("sys",)) * 2
        if not any(map(_installed, {module, ALTERNATIVES.get(name, module)})):
            raise ConfigError(
                f"training.report_to: {name} needs the package {package}, which is not installed",
                where=where,
                cure=f"pip install {package}",
            )


@contextmanager
def reported(
    args: SFTConfig, tracked: Tracked | None, where: Location | None = None
) -> Iterator[Report]:
    """Report one run under its own name, and end it at every tracker, also after an error.

    A run that the user started is not ended: MLflow nests ours in it, W&B adds ours to it.
    """
    report = Report(tracked)
    if not args.report_to:
        yield report
        return
    if tracked is not None:
        args.run_name = tracked.name
    before = _under_way(args.report_to)
    try:
        with _set_where_unset(_variables(tracked, before)):
            yield report
    except BaseException as error:
        report.failed = True
        if isinstance(error, Exception) and _is_trackers(error):
            raise TrainingError(
                f"reporting to {', '.join(args.report_to)} failed: {_first_line(error)}",
                where=where,
                cure="Fix that, or set training.report_to: none.",
            ) from error
        raise
    finally:
        report.release()
        for name, run in _under_way(args.report_to).items():
            if run is not None and run is not before[name]:
                _END[name](sys.modules[name], report.failed)


def _installed(module: str) -> bool:
    try:
        found = find_spec(module)
    except (ImportError, ValueError):
        return False
    # W&B writes to a folder `wandb/`, which looks like a namespace package: a module without a
    # file.
    return found is not None and (found.origin is not None or module == "azureml")


def _variables(tracked: Tracked | None, before: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables for what the integrations can't be given otherwise."""
    project = tracked.project if tracked else None
    nested = before.get("mlflow") is not None
    variables = {"MLFLOW_NESTED_RUN": "TRUE"} if nested else {}
    if project:
        variables["WANDB_PROJECT"] = project
        if not nested:  # a nested run has to be in the experiment of the outer one
            variables["MLFLOW_EXPERIMENT_NAME"] = project
    return variables


@contextmanager
def _set_where_unset(variables: Mapping[str, str]) -> Iterator[None]:
    unset = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)


_ACTIVE: Mapping[str, Callable[[Any], Any]] = {
    "mlflow": lambda mlflow: mlflow.active_run(),
    "trackio": lambda trackio: trackio.context_vars.current_run.get(),
    "wandb": lambda wandb: wandb.run,
}
"""How to get a tracker's active run. The other trackers end runs themselves, or can't."""

_END: Mapping[str, Callable[[Any, bool], Any]] = {
    "mlflow": lambda mlflow, failed: mlflow.end_run("FAILED" if failed else "FINISHED"),
    "trackio": lambda trackio, _: trackio.finish(),
    "wandb": lambda wandb, failed: wandb.finish(exit_code=int(failed)),
}
"""How to end a tracker's run, and whether it failed."""


def _under_way(report_to: list[str]) -> dict[str, Any]:
    """The active run at each tracker; None if there is none, or its library is not imported."""
    return {
        name: active(sys.modules[name]) if name in sys.modules else None
        for name, active in _ACTIVE.items()
        if name in report_to
    }


def _is_trackers(error: Exception) -> bool:
    """Whether an error was raised in a tracker's integration, or by a library that it called."""
    if isinstance(error, FtloopError):
        return False
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__") == TensorBoardCallback.__module__:
            return True
        frame = frame.tb_next
    return False


def _first_line(error: Exception) -> str:
    """The first line of an error's message; its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
