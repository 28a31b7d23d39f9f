"""TORCH: make LoraConfig and SFTConfig from a loop's settings, after checking names and types."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl import SFTConfig

from pytest_ftloop.config.arguments import (
    adapter_of,
    hints_of,
    in_one,
    mistakes,
    no_training,
    of_policy,
)
from pytest_ftloop.core.errors import ConfigError, Locate, Location
from pytest_ftloop.core.labelled import LABELLED_ONLY
from pytest_ftloop.core.ranks import PROCESSES
from pytest_ftloop.core.records import Settings
from pytest_ftloop.train.boundary import boundary
from pytest_ftloop.train.task import INIT_FROM
from pytest_ftloop.train.tokenizer import beside
from pytest_ftloop.train.trackers import check_trackers

OWN = frozenset({"eval_strategy", "eval_steps"})
"""Settings that we read instead of the trainer: its own evaluation would shift random states."""

_OF_THE_LOOP = frozenset({PROCESSES, LABELLED_ONLY})
"""Settings of the section `loop` among those of training, because they are part of its identity."""


def lora_config(settings: Settings, locate: Locate) -> LoraConfig:
    """The settings' LoraConfig, for a causal language model. Raises `ConfigError`."""
    stated = {name: value for name, value in settings.lora.items() if name != INIT_FROM}
    _check(LoraConfig, "lora", stated, locate)
    stated.setdefault("task_type", "CAUSAL_LM")
    with boundary("making its LoraConfig", settings, locate, "lora", kind=ConfigError):
        return LoraConfig(**stated)


def sft_config(settings: Settings, output_dir: str, locate: Locate) -> SFTConfig:
    """The settings' SFTConfig, with device and precision chosen if they are not set.

    What the loop needs overrides the settings: every step is logged, NaN stays in the logs, the
    trainer neither evaluates nor prints. Raises `ConfigError`.
    """
    stated = {name: value for name, value in settings.training.items() if name not in _OF_THE_LOOP}
    _check(SFTConfig, "training", stated, locate)
    if stated.get("activation_offloading") and device_and_precision(stated).get("use_cpu"):
        raise ConfigError(
            "training.activation_offloading needs an accelerator: on the CPU the activations are "
            "in its memory already",
            where=locate("training.activation_offloading"),
            cure="Remove the line.",
        )
    check_trackers(stated.get("report_to"), locate("training.report_to"))
    kept = {name: value for name, value in stated.items() if name not in OWN}
    if kept.get("report_to", "") is None:
        del kept["report_to"]  # transformers reads None as the name of a tracker
    kept.pop("model_init_kwargs", None)  # used already, when the base was loaded
    kept = {
        "report_to": "none",
        **device_and_precision(kept),
        **kept,
        # Checkpoints go to our temporary folder, so save_total_limit deletes none of the user's.
        "output_dir": output_dir,
        "save_strategy": "no",
        "save_total_limit": 1,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
    }
    with boundary("making its SFTConfig", settings, locate, kind=ConfigError):
        return SFTConfig(**kept)


def with_paths(settings: Settings, folder: Path) -> Settings:
    """These settings with the chat template's path, which starts from the loop file, resolved."""
    stated = settings.training.get("chat_template_path")
    if not isinstance(stated, str):
        return settings
    training = {**settings.training, "chat_template_path": beside(stated, folder)}
    return replace(settings, training=training)


def check_policy(policy: object, start: Settings, locate: Locate) -> None:
    """Check all settings that a policy list or sampler can choose, before anything is trained.

    Otherwise a misspelt name in the last entry would be found hours later. Of a sampler's ranges
    the ends are checked. What a function returns can't be checked in advance.
    """
    for key, changed in of_policy(policy):
        groups = {"lora": dict(start.lora), "training": dict(start.training)}
        for setting, value in changed.items():
            group, _, name = setting.partition(".")
            groups[group][name] = value
        settings = Settings(**groups)
        if f"lora.{INIT_FROM}" in changed:
            raise ConfigError(
                f"lora.{INIT_FROM} can't be changed from one iteration to the next",
                where=locate(f"loop.policy.{key}.lora.{INIT_FROM}"),
                cure="State it in the section lora: all iterations start from it.",
            )

        def place(setting: str, key: str = key) -> Location | None:
            return locate(f"loop.policy.{key}.{setting}")

        lora_config(settings, place)
        sft_config(settings, tempfile.gettempdir(), place)


def device_and_precision(stated: Mapping[str, Any]) -> dict[str, bool]:
    """Values for `use_cpu`, `bf16` and `fp16` as far as the user did not set them.

    CUDA: bf16 if the device supports it, else fp16. MPS: fp32. Without an accelerator: fp32 on the
    CPU, where SFTConfig's default of bf16 on a GPU raises an error.
    """
    cuda = torch.cuda.is_available() and not stated.get("use_cpu", False)
    chosen: dict[str, bool] = {}
    if not cuda and not torch.backends.mps.is_available():
        chosen["use_cpu"] = True
    if not {"bf16", "fp16"} & set(stated):
        chosen["bf16"] = cuda and torch.cuda.is_bf16_supported()
        chosen["fp16"] = cuda and not chosen["bf16"]
    return chosen


def field_names(config: type) -> frozenset[str]:
    """The names of the arguments that a config class accepts."""
    return frozenset(field.name for field in dataclasses.fields(config) if field.init)


def _check(config: type, group: str, stated: dict[str, Any], locate: Locate) -> None:
    """Raise one `ConfigError` for all mistakes; make quoted numbers of the loop file numbers."""
    hints = hints_of(config)
    wrong = [*mistakes(stated, group, hints, locate)]
    wrong += no_training(stated, locate) if group == "training" else ()
    if wrong:
        raise in_one(wrong)
    for name, value in stated.items():
        if isinstance(value, str) and (adapter := adapter_of(hints[name])) is not None:
            checked = adapter.validate_python(value)
            if isinstance(checked, int | float):
                stated[name] = checked
