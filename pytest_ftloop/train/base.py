"""TORCH: the base model, loaded once per loop, lent to one run at a time, and restored after it."""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl.trainer.utils import create_model_from_path

from pytest_ftloop.config.sections import TokenizerSection
from pytest_ftloop.core.errors import ConfigError, Locate
from pytest_ftloop.core.records import Settings
from pytest_ftloop.data.identity import split_revision
from pytest_ftloop.train.boundary import boundary, cure_of, mentioned
from pytest_ftloop.train.tokenised import Tokenised
from pytest_ftloop.train.tokenizer import PASS_TOKENIZER, load_tokenizer, with_section
from pytest_ftloop.train.unloadable import (
    NAME_A_MODEL,
    check_adapter,
    check_files,
    check_trainable,
)


@dataclass
class Loan:
    """One run's use of the base model. `keep` saves base weights that the run will change.

    `added_tokens`, `loaded_from` and `tokenised` are those of the `Base`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    added_tokens: frozenset[int] = frozenset()
    loaded_from: str = ""
    tokenised: Tokenised = field(default_factory=Tokenised)
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = field(default_factory=list)

    def keep_trainable(self) -> None:
        """Copy the base weights that are now trainable, such as biases, to restore them later."""
        self.keep(p for p in self._own if p.requires_grad)

    def keep_all(self) -> None:
        """Copy every base weight: some adapter initialisations (PiSSA, OLoRA) change them all."""
        self.keep(self._own)

    def keep(self, parameters: Any) -> None:
        """Copy these weights to the CPU."""
        done = {id(p) for p, _ in self.kept}
        self.kept += [(p, p.detach().to("cpu", copy=True)) for p in parameters if id(p) not in done]

    def __post_init__(self) -> None:
        self._own = list(self.model.parameters())


@dataclass(frozen=True)
class Base:
    """A loaded base model and its tokenizer.

    `quantised_by` is the package that quantises the weights, empty if none does. `added_tokens` are
    the ids of tokens that the loop file adds: the model has not seen them. `loaded_from` is the
    name to load the model from for each run, empty for most models: to load one that initialises
    some weights (Mamba, a checkpoint that lacks them) draws random numbers, and the adapter of a
    plain script starts after these. `tokenised` are the rows that runs have prepared.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    quantised_by: str = ""
    added_tokens: frozenset[int] = frozenset()
    loaded_from: str = ""
    tokenised: Tokenised = field(default_factory=Tokenised, compare=False)

    @contextlib.contextmanager
    def lent(self) -> Iterator[Loan]:
        """Lend the model and a copy of the tokenizer; afterwards the model is as it was.

        peft and trl change a model in many places (wrapped modules, a patched forward, hooks,
        config fields), and peft's `unload()` restores only some of them: `modules_to_save` and
        trained biases remain. So the state of every module is saved and restored.
        """
        tokenizer = copy.deepcopy(self.tokenizer)
        loan = Loan(self.model, tokenizer, self.added_tokens, self.loaded_from, self.tokenised)
        states = [(module, _own_state(module)) for module in self.model.modules()]
        configs = [(config, _own_state(config)) for config in _configs(self.model)]
        trainable = [(p, p.requires_grad) for p in self.model.parameters()]
        tokens = [(weights, weights.data) for weights in _token_weights(self.model)]
        _keep_packing(self.model)
        try:
            yield loan
        finally:
            for thing, state in [*states, *configs]:
                vars(thing).clear()
                vars(thing).update(state)
            for parameter, requires_grad in trainable:
                parameter.requires_grad_(requires_grad)
                parameter.grad = None
            for parameter, data in tokens:
                if parameter.shape != data.shape:  # tokens of a chat template were added in place
                    parameter.data = data.to(parameter.device)
            with torch.no_grad():
                for parameter, weights in loan.kept:
                    parameter.copy_(weights)
            free_memory()


