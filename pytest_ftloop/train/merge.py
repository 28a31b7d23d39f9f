"""TORCH: merge an adapter into its base model, as full weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from transformers import AutoTokenizer

from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.train.base import load_base
from pytest_ftloop.train.lora import quiet

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.train.trained_on import BaseModel


def merge(adapter: Path, folder: Path, base: BaseModel, settings: Settings) -> None:
    """Load the base in the type that its weights are stored in, merge, save to `folder`.

    The loop's `model_init_kwargs` are ignored: into a quantised base, for example, peft can't
    merge.
    """
    name = f"{base.name}@{base.revision}" if base.revision else base.name
    training: dict[str, Any] = {
        "model_init_kwargs": {"dtype": "auto"},
        "trust_remote_code": settings.training.get("trust_remote_code", False),
    }
    with quiet():
        loaded = load_base(name, training, None)
        model = PeftModel.from_pretrained(loaded.model, str(adapter))
        try:
            merged = model.merge_and_unload(safe_merge=True)
        except ValueError as error:
            raise TrainingError(f"peft can't merge this adapter: {error}") from error
        merged.save_pretrained(str(folder))
        tokenizer = loaded.tokenizer
        if (adapter / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(adapter))
        tokenizer.save_pretrained(str(folder))
