"""A `LoopConfig` from live objects, for the `ftloop` fixture and for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

from pytest_ftloop.config.loop_config import LoopConfig, checked
from pytest_ftloop.core.errors import ConfigError, Location


def stated_settings(group: str, config: Any, source: str) -> dict[str, Any]:
    """The settings that an SFTConfig or LoraConfig states: fields that differ from a new one's."""
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
            f"{group}.{unkept}: wanted a value that the log can store, "
            f"found a {type(plain[unkept]).__name__}",
            where=Location(source),
            cure="Use numbers, text, and lists and dicts of these.",
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
    """A config of the same class that states only what this machine needs to construct it."""
    made_with = {
        name: getattr(config, name)
        for name in ("output_dir", "use_cpu", "bf16", "fp16")
        if name in type(config).__dataclass_fields__
    }
    return type(config)(**made_with)


def _stated_device(config: Any) -> dict[str, bool]:
    """Device and precision, as the object has them: it does not keep which of them were stated.

    SFTConfig chooses bf16 by itself, even on a CPU, and a plain script would train with that.
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
    if hasattr(value, "quant_method") and hasattr(value, "to_diff_dict"):
        return _jsonable(value.to_diff_dict())  # such as a BitsAndBytesConfig
    if is_dataclass(value) and not isinstance(value, type):
        return _jsonable(asdict(value))
    if type(value).__module__ == "torch":  # a dtype: transformers takes its name
        return str(value).removeprefix("torch.")
    return value


def from_python(
    *,
    folder: Path,
    source: str,
    name: str,
    model: Any = "tiny",
    tokenizer: Any = None,
    train: Any = None,
    eval: Any = None,  # noqa: A002 - the loop file's own key
    holdout: Any = None,
    lora: Any = None,
    training: Any = None,
    data: Mapping[str, Any] | None = None,
    scoring: Mapping[str, Any] | str | None = None,
    metrics: Mapping[str, str] | list[str] | None = None,
    gates: Mapping[str, Any] | None = None,
    loop: Mapping[str, Any] | None = None,
) -> LoopConfig:
    """A loop from the sections of a loop file, or from objects of trl, peft and datasets.

    `model` may be a loaded model (with its `tokenizer`; for a named model that is a dict of a loop
    file's tokenizer section), `train`, `eval` and `holdout` any iterable
    of rows (a `datasets.Dataset`), `lora` a LoraConfig, `training` an SFTConfig. `data` takes the
    other keys of the loop file's data section (split, id, tags, keep, train_sample).
    """
    _check_tokenizer(tokenizer, model)
    # An iterator can be read only once, but a loop may run twice.
    train, eval, holdout = (  # noqa: A001
        list(s) if isinstance(s, Iterator) else s for s in (train, eval, holdout)
    )
    live = {"model": model, "train": train, "eval": eval, "holdout": holdout}
    values: dict[str, Any] = {
        "name": name,
        "data": {**(data or {})},
        "metrics": metrics,
        "gates": dict(gates or {}),
        "loop": dict(loop or {}),
    }
    if isinstance(model, str | Path):
        values["model"] = str(model)
    if isinstance(tokenizer, Mapping):
        values["tokenizer"] = dict(tokenizer)
    for role, source_ in (("train", train), ("eval", eval), ("holdout", holdout)):
        if source_ is not None:
            _refuse_splits(role, source_, source)
            plain = isinstance(source_, str | Path | dict)
            values["data"][role] = str(source_) if isinstance(source_, Path) else source_
            if not plain:
                values["data"][role] = "live"
    if lora is not None:
        values["lora"] = stated_settings("lora", lora, source)
    if training is not None:
        values["training"] = stated_settings("training", training, source)
    if scoring is not None:
        values["scoring"] = {"scorer": scoring} if isinstance(scoring, str) else dict(scoring)
    config = checked(values, {}, folder=folder, source=source, name=name)
    changes = {
        key: value
        for key, value in live.items()
        if value is not None and not isinstance(value, str | Path | dict)
    }
    return replace(config, tokenizer=config.tokenizer or tokenizer, **changes)


def _check_tokenizer(tokenizer: Any, model: Any) -> None:
    """A named model takes the keys of a loop file's tokenizer section, a live one a live one."""
    if isinstance(tokenizer, Mapping) and not isinstance(model, str | Path):
        raise ConfigError(
            "found tokenizer keys with a loaded model",
            cure="Add the tokens to its tokenizer, resize the model, and pass both.",
        )
    if not isinstance(tokenizer, Mapping | None) and isinstance(model, str | Path):
        raise ConfigError(
            f"found a tokenizer with the model {str(model)!r}, which has its own",
            cure="Pass a loaded model with the tokenizer, leave the tokenizer out, or name "
            'another: tokenizer={"name": ...}.',
        )


def _refuse_splits(role: str, given: Any, source: str) -> None:
    if isinstance(given, dict) and type(given).__name__.endswith("DatasetDict"):
        raise ConfigError(
            f"{role}: wanted one split, found a {type(given).__name__} of {', '.join(given)}",
            where=Location(source),
            cure=f"Pass one of them: {role}=data[{next(iter(given), 'train')!r}].",
        )
