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
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from trl.trainer.utils import create_model_from_path

from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.data.identity import split_revision


@dataclass
class Loan:
    """One run's use of the base model. `keep` saves base weights that the run will change."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
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
    """A loaded base model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @contextlib.contextmanager
    def lent(self) -> Iterator[Loan]:
        """Lend the model and a copy of the tokenizer; afterwards the model is as it was.

        peft and trl change a model in many places (wrapped modules, a patched forward, hooks,
        config fields), and peft's `unload()` restores only some of them: `modules_to_save` and
        trained biases remain. So the state of every module is saved and restored.
        """
        loan = Loan(self.model, copy.deepcopy(self.tokenizer))
        states = [(module, _own_state(module)) for module in self.model.modules()]
        configs = [(config, _own_state(config)) for config in _configs(self.model)]
        trainable = [(p, p.requires_grad) for p in self.model.parameters()]
        try:
            yield loan
        finally:
            for thing, state in [*states, *configs]:
                vars(thing).clear()
                vars(thing).update(state)
            for parameter, requires_grad in trainable:
                parameter.requires_grad_(requires_grad)
                parameter.grad = None
            with torch.no_grad():
                for parameter, weights in loan.kept:
                    parameter.copy_(weights)
            free_memory()


def load_base(
    name: str, training: Mapping[str, Any], where: Location | None, shown: str = ""
) -> Base:
    """The model and tokenizer that `SFTTrainer(model=name, args=SFTConfig(**training))` would load.

    `name` is a folder or a hub id, with `@revision` if it is pinned. Raises `ConfigError` if it is
    neither; the message calls the model `shown`.
    """
    name, revision = split_revision(name)
    kwargs = dict(training.get("model_init_kwargs") or {})
    kwargs.setdefault("trust_remote_code", bool(training.get("trust_remote_code", False)))
    if revision:
        kwargs["revision"] = revision
    # SFTTrainer seeds before it loads, so that weights missing in a checkpoint are reproducible.
    set_seed(int(training.get("seed", 42)))
    try:
        model = create_model_from_path(name, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=kwargs["trust_remote_code"]
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"model {shown or name!r} could not be loaded: {reason[0]}",
            where=where,
            cure="Name a folder with config.json and weights, a hub id (network needed once), or "
            "'tiny', the embedded base model.",
        ) from error
    return Base(model, tokenizer)


def load_tokenizer(model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a loaded model, as SFTTrainer would find it."""
    name = model.config.name_or_path
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the given model has no tokenizer at its own name, {name!r}",
            cure="Pass the tokenizer: ftloop(model=model, tokenizer=tokenizer, ...).",
        ) from error


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
