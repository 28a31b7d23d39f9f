"""What the tests of `trainer_state` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
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


def falling(steps: int, first: float, last: float, noise: float = 0.03) -> list[float]:
    """A train loss that falls from `first` to `last`, with relative noise, the same each time."""
    random = Random(steps)
    shape = (last + (first - last) * math.exp(-5 * n / steps) for n in range(steps))
    return [loss * (1 + random.gauss(0, noise)) for loss in shape]


def run_of(
    losses: list[float],
    evals: Mapping[str, list[float]] | None = None,
    *,
    stride: int = 10,
    epochs: float = 3.0,
    rate: float = 1e-4,
    **more: list[float],
) -> list[dict[str, Any]]:
    """The entries of a run: train losses each `stride` steps, evaluations spread evenly.

    `evals` has the values of each figure at the evaluations, `more` those beside each train loss.
    """
    total = stride * len(losses)
    entries = []
    for n, loss in enumerate(losses, start=1):
        beside = {name: values[n - 1] for name, values in more.items()}
        entry = {"step": stride * n, "loss": loss, "epoch": epochs * n / len(losses)}
        entries.append({**entry, "grad_norm": 1.0, "learning_rate": rate, **beside})
    points = max(map(len, (evals or {}).values()), default=0)
    for n in range(1, points + 1):
        figures = {name: values[n - 1] for name, values in (evals or {}).items()}
        at = {"step": total * n // points, "epoch": epochs * n / points}
        entries.append({**at, "eval_runtime": 10.0, "eval_samples_per_second": 50.0, **figures})
    return entries
