"""The ecosystem's own config objects (LoraConfig, SFTConfig) as the settings that they state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from pytest_ftloop.errors import ConfigError, Location


def stated_settings(group: str, config: Any, source: str) -> dict[str, Any]:
    """What an SFTConfig or LoraConfig states: the fields that differ from a fresh one's."""
    wanted = {"lora": "LoraConfig", "training": "SFTConfig"}[group]
    if isinstance(config, Mapping):
        stated = dict(config)
    elif any(base.__name__ == wanted for base in type(config).__mro__):
        fresh = _fresh(config)
        stated = {
            name: value
            for name, value in vars(config).items()
            if name in type(config).__dataclass_fields__
            and name not in _MACHINE
            and _jsonable(value) != _jsonable(getattr(fresh, name, None))
        }
        stated |= _stated_device(config)
    else:
        raise ConfigError(
            f"{group}: wanted a {wanted} or its arguments as a dict, found {type(config).__name__}",
            where=Location(source),
        )
    plain = {str(name): _jsonable(value) for name, value in stated.items()}
    if unkept := next((name for name, value in plain.items() if not _is_json(value)), None):
        raise ConfigError(
            f"{group}.{unkept}: wanted a value that a log can keep, "
            f"found a {type(plain[unkept]).__name__}",
            where=Location(source),
            cure="Use numbers, text, lists and dicts of them.",
        )
    return plain


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


_MACHINE = frozenset({"output_dir", "runtime_config", "task_type"})
"""Fields that the loop sets itself."""


def _fresh(config: Any) -> Any:
    """A config of the same class with nothing stated but what this one needs to be made here."""
    made_with = {
        name: getattr(config, name)
        for name in ("output_dir", "use_cpu", "bf16", "fp16")
        if name in type(config).__dataclass_fields__
    }
    return type(config)(**made_with)


def _stated_device(config: Any) -> dict[str, bool]:
    """Device and precision as the object has them: once made, it no longer tells what was said.

    SFTConfig itself chooses bf16, also on a CPU, and a plain script would train with that.
    """
    if not hasattr(config, "bf16"):
        return {}
    device = {"use_cpu": True} if config.use_cpu else {}
    return device | ({"fp16": True} if config.fp16 else {"bf16": bool(config.bf16)})


def _jsonable(value: Any) -> Any:
    """A value as a loop file would state it."""
    if hasattr(value, "value") and isinstance(value.value, str):  # an enum
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return _jsonable(asdict(value))
    if type(value).__module__ == "torch":  # a dtype: transformers takes its name
        return str(value).removeprefix("torch.")
    return value
