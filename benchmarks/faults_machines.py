"""Faults of the base model (made from the embedded one), of the machine and of the libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pytest_ftloop.core.files import replacing
from pytest_ftloop.core.progress import Silent

ENDLESS = (
    "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
END_OUTSIDE = (
    "{% for m in messages %}{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
)


def broken(model: Any, _: Any) -> None:
    """One weight of the last layer is infinite, as after a bad conversion."""
    next(reversed(list(model.parameters()))).data[0] = float("inf")


def endless(_: Any, tokenizer: Any) -> None:
    """The chat template has no end of turn."""
    tokenizer.chat_template = ENDLESS


def end_outside(_: Any, tokenizer: Any) -> None:
    """The chat template's end of turn does not belong to the answer."""
    tokenizer.chat_template = END_OUTSIDE


def pad_is_end(_: Any, tokenizer: Any) -> None:
    """The pad token is the end token, as many scripts set it."""
    tokenizer.pad_token = tokenizer.eos_token


MODELS: dict[str, Callable[[Any, Any], None]] = {
    "broken": broken,
    "endless": endless,
    "end outside": end_outside,
    "pad is end": pad_is_end,
}


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """A training step of more than 4 rows runs out of memory."""
    import torch
    from trl import SFTTrainer

    real = SFTTrainer.training_step

    def short(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["input_ids"]) > 4:
            raise torch.OutOfMemoryError("planted")
        return real(trainer, model, inputs, *args, **kwargs)

    with patch.object(SFTTrainer, "training_step", short):
        yield


@contextlib.contextmanager
def masks_by_id() -> Iterator[None]:
    """The collator masks pads by their id, which also masks the ends."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling.torch_call

    def by_id(self: Any, examples: Any) -> Any:
        batch = collate(self, examples)
        batch["labels"][batch["input_ids"] == self.pad_token_id] = -100
        return batch

    with patch.object(DataCollatorForLanguageModeling, "torch_call", by_id):
        yield


MACHINES: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "": contextlib.nullcontext,
    "little memory": little_memory,
    "masks by id": masks_by_id,
}


def model_folder(name: str, kept: Path) -> Path:
    """The damaged model of this name, below the folder `kept`; made when first asked for."""
    folder = kept.resolve() / "models" / name.replace(" ", "-")
    if not folder.is_dir():
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from pytest_ftloop.train.tiny import tiny_folder

        source = tiny_folder(Silent())
        model = AutoModelForCausalLM.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        MODELS[name](model, tokenizer)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as making:
            model.save_pretrained(making)
            tokenizer.save_pretrained(making)
    return folder
