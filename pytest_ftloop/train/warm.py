"""TORCH: give a model a saved adapter that goes on being trained, as a plain script does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model_state_dict, load_peft_weights
from transformers import PreTrainedModel

from pytest_ftloop.core.cache import adapter_config
from pytest_ftloop.core.errors import ConfigError, Locate
from pytest_ftloop.core.records import Settings
from pytest_ftloop.train.task import INIT_FROM, Start

SHAPING = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "bias")
"""Arguments of LoraConfig that decide the shape and scale of an adapter: none may differ. Which
modules it has is compared by its weights."""


def start_of(settings: Settings, start: Start | None, locate: Locate) -> Start | None:
    """The adapter that these settings go on from, checked; None if they start afresh.

    Raises `ConfigError` if it is not on this machine, or is of another shape.
    """
    stated = settings.lora.get(INIT_FROM)
    if stated is None:
        return None
    if start is None or stated != start.adapter:
        raise ConfigError(
            f"lora.{INIT_FROM} can't be changed from one iteration to the next",
            where=locate(f"lora.{INIT_FROM}"),
            cure="State it in the section lora of the loop: all its iterations start from it.",
        )
    if start.folder is None:
        raise ConfigError(
            f"lora.{INIT_FROM}: the adapter of {start.of} ({start.adapter[:8]}) is not on this "
            "machine",
            where=locate(f"lora.{INIT_FROM}"),
            cure="Train it here again with its own loop file, or name the folder of a copy.",
        )
    return start


def check_shape(lora: LoraConfig, start: Start, base: str, locate: Locate) -> None:
    """Raise `ConfigError` for settings whose adapter has not the shape and scale of `start`.

    `base` is the loop's model as it names it.
    """
    assert start.folder is not None
    saved: Mapping[str, Any] = adapter_config(start.folder) or {}
    kind = str(saved.get("peft_type", "LORA"))
    if kind != "LORA":
        raise _differs("", f"wanted a LoRA adapter, found {kind} in {start.of}", locate)
    plain = LoraConfig()
    for name in SHAPING:
        theirs, ours = saved.get(name, getattr(plain, name)), getattr(lora, name)
        if theirs != ours:
            raise _differs(name, f"{start.of} has lora.{name} {theirs}, the loop {ours}", locate)
    if isinstance(lora.init_lora_weights, str) and lora.init_lora_weights != "gaussian":
        raise _differs(
            "init_lora_weights",
            f"lora.init_lora_weights {lora.init_lora_weights!r} takes the start out of the base "
            "weights, and the adapter would not fit them",
            locate,
        )
    named = str(saved.get("base_model_name_or_path") or "")
    if _is_hub_id(named) and _is_hub_id(base) and named != base.partition("@")[0]:
        raise _differs("", f"{start.of} was trained on {named}, the loop's model is {base}", locate)


def warm(model: PreTrainedModel, lora: LoraConfig, start: Start, locate: Locate) -> PeftModel:
    """The model with the adapter, whose weights are to be trained."""
    assert start.folder is not None
    folder = str(start.folder)
    try:
        warmed = PeftModel.from_pretrained(model, folder, is_trainable=True, config=lora)
    except RuntimeError as error:  # weights of another shape: a base of another size
        said = str(error).strip().splitlines()[-1].strip()
        raise _differs("", f"{start.of} does not fit the loop's model: {said}", locate) from error
    theirs, ours = set(load_peft_weights(folder, device="cpu")), _names(warmed)
    if different := sorted(_modules(theirs ^ ours)):
        missing = sorted(_modules(ours - theirs))
        what = f"lacks {missing[0]}" if missing else f"has {different[0]}, which the loop has not"
        raise _differs("target_modules", f"{start.of} is of other modules: it {what}", locate)
    return warmed


def _names(model: PeftModel) -> set[str]:
    # Embeddings that were resized are saved with the adapter, and are no matter of its modules.
    return set(get_peft_model_state_dict(model, save_embedding_layers=False))


def _modules(names: set[str]) -> set[str]:
    """The modules of adapter weights: `base_model.model.h.0.attn.c_attn.lora_A.weight`."""
    return {
        name.partition(".lora_")[0].removeprefix("base_model.model.")
        for name in names
        if ".lora_" in name
    }


def _is_hub_id(name: str) -> bool:
    return name.partition("@")[0].count("/") == 1 and not name.startswith((".", "/", "~"))


def _differs(name: str, said: str, locate: Locate) -> ConfigError:
    where = (locate(f"lora.{name}") if name else None) or locate(f"lora.{INIT_FROM}")
    return ConfigError(
        f"lora.{INIT_FROM}: {said}",
        where=where,
        cure=f"An adapter that goes on being trained keeps its base, rank, scale and modules: "
        f"give the section lora its values, or leave out {INIT_FROM}.",
    )
