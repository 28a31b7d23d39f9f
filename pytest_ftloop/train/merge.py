"""TORCH: merge an adapter into its base model, as full weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pytest_ftloop.train.base import load_base
from pytest_ftloop.train.boundary import boundary
from pytest_ftloop.train.quiet import quiet

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.train.trained_on import BaseModel


def merge(
    adapter: Path, folder: Path, base: BaseModel, settings: Settings, *, trusts_code: bool = False
) -> None:
    """Merge into the weights that the adapter was trained on, save to `folder`.

    They are the base's, in the type that they are stored in. If training quantised them, they are
    what the quantised weights stand for: into the original ones the figures would be others, and
    into the quantised ones peft rounds the adapter away. Code in the model's repository runs only
    if `trusts_code`, whatever the settings say.
    """
    name = f"{base.name}@{base.revision}" if base.revision else base.name
    with quiet(), boundary("merging the adapter", settings, lambda _: None):
        loaded = load_base(name, _stated(trusts_code, {"dtype": "auto"}))
        model = loaded.model
        if getattr(model, "is_quantized", False):
            model = model.dequantize()
        elif quantised := _quantisation(settings):
            _take_weights(
                model, load_base(name, _stated(trusts_code, quantised)).model.dequantize()
            )
        tokenizer = loaded.tokenizer
        if (adapter / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(adapter), trust_remote_code=trusts_code)
        # Training added tokens: the adapter holds weights for them.
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
        merged.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


def _stated(trusts_code: bool, model_init_kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"model_init_kwargs": model_init_kwargs, "trust_remote_code": trusts_code}


def _quantisation(settings: Settings) -> dict[str, Any]:
    """The arguments that quantised the base in training; empty if none did."""
    stated = settings.training.get("model_init_kwargs") or {}
    if not stated.get("quantization_config"):
        return {}
    kept = ("quantization_config", "dtype", "device_map")
    return {name: value for name, value in stated.items() if name in kept}


def _take_weights(model: PreTrainedModel, dequantised: PreTrainedModel) -> None:
    """Copy the dequantised weights into the model. GPT-2's Conv1D has them the other way round."""
    own = dict(model.named_modules())
    with torch.no_grad():
        for name, source in dequantised.named_modules():
            target = own.get(name)
            if isinstance(source, torch.nn.Linear) and target is not None:
                turned = isinstance(target, Conv1D)
                target.weight.copy_(source.weight.T if turned else source.weight)