def load_base(
    name: str,
    training: Mapping[str, Any],
    locate: Locate | None = None,
    shown: str = "",
    tokenizer: TokenizerSection | None = None,
) -> Base:
    """The model and tokenizer that `SFTTrainer(model=name, args=SFTConfig(**training))` would load.

    `name` is a folder or a hub id, with `@revision` if it is pinned; `tokenizer` names another
    tokenizer or adds tokens. Raises `ConfigError` if there is no model to train; the message calls
    it `shown`.
    """
    locate = locate or (lambda _: None)
    shown, where = shown or name, locate("model")
    id_, revision = split_revision(name)
    kwargs = dict(training.get("model_init_kwargs") or {})
    kwargs.setdefault("trust_remote_code", bool(training.get("trust_remote_code", False)))
    if revision:
        kwargs["revision"] = revision
    check_files(id_, shown, where)
    # SFTTrainer seeds before it loads, so that weights missing in a checkpoint are reproducible.
    set_seed(int(training.get("seed", 42)))
    seeded = torch.get_rng_state()

    def explain(error: Exception, words: str) -> ConfigError:
        check_adapter(id_, revision, shown, where)
        setting = mentioned(words, settings) or "model"
        if "quantiz" in words and "quantization_config" in kwargs:
            setting = "training.model_init_kwargs.quantization_config"
        cure = cure_of(error, words, NAME_A_MODEL if setting == "model" else "")
        text = f"model {shown!r} could not be loaded: {words}"
        return ConfigError(text, where=locate(setting), cure=cure)

    settings = Settings(lora={}, training=training)
    with boundary("loading the model", settings, locate, "model", explain=explain):
        model = create_model_from_path(id_, **kwargs)
    draws = not torch.equal(seeded, torch.get_rng_state())
    check_trainable(model, shown, where)
    section = tokenizer or TokenizerSection.model_validate({})
    own, key = (section.name, "tokenizer.name") if section.name else (name, "model")
    with boundary("loading the tokenizer", settings, locate, key, kind=ConfigError):
        words = f"tokenizer {section.name!r}" if section.name else f"model {shown!r}"
        loaded = load_tokenizer(own, words, locate, key, trust=kwargs["trust_remote_code"])
        added = frozenset[int]()
        if tokenizer is not None:
            added = with_section(model, loaded, tokenizer, locate)
    return Base(model, loaded, added_tokens=added, loaded_from=name if draws and not added else "")


def live_base(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Base:
    """A loaded model from Python, with its tokenizer or the one at the model's own name."""
    check_trainable(model, type(model).__name__, None)
    if tokenizer is not None:
        return Base(model, tokenizer)
    name = model.config.name_or_path
    shown = f"the given model's own name, {name!r},"
    return Base(model, load_tokenizer(name, shown, lambda _: None, "", cure=PASS_TOKENIZER))


def _token_weights(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The weights of the embeddings and of the output layer, which have a row per token."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [weights for layer in layers if layer is not None for weights in layer.parameters()]


def _keep_packing(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights in the first forward in eval mode.

    On CPUs with AVX512-BF16 it does so for speed, with scales rounded to bf16. The weights stay
    so, and all later training losses move: an evaluation must change none.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def free_memory() -> None:
    """Collect garbage and return an accelerator's memory, which is short.

    On the CPU regular collections suffice: a full one would take longer than a training step.
    """
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _own_state(thing: Any) -> dict[str, Any]:
    """A copy of the attributes of a module or config: containers are copied, their items shared."""
    return {
        name: copy.copy(value) if isinstance(value, dict | list | set) else value
        for name, value in vars(thing).items()
    }


def _configs(model: PreTrainedModel) -> list[Any]:
    """Every config object of the model's modules, without duplicates: many modules share one."""
    found: dict[int, Any] = {}
    for module in model.modules():
        for name in ("config", "generation_config"):
            config = vars(module).get(name)
            if isinstance(config, PreTrainedConfig | GenerationConfig):
                found[id(config)] = config
                text = config.get_text_config() if isinstance(config, PreTrainedConfig) else config
                found[id(text)] = text
    return list(found.values())
