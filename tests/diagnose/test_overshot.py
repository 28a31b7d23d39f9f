"""An absurd learning rate is an error, whichever shape its curve happens to have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_ftloop.diagnose import Evidence, diagnose
from tests.fakes import fake_metrics, fake_training

FLAT = [4.5, 4.0, 3.0] + [2.1] * 97
ROSE_FIRST = [4.8] * 3 + [12.0] * 8 + [3 + 0.02 * n for n in range(60, 0, -1)]


def evidence(
    losses: Sequence[float], evals: Sequence[float], rate: float, base: float = 4.8
) -> Evidence:
    training = fake_training(losses, evals)
    steps = tuple(replace(step, learning_rate=rate) for step in training.steps)
    metrics = fake_metrics(min(evals))
    return Evidence.of(replace(training, steps=steps), metrics, metrics, base)


def found(*args: object) -> list[tuple[str, str]]:
    """Kinds and severities of what curves show."""
    return [(f.kind, f.severity) for f in diagnose(evidence(*args))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("losses", "evals"),
    [
        (FLAT, (2.8, 2.3, 2.05, 2.07)),
        (ROSE_FIRST, (4.5, 4.0, 3.5, 3.1)),
        (FLAT, (2.8, 1.9, 2.6, 1.9, 2.6, 1.9, 2.5)),
    ],
    ids=["flat", "rose first", "swings"],
)
def test_a_rate_of_0_3_is_an_error(losses: list[float], evals: tuple[float, ...]) -> None:
    """One error, `diverged`; not a warning that calls it an oscillation."""
    assert [("diverged", "error")] == found(losses, evals, 0.3)
    assert ("oscillation", "warning") in found(losses, evals, 0.06)
    first = diagnose(evidence(losses, evals, 0.3))[0]
    assert first.message.startswith("A learning rate of 0.3 is far too high. ")


def test_a_run_that_learned_is_not_stopped() -> None:
    """Whatever its rate: with plain SGD one of 0.3 can be right, and a wobble is a warning."""
    wobbly = (2.8, 0.5, 0.9, 0.5, 0.9, 0.5, 0.6)
    assert ("oscillation", "warning") in found(FLAT, wobbly, 0.3)
    falling = [0.1 + 5 * math.exp(-n / 12) for n in range(100)]
    assert not [f for f in found(falling, (2.0, 0.9, 0.4, 0.3), 0.3) if f[1] == "error"]


def test_an_unknown_base_is_no_evidence() -> None:
    """Of a log without the untrained loss nobody knows how little was learned."""
    kinds = found(FLAT, (2.8, 2.3, 2.05, 2.07), 0.3, math.nan)
    assert ("diverged", "error") not in kinds
