"""What the tests of `trainer_state` share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

REAL = Path(__file__).with_name("trainer_states")


Put = Callable[..., Path]


def train(step: int, loss: Any = 2.0, **more: Any) -> dict[str, Any]:
    """What a trainer logs of its steps."""
    rest = {"grad_norm": 1.0, "learning_rate": 1e-3, "epoch": step / 50}
    return {"step": step, "loss": loss, **rest, **more}


def evaluated(step: int, loss: Any = 2.0, name: str = "", **more: Any) -> dict[str, Any]:
    """What it logs of an evaluation."""
    start = f"eval_{name}_" if name else "eval_"
    figures = {f"{start}loss": loss, f"{start}runtime": 1.0}
    return {"step": step, "epoch": step / 50, **figures, **more}


def healthy(name: str = "") -> list[dict[str, Any]]:
    """A run of 100 steps that learns, evaluated four times."""
    losses = [0.5 + 3 * math.exp(-n / 15) for n in range(100)]
    entries = [train(n, loss) for n, loss in enumerate(losses, start=1)]
    return entries + [evaluated(n, losses[n - 1] + 0.05, name) for n in (25, 50, 75, 100)]
