"""Which package quantises a loop's base model or its optimiser's states, and its version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.bounds import read_bytes, read_json
from pytest_ftloop.data.identity import model_path

PACKAGES = {"gptq": "gptqmodel", "awq": "gptqmodel", "quanto": "optimum-quanto"}
"""Packages whose name is not that of transformers' `quant_method`."""

BITSANDBYTES_OPTIMISER = re.compile(r"(?<!torch_)8bit|paged|bnb|lion|ademamix")
"""What the names of the optimisers of bitsandbytes have: paged_adamw_32bit, lion_8bit, ..."""


def quantised_by(config: LoopConfig) -> str:
    """The package that quantises the loop's base model; empty if none does.

    It is known without loading the model: from `model_init_kwargs`, else from the model's own
    configuration. For a model on the hub only the former is read.
    """
    stated = (config.settings.training.get("model_init_kwargs") or {}).get("quantization_config")
    found = stated or _of_model(config)
    if not isinstance(found, Mapping):
        return ""
    method = str(getattr(found.get("quant_method"), "value", found.get("quant_method") or ""))
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        method = "bitsandbytes"
    return PACKAGES.get(method, method)


def versions(quantised_by: str, optimiser: str) -> dict[str, str]:
    """The versions, by package, that count in the environment: only of what is used."""
    used = {quantised_by} - {""}
    if BITSANDBYTES_OPTIMISER.search(str(getattr(optimiser, "value", optimiser))):
        used.add("bitsandbytes")
    found = {}
    for package in sorted(used):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # transformers quantises some formats by itself
    return found


def _of_model(config: LoopConfig) -> Any:
    """The quantisation in the configuration of a live model or of a model's folder."""
    if not isinstance(config.model, str):
        found = getattr(config.model.config, "quantization_config", None)
        return found if found is None or isinstance(found, dict) else found.to_dict()
    file = model_path(config.model, config.folder) / "config.json"
    if not file.is_file():
        return None
    try:
        return read_json(read_bytes(file)).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return None  # a broken file is an error when the model is loaded
