"""What the files beside a state say of the model: its vocabulary, and whether it is causal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_ftloop.core.bounds import read_bytes, read_json

ENCODER_DECODERS = frozenset(
    [
        "t5",
        "mt5",
        "umt5",
        "longt5",
        "byt5",
        "switch_transformers",
        "bart",
        "mbart",
        "pegasus",
        "marian",
        "m2m_100",
        "nllb_moe",
        "led",
        "blenderbot",
        "prophetnet",
        "whisper",
        "speech_to_text",
        "speecht5",
        "encoder-decoder",
        "vision-encoder-decoder",
        "speech-encoder-decoder",
        "pix2struct",
        "donut",
        "trocr",
        "moonshine",
    ]
)
"""Model types whose loss is no causal model's, in case a configuration does not say so."""

_TASKS = {"CAUSAL_LM": True, "SEQ_2_SEQ_LM": False, "SEQ_CLS": False, "TOKEN_CLS": False}
_TASKS |= {"QUESTION_ANS": False}


@dataclass(frozen=True)
class ModelFile:
    """A model's configuration. `causal` is None, and `vocabulary` 0, where it does not tell."""

    causal: bool | None
    vocabulary: int


def read_model(folders: list[Path]) -> ModelFile:
    """What the first folder with a configuration says, of the model or of its adapter."""
    for folder in folders:
        model, adapter = _json(folder / "config.json"), _json(folder / "adapter_config.json")
        if model or adapter:
            return ModelFile(_is_causal(model, adapter), _vocabulary(model))
    return ModelFile(None, 0)


def _is_causal(model: Mapping[str, Any], adapter: Mapping[str, Any]) -> bool | None:
    task = adapter.get("task_type")
    if isinstance(task, str) and task in _TASKS:
        return _TASKS[task]
    kind, classes = model.get("model_type"), model.get("architectures")
    if model.get("is_encoder_decoder") is True or (
        isinstance(kind, str) and kind in ENCODER_DECODERS
    ):
        return False
    name = classes[0] if isinstance(classes, list) and classes else None
    if not isinstance(name, str):
        return None
    # Without an encoder-decoder's flag, ForConditionalGeneration is a model of images and text.
    return name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))


def _vocabulary(model: Mapping[str, Any]) -> int:
    text = model.get("text_config")
    for of in (model, text if isinstance(text, dict) else {}):
        size = of.get("vocab_size")
        if type(size) is int and size > 1:
            return size
    return 0


def _json(path: Path) -> dict[str, Any]:
    """An object in a file; empty if there is none, or it can't be read."""
    try:
        found = read_json(read_bytes(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
