"""TORCH: project the labelled positions alone, where trl's LM head would project every position.

trl scores the labelled ones alone where it has Triton's kernels. Elsewhere it projects prompts and
padding too, and drops their figures: some accelerators would compile anew for each number of
positions. A CPU compiles nothing, and there the projection is much of a small model's work.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel

UNLABELLED = -100
"""The label of a token without a loss, as torch's cross-entropy defines it."""

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""The fields of trl's FusedCausalLMOutput with a figure per token, each None unless asked for."""


@contextlib.contextmanager
def labelled_alone(model: Any) -> Iterator[None]:
    """Have a model's fused LM head project labelled positions alone, if the model is on the CPU.

    The figures are those of before, but for rounding: a product of fewer rows adds up in another
    order. What the backbone computes, generation, and outputs without labels stay as they are.
    """
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    if causal.device.type != "cpu":
        yield
        return
    fused = causal.forward

    @functools.wraps(fused)  # `generate` checks its arguments against this signature
    def forward(*args: Any, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if labels is None or not kwargs.get("fused_lm_head"):
            return fused(*args, labels=labels, **kwargs)
        wanted = labels[:, 1:]  # (B, T - 1): what follows each position but the last
        is_labelled = wanted != UNLABELLED

        def pick(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            output.last_hidden_state = output.last_hidden_state[:, :-1][is_labelled][None]

        picking = causal.base_model.register_forward_hook(pick)
        try:  # trl takes labels that are shifted already as they come: one row of all N labelled
            out = fused(*args, shift_labels=wanted[is_labelled][None], **kwargs)  # (1, N)
        finally:
            picking.remove()
        for name in _PER_TOKEN:
            if (figures := getattr(out, name)) is not None:
                blank = figures.new_zeros(is_labelled.shape)
                setattr(out, name, blank.masked_scatter(is_labelled, figures))
        out.label_mask = is_labelled
        return out

    causal.forward = forward
    try:
        yield
    finally:
        causal.forward = fused
