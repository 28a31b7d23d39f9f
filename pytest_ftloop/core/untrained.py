"""Which measurement of the untrained base an iteration is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.runs import decisive

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration, Untrained

TOKENISING = frozenset(
    {
        *("assistant_only_loss", "chat_template_path", "completion_only_loss"),
        *("dataset_kwargs", "dataset_text_field", "eos_token", "pad_token", "max_length"),
        *("truncation_mode", "bf16_full_eval", "fp16_full_eval", "model_init_kwargs"),
    }
)
"""Settings of a training that decide how rows become tokens and labels, or how the base is loaded.
The figures of the untrained base depend on no others, but for the precision, which is part of the
environment."""


def tokenising(training: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a training's settings that the figures of the untrained base depend on."""
    return {name: training[name] for name in sorted(TOKENISING & training.keys())}


def base_of(bases: Iterable[Untrained], iteration: Iteration) -> Untrained | None:
    """The base as measured for this iteration, in an environment that can't shift its figures."""
    here = decisive(iteration.environment)
    return next(
        (base for base in fitting(bases, iteration) if decisive(base.environment) == here), None
    )


def shown_base(bases: Iterable[Untrained], iteration: Iteration) -> Iteration | None:
    """The base as iteration 0 of an iteration's loop, for display: rather from its environment."""
    found = fitting(bases, iteration)
    best = base_of(found, iteration) or next(iter(found), None)
    return best.as_iteration() if best else None


def with_base(bases: Iterable[Untrained], iterations: Sequence[Iteration]) -> tuple[Iteration, ...]:
    """The iterations with the untrained base of the last one before them, if it was measured."""
    base = shown_base(bases, iterations[-1]) if iterations else None
    return (*((base,) if base else ()), *iterations)


def fitting(bases: Iterable[Untrained], iteration: Iteration) -> tuple[Untrained, ...]:
    """The measurements of an iteration's base, by its eval set, scoring and guards.

    Those of other environments are among them.
    """
    return tuple(base for base in bases if _is_of(base, iteration))


def _is_of(base: Untrained, iteration: Iteration) -> bool:
    measured = {role: of for role, of in iteration.data.items() if role != "train"}
    return (
        base.model == iteration.model
        and dict(base.scoring) == dict(iteration.scoring)
        and _identities(base.data) == _identities(measured)
        and base.facts.get("tokenizer") == iteration.facts.get("tokenizer")
        and base.facts.get("training", {}) == tokenising(iteration.settings.training)
    )


def _identities(data: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """What decides the figures of each role's rows; the name of their file does not."""
    return {role: (of.get("sha256"), of.get("scoring")) for role, of in data.items()}
