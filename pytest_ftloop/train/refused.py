"""TORCH: what a built trainer can't train, and the mistake behind one that can't be built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft.utils.other import TrainableTokensWrapper
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.core.records import Settings
from pytest_ftloop.evaluate.rendering import Renderer
from pytest_ftloop.train.boundary import cure_of
from pytest_ftloop.train.rendered import check_templates
from pytest_ftloop.train.task import Task

NO_TEMPLATE = (
    "Use an instruct model, set training.chat_template_path, or give prompt and completion as text."
)


TEMPLATE_FILES = (".jinja", ".j2")
"""How the names of templates end that trl takes as files, without a tokenizer."""

ADDS_TOKENS = "training.chat_template_path: the tokenizer there has tokens that this model lacks"

ADD_THEM = (
    "Name a .jinja file instead, and add the tokens: tokenizer: {add_special_tokens: [...]}, "
    "training: {eos_token: ...}; then train the embeddings and the output layer by "
    "lora.modules_to_save."
)


def explain_build(
    error: Exception,
    words: str,
    *,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    task: Task,
) -> FtloopError | None:
    """The setting behind an error; None if only the library's words are known.

    Raises `DataError` for a row that the chat template refuses.
    """
    check_templates(Renderer(tokenizer), (*task.train.examples, *task.eval.examples))
    if "embed_tokens" in words and _is_cloned(settings):
        return ConfigError(
            f"{ADDS_TOKENS}, and trl trains their embeddings under the name embed_tokens, which no "
            "layer of this model has",
            where=task.locate("training.chat_template_path"),
            cure=ADD_THEM,
        )
    if "arget modules" in words and "not found" in words:
        return ConfigError(
            f"lora.target_modules {settings.lora.get('target_modules')!r} match no module of the "
            "model",
            where=task.locate("lora.target_modules") or task.locate("lora"),
            cure=f"This model has {', '.join(_linear_modules(model))}. Or use all-linear.",
        )
    if "Callback requires" in words:
        return ConfigError(words, where=task.locate("training.report_to"))
    if "DataParallel" in words:
        return ConfigError("this process sees more than one GPU", cure=cure_of(error, words))
    template = str(settings.training.get("chat_template_path") or "")
    if template.endswith(TEMPLATE_FILES) and not Path(template).is_file():
        return ConfigError(
            f"training.chat_template_path: there is no file {template}",
            where=task.locate("training.chat_template_path"),
            cure="A relative path starts from the loop file.",
        )
    if "generation %}" in words and settings.training.get("assistant_only_loss"):
        return ConfigError(
            "training.assistant_only_loss: the chat template does not mark the answers "
            "({% generation %}), and trl has no version of it that does",
            where=task.locate("training.assistant_only_loss"),
            cure="Set training.chat_template_path to a template that marks them; or give the last "
            "answer as completion, then the loss is of it alone.",
        )
    if "chat template" in words or "chat_template" in words:
        return ConfigError(
            f"the tokenizer's chat template is missing or does not fit the data: {words}",
            where=task.locate("model"),
            cure=NO_TEMPLATE,
        )
    if "dropout probability" in words:
        return ConfigError(words, where=task.locate("lora.lora_dropout"))
    return None


def check_steps(trainer: SFTTrainer, task: Task) -> None:
    """Raise `ConfigError` if an epoch has no step: the trainer would end without training."""
    rows, batch = len(trainer.train_dataset), trainer.args.train_batch_size
    kind = "packs of rows" if trainer.args.packing else "rows"
    ranks = 1 if trainer.accelerator.split_batches else trainer.args.world_size
    if trainer.args.dataloader_drop_last and rows < batch * ranks:
        by = f" for each of {ranks} processes" if ranks > 1 else ""
        raise ConfigError(
            f"no step to train: the train set has {rows} {kind}, fewer than "
            f"training.per_device_train_batch_size {batch}{by}, and training.dataloader_drop_last "
            "drops the last incomplete batch",
            where=task.locate("training.dataloader_drop_last"),
            cure=f"Set per_device_train_batch_size: {max(1, rows // ranks)} or lower, or "
            "dataloader_drop_last: false.",
        )


def check_head(trainer: SFTTrainer, settings: Settings, task: Task) -> None:
    """Raise `ConfigError` if trained tokens would not count in the output layer.

    trl multiplies by the output layer's own weights. Where those are the embeddings' (tied), peft
    keeps the trained rows beside them.
    """
    model = trainer.model
    if not isinstance(model.get_output_embeddings(), TrainableTokensWrapper):
        return
    if _is_cloned(settings) and not settings.lora.get("trainable_token_indices"):
        raise ConfigError(
            f"{ADDS_TOKENS}, and the output layer of this model shares its weights with the "
            "embeddings: trl does not use the rows that peft trains there",
            where=task.locate("training.chat_template_path"),
            cure=ADD_THEM,
        )
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    both = (model.get_input_embeddings(), model.get_output_embeddings())
    modules = ", ".join(dict.fromkeys(names[id(module)] for module in both))
    raise ConfigError(
        "lora.trainable_token_indices: the output layer of this model shares its weights with the "
        "embeddings, and trl does not use the rows that peft trains there",
        where=task.locate("lora.trainable_token_indices"),
        cure=f"Train them whole: lora: {{modules_to_save: [{modules}]}}.",
    )


def _is_cloned(settings: Settings) -> bool:
    """Whether the chat template is that of another tokenizer, whose tokens trl adds too."""
    template = str(settings.training.get("chat_template_path") or "")
    return bool(template) and not template.endswith(TEMPLATE_FILES)


def _linear_modules(model: Any) -> list[str]:
    """The last parts of the names of the model's linear layers."""
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if hasattr(module, "weight") and module.weight.dim() == 2 and "." in name
        }
    )
