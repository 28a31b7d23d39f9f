"""Whether two iterations were trained alike, were measured alike, or are one training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.runs import Measured, decisive, rows_of
from pytest_ftloop.core.set_metrics import ONLY_READ

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult, Iteration

_ROUNDED = 2e-6
"""What rounding to six decimals, on both sides, may move an example's loss by."""

_REMEASURED = 1e-3
"""What another batch may move the mean loss of one adapter by, as a share: rounding in bf16."""


def trained_alike(one: Iteration, other: Iteration) -> bool:
    """Whether base model, tokenizer, train rows and settings are the same.

    Only chance and the evaluation can differ then. Settings that change no figure do not count,
    nor does the seed.
    """
    return _training(one) == _training(other)


def measured_alike(one: Iteration, other: Iteration) -> bool:
    """Whether eval set and scoring are the same."""
    return _measuring(one) == _measuring(other)


def scorer_of(run: Measured) -> dict[str, Any]:
    """How a run was scored, without the metrics of the set: they only read what was scored."""
    return {key: value for key, value in run.scoring.items() if key not in ONLY_READ}


def is_one_training(one: Measured, other: Measured, ids: Sequence[str]) -> bool:
    """Whether two runs, of iterations trained alike, are evaluations of one training.

    `ids` are the examples that they share. That their records name the same adapter is not enough,
    as a record can be written by hand: the losses must agree as those of one adapter do. Without a
    hash on one side (older records, a cache that was full) they must be equal.
    """
    if one.seed != other.seed or decisive(one.environment) != decisive(other.environment):
        return False
    if one.adapter and other.adapter and one.adapter != other.adapter:
        return False
    pairs = list(zip(rows_of(one, ids), rows_of(other, ids), strict=True))
    if not pairs or any(a.tokens != b.tokens for a, b in pairs):
        return False
    if not (one.adapter and other.adapter):
        return all(_is_same_loss(a, b) for a, b in pairs)
    before, after = (math.fsum(row.loss for row in rows) for rows in zip(*pairs, strict=True))
    return abs(after - before) <= _REMEASURED * abs(before)


def _is_same_loss(one: ExampleResult, other: ExampleResult) -> bool:
    return one.correct == other.correct and abs(one.loss - other.loss) <= _ROUNDED


def _training(of: Iteration) -> tuple[Any, ...]:
    told = {k: v for k, v in of.settings.training.items() if k not in NEUTRAL | {"seed"}}
    rows = of.data.get("train", {}).get("sha256")
    return of.model, of.facts.get("tokenizer"), rows, dict(of.settings.lora), told


def _measuring(of: Iteration) -> tuple[Any, ...]:
    return of.data.get("eval", {}).get("sha256"), scorer_of(of)
