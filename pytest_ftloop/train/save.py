"""TORCH: save an adapter whole, or say why that was not possible: its training must not be lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from trl import SFTTrainer

from pytest_ftloop.core.cache import adapter_hash
from pytest_ftloop.core.files import replacing
from pytest_ftloop.core.ranks import Ranks
from pytest_ftloop.core.sums import write_sums


def save_adapter(trainer: SFTTrainer, folder: Path, ranks: Ranks) -> tuple[str, str]:
    """Save the trainer's adapter and tokenizer; the hash of its weights, and why it failed.

    One of the two is empty. A full or read-only cache is no reason to lose an hour of training. All
    ranks must call it, and the first one saves.
    """
    # Of a sharded model each rank has a part: gathered, with all calling it.
    whole = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    return ranks.of_first(lambda: _saved(trainer, folder, whole))


def _saved(
    trainer: SFTTrainer, folder: Path, whole: Mapping[str, torch.Tensor] | None
) -> tuple[str, str]:
    try:
        with replacing(folder) as making:
            trainer.model.save_pretrained(str(making), state_dict=whole)
            trainer.processing_class.save_pretrained(str(making))
            write_sums(making)
        return adapter_hash(folder), ""
    except (OSError, SafetensorError, RuntimeError) as error:  # torch's own writer raises the last
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        return "", said or type(error).__name__
