"""Whether two iterations were trained alike, and whether they were measured alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.set_metrics import KEY

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration


def trained_alike(one: Iteration, other: Iteration) -> bool:
    """Whether base model, tokenizer, train rows and settings are the same.

    Only chance and the evaluation can differ then. Settings that change no figure do not count,
    nor does the seed.
    """
    return _training(one) == _training(other)


def measured_alike(one: Iteration, other: Iteration) -> bool:
    """Whether eval set and scoring are the same."""
    return _measuring(one) == _measuring(other)


def _training(of: Iteration) -> tuple[Any, ...]:
    told = {k: v for k, v in of.settings.training.items() if k not in NEUTRAL | {"seed"}}
    rows = of.data.get("train", {}).get("sha256")
    return of.model, of.facts.get("tokenizer"), rows, dict(of.settings.lora), told


def _measuring(of: Iteration) -> tuple[Any, ...]:
    # The metrics of the set only read what was measured.
    scoring = {key: value for key, value in of.scoring.items() if key != KEY}
    return of.data.get("eval", {}).get("sha256"), scoring
