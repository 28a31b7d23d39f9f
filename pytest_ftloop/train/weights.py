"""TORCH: the trained weights of a model, whole also where several ranks have a shard each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the trainable weights on the CPU: an adapter is small."""
    return {
        name: _whole(parameter.detach()).to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Restore weights that `trainable_weights` copied."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            to: Any = parameters[name]
            is_shard = isinstance(to, DTensor)
            to.copy_(
                distribute_tensor(weight, to.device_mesh, to.placements) if is_shard else weight
            )


def _whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight of which several ranks may have a shard each: then all must call it."""
    whole: torch.Tensor = weight.full_tensor() if isinstance(weight, DTensor) else weight
    return whole


def differ(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether any weight of `one` differs from the same weight of `other`."""
    return any(not torch.equal(weight, other[name]) for name, weight in one.items())
