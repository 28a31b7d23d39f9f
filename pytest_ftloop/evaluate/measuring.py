"""TORCH: put a model into evaluation mode for a while, and leave no trace of it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def measuring(model: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients; restore mode and all random states afterwards.

    Training must be bit-identical with and without an evaluation in between. A single random number
    drawn here would shift every later batch and dropout mask.
    """
    was_training = model.training
    routers = _routers_that_report(model)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    model.eval()
    for config in routers:
        config.output_router_logits = False
    try:
        with torch.no_grad(), torch.random.fork_rng(_rng_devices()):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for config in routers:
            config.output_router_logits = True
        model.train(was_training)


def _routers_that_report(model: torch.nn.Module) -> list[Any]:
    """The configs that make a mixture of experts return its routers' outputs.

    trl asks for them to balance the experts' load, which needs the mask of a whole row: generation,
    a token at a time, has none.
    """
    config = getattr(model, "config", None)
    if config is None:
        return []
    configs = (config, config.get_text_config())
    return [c for c in configs if getattr(c, "output_router_logits", False)]


def _rng_devices() -> list[int]:
    return list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
