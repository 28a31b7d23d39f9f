"""TORCH: why a base can't be loaded or trained: not a causal model, an adapter, a pointer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import find_adapter_config_file

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes, read_json
from pytest_ftloop.core.cache import adapter_config
from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.diagnose.any_trainer.adapter_file import check_weights
from pytest_ftloop.log.files import POINTER

NAME_A_MODEL = (
    "Name a folder with config.json and weights, a hub id (network needed once), or 'tiny', the "
    "embedded base model."
)

READ_FROM_FOLDER = (".safetensors", ".bin", ".json", ".model")
"""The endings of the files that a model and its tokenizer are loaded from."""

JSON_OF_MODEL = frozenset(
    {
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
)
"""The files of JSON that a model and its tokenizer are loaded from."""


def check_files(name: str, shown: str, where: Location | None) -> None:
    """Raise `ConfigError` for a folder that holds an adapter, or pointers in place of weights."""
    folder = Path(name)
    if not folder.is_dir():
        return
    if not (folder / "config.json").is_file():
        check_adapter(name, None, shown, where)
    for file in sorted(folder.iterdir()):
        if file.suffix in READ_FROM_FOLDER and file.is_file() and _is_pointer(file):
            raise ConfigError(
                f"model {shown!r}: {file.name} is a pointer of Git LFS, not the file itself",
                where=where,
                cure="Install git-lfs, then run git lfs install and git lfs pull (in "
                "actions/checkout: lfs: true).",
            )
        if why := _damage(file):
            raise ConfigError(
                f"model {shown!r}: {file.name} can't be read: {why}",
                where=where,
                cure="Restore the file, or get the model again.",
            )


def _damage(file: Path) -> str:
    """Why a file of a model can't be read; empty if it can, or is not one that is always read."""
    try:
        if file.suffix == ".safetensors":
            check_weights(file)
        elif file.name in JSON_OF_MODEL and not isinstance(
            read_json(read_bytes(file, MOST_BYTES)), dict
        ):
            return "it is not a JSON object"
    except json.JSONDecodeError as error:
        return f"it is not JSON, or not all of it (line {error.lineno})"
    except UnicodeDecodeError:
        return "it is not JSON"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""


def check_adapter(name: str, revision: str | None, shown: str, where: Location | None) -> None:
    """Raise `ConfigError` if a name that is no model's is that of an adapter."""
    file = find_adapter_config_file(name, revision=revision)
    if file is None:
        return
    base = (adapter_config(Path(file).parent) or {}).get("base_model_name_or_path")
    raise ConfigError(
        f"model {shown!r} is a LoRA adapter"
        + (f", trained on {base}" if base else "")
        + ", and a loop starts from a base model",
        where=where,
        cure=f"Name its base, model: {base or '...'}. To go on training this adapter, also write "
        f"lora: {{init_from: {shown}}}; to train a new one on top of it, merge it first (peft's "
        "merge_and_unload).",
    )


def check_trainable(model: Any, shown: str, where: Location | None) -> None:
    """Raise `ConfigError` unless the model is a causal one that has no adapter yet."""
    if isinstance(model, PreTrainedModel) and getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(
            f"model {shown!r} holds an adapter beside the base model, and loads with it applied",
            where=where,
            cure="Move adapter_config.json and the adapter's weights away, or merge them first.",
        )
    kind = ""
    if getattr(model.config, "is_encoder_decoder", False):
        kind = "an encoder-decoder"
    elif isinstance(model, PreTrainedModel) and not model.can_generate():
        kind = "not a causal language model"
    if kind:
        raise ConfigError(
            f"model {shown!r} is {kind} ({type(model).__name__}): a loop trains causal language "
            "models",
            where=where,
            cure="Name a model that transformers' AutoModelForCausalLM loads, such as gpt2.",
        )


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(POINTER)) == POINTER
