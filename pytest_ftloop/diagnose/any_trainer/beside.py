"""Whether a run is of LoRA, by the files beside its state."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pytest_ftloop.diagnose.any_trainer.adapter_file import CONFIG, WEIGHTS

_WHOLE = ("config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""Files that are saved where the whole model is trained; with an adapter peft saves its own."""


def is_of_lora(folders: Iterable[Path]) -> bool | None:
    """Whether an adapter lies in one of the folders, or a whole model; None if neither does."""
    places = list(folders)
    if any((place / name).is_file() for place in places for name in (CONFIG, WEIGHTS)):
        return True
    return False if any((place / name).is_file() for place in places for name in _WHOLE) else None
