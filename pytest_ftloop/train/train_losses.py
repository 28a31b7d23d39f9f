"""TORCH: each train example's loss whenever it was trained on, read off training's own forward."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from trl import SFTTrainer

from pytest_ftloop.core.records import Example, TrainedExample
from pytest_ftloop.evaluate.evaluator import ID_COLUMN

KEPT_ON_DEVICE = 64
"""Micro-batches kept before they are copied to the CPU: each copy waits for the device."""


@dataclass(frozen=True)
class _Batch:
    """One micro-batch as the device has it: (B, T) tokens and their mask, (B,) mean losses."""

    step: int
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    losses: torch.Tensor


class TrainLosses:
    """Collects the losses of a run's train examples; training does not notice.

    trl's training forward gives the log-probability of every labelled token. A forward hook takes
    their mean over each row: no second forward, no random number, nothing in the gradient's graph.
    A row is known by its tokens, so examples of equal tokens share their losses. Rows that are no
    example's tokens (packed, or padding-free) are passed over: then there are no losses.
    `step` is that of the optimiser, set by who watches the run.
    """

    def __init__(self) -> None:
        self.step = 0
        self._ids: dict[bytes, list[str]] = {}
        self._waiting: list[_Batch] = []
        self._seen: list[tuple[int, bytes, float]] = []

    def watch(self, trainer: SFTTrainer) -> None:
        """Collect from this trainer from now on."""
        rows = trainer.train_dataset
        if ID_COLUMN not in rows.column_names or trainer.args.torch_compile:
            return
        self._ids = {}
        # Arrays, not lists: of long rows these take a fraction of the time.
        for batch in rows.with_format("numpy", columns=[ID_COLUMN, "input_ids"]).iter(1000):
            for id_, tokens in zip(batch[ID_COLUMN], batch["input_ids"], strict=True):
                self._ids.setdefault(_key(tokens), []).append(str(id_))
        trainer.model.register_forward_hook(self._collect, with_kwargs=True)

    def forget_from(self, step: int) -> None:
        """Forget what was trained on after `step` steps: it will be again."""
        self._copy()
        self._seen = [seen for seen in self._seen if seen[0] < step]

    def courses(self, examples: Iterable[Example]) -> tuple[TrainedExample, ...]:
        """The losses of each example that was trained on, in the order of the steps."""
        self._copy()
        losses: dict[str, list[float]] = {}
        for _, key, loss in self._seen:
            for id_ in self._ids[key]:
                losses.setdefault(id_, []).append(loss)
        return tuple(TrainedExample(e.id, tuple(losses[e.id])) for e in examples if e.id in losses)

    def _collect(
        self, module: torch.nn.Module, _: Any, inputs: Mapping[str, Any], output: Any
    ) -> None:
        log_probs = getattr(output, "log_probs", None)
        ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
        if not module.training or log_probs is None or ids is None:
            return
        if mask is None or mask.shape != ids.shape:
            return  # padding-free: all rows in one
        losses = -log_probs.detach().float().sum(1) / output.label_mask.sum(1)
        self._waiting.append(_Batch(self.step, ids, mask, losses))
        if len(self._waiting) >= KEPT_ON_DEVICE:
            self._copy()

    def _copy(self) -> None:
        """Bring what waits to the CPU, and keep what is known there."""
        for batch in self._waiting:
            rows = zip(
                batch.input_ids.cpu().numpy(),
                batch.attention_mask.cpu().numpy(),
                batch.losses.tolist(),
                strict=True,
            )
            for tokens, mask, loss in rows:
                key = _key(tokens[mask != 0])
                if key in self._ids:
                    self._seen.append((batch.step, key, loss))
        self._waiting = []


def _key(tokens: Any) -> bytes:
    return hashlib.blake2b(np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16).digest()
