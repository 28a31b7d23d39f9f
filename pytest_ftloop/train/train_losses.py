"""TORCH: collect what the training's own forward passes show of each train example."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from trl import SFTTrainer

from pytest_ftloop.core.ranks import ALONE, Ranks
from pytest_ftloop.core.records import Example, TrainedExample
from pytest_ftloop.evaluate.evaluator import ID_COLUMN

KEPT_ON_DEVICE = 64
"""Micro-batches that wait on the device before they are copied: each copy stalls the device."""


@dataclass(frozen=True)
class _Batch:
    """One micro-batch on the device: (B, T) tokens and mask, (B, 3) figures of each row.

    The figures: mean loss in nats, number of labelled tokens, number of those that were top-1.
    """

    step: int
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    figures: torch.Tensor


@dataclass(frozen=True)
class _Pass:
    """One pass over one row."""

    step: int
    key: bytes
    loss: float
    tokens: int
    correct: int


class TrainLosses:
    """Collects the losses of a run's train examples without an effect on training.

    trl's training forward returns the log-probability of every labelled token, and whether it was
    top-1. A forward hook takes these of each row: without a second forward, a random number, or a
    change to the graph. Rows are identified by their tokens, so examples with equal tokens share
    their losses. Rows that are not one example's tokens (packed or padding-free) are skipped: then
    there are no losses.
    Each of several `ranks` sees the rows that it trains on. `Recorder` sets `step`, the optimiser's
    step.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.step = 0
        self.ranks = ranks
        self.noisy_forwards = False
        self._ids: dict[bytes, list[str]] = {}
        self._waiting: list[_Batch] = []
        self._seen: list[_Pass] = []

    def watch(self, trainer: SFTTrainer) -> None:
        """Collect from this trainer from now on."""
        rows = trainer.train_dataset
        if ID_COLUMN not in rows.column_names or trainer.args.torch_compile:
            return  # packed rows have no ids, and a compiled forward must stay as it is
        self.noisy_forwards = _adds_noise(trainer)
        self._ids = {}
        # As arrays: lists of long rows would take many times as long to make.
        for batch in rows.with_format("numpy", columns=[ID_COLUMN, "input_ids"]).iter(1000):
            for id_, tokens in zip(batch[ID_COLUMN], batch["input_ids"], strict=True):
                self._ids.setdefault(_key(tokens), []).append(str(id_))
        trainer.model.register_forward_hook(self._collect, with_kwargs=True)

    def forget_from(self, step: int) -> None:
        """Forget losses from step `step` on: the next attempt trains these steps again."""
        self._copy()
        self._seen = [seen for seen in self._seen if seen.step < step]

    def passes(self) -> tuple[tuple[int, str, float, int, int], ...]:
        """What all ranks collected so far, in the order of steps, as plain values."""
        self._copy()
        own = [
            (seen.step, seen.key.hex(), seen.loss, seen.tokens, seen.correct) for seen in self._seen
        ]
        found = [seen for part in self.ranks.each(own) for seen in part]
        return tuple(sorted(found, key=lambda seen: seen[0]))

    def restore(self, passes: Iterable[tuple[int, str, float, int, int]]) -> None:
        """Go on from what `passes` has given: the first rank for all of them."""
        self._seen = _read(passes) if self.ranks.is_first else []

    def courses(self, examples: Iterable[Example]) -> tuple[TrainedExample, ...]:
        """The losses of each example that was trained on, in the order of steps."""
        passes: dict[str, list[_Pass]] = {}
        for seen in _read(self.passes()):
            for id_ in self._ids[seen.key]:
                passes.setdefault(id_, []).append(seen)
        return tuple(_course(e.id, passes[e.id]) for e in examples if e.id in passes)

    def _collect(
        self, module: torch.nn.Module, _: Any, inputs: Mapping[str, Any], output: Any
    ) -> None:
        log_probs = getattr(output, "log_probs", None)
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if not module.training or log_probs is None or ids is None:
            return
        if mask is None or mask.shape != ids.shape:
            return  # padding-free: all rows in one
        labelled, tokens = output.label_mask, output.label_mask.sum(1)
        losses = -log_probs.detach().float().sum(1) / tokens
        correct = (output.is_top1 & labelled.bool()).sum(1)
        figures = torch.stack([losses, tokens.float(), correct.float()], 1)
        self._waiting.append(_Batch(self.step, ids, mask, figures))
        if len(self._waiting) >= KEPT_ON_DEVICE:
            self._copy()

    def _copy(self) -> None:
        """Copy the waiting batches to the CPU, and keep the losses of known rows."""
        for batch in self._waiting:
            rows = zip(
                batch.input_ids.cpu().numpy(),
                batch.attention_mask.cpu().numpy(),
                batch.figures.tolist(),
                strict=True,
            )
            for ids, mask, (loss, tokens, correct) in rows:
                key = _key(ids[mask != 0])
                if key in self._ids:
                    self._seen.append(_Pass(batch.step, key, loss, int(tokens), int(correct)))
        self._waiting = []


def _read(passes: Iterable[tuple[int, str, float, int, int]]) -> list[_Pass]:
    return [
        _Pass(step, bytes.fromhex(key), loss, tokens, correct)
        for step, key, loss, tokens, correct in passes
    ]


def _adds_noise(trainer: SFTTrainer) -> bool:
    """Whether dropout or NEFTune raises the losses of the training forward."""
    model = trainer.model
    dropped = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    others = (getattr(model.config, "attention_dropout", 0.0), trainer.args.neftune_noise_alpha)
    return any(dropped) or any(others)


def _course(id_: str, passes: Sequence[_Pass]) -> TrainedExample:
    return TrainedExample(
        id_,
        losses=tuple(one.loss for one in passes),
        tokens=passes[0].tokens,
        steps=tuple(one.step for one in passes),
        correct=tuple(one.correct for one in passes),
    )


def _key(tokens: Any) -> bytes:
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16).digest()
