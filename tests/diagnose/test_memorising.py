"""A train set that is learned by heart, seen without an eval set."""

from __future__ import annotations

import math
from random import Random

import pytest

from pytest_ftloop.diagnose.any_trainer.notes import still_true
from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from tests.diagnose.trainer_state_cases import Put, falling, run_of


def staircase(
    levels: list[float], each: int, noise: float = 0.04, slope: float = 0.0
) -> list[float]:
    """Losses that are flat within an epoch, with noise, at these levels.

    `slope` is the share of a level by which the loss rises within the epoch.
    """
    random = Random(each)
    return [
        level * (1 + slope * (n / each - 0.5) + random.gauss(0, noise))
        for level in levels
        for n in range(each)
    ]


def found(put: Put, losses: list[float], **more: object) -> list[str]:
    """The kinds of the findings."""
    return [of.kind for of in findings_of(read_state(put(*run_of(losses, **more))))]


@pytest.mark.parametrize(
    ("levels", "each", "stride"),
    [
        ([1.1, 0.73, 0.43], 40, 10),
        ([1.1, 0.73, 0.43], 400, 1),
        ([1.1, 0.73, 0.43], 8, 100),
        ([1.1, 0.73, 0.43], 4, 500),
        ([2.0, 1.5], 50, 10),
        ([2.5, 1.6, 0.9, 0.4, 0.15, 0.06, 0.03, 0.02], 30, 10),
        ([0.6, 0.3, 0.1], 25, 50),
    ],
)
@pytest.mark.parametrize("slope", [0.0, 0.08])
def test_steps_at_the_epoch_bounds(
    put: Put, levels: list[float], each: int, stride: int, slope: float
) -> None:
    """Flat within each epoch, and lower from each bound on: whatever the stride of the log."""
    losses = staircase(levels, each, slope=slope)
    assert ["memorising"] == found(put, losses, stride=stride, epochs=float(len(levels)))


def test_a_last_epoch_that_was_cut_short(put: Put) -> None:
    """The epochs need not be whole, nor their bounds on a logged step."""
    losses = staircase([1.1, 0.73, 0.43], 41)[:-25]
    assert ["memorising"] == found(put, losses, epochs=2 + 16 / 41)


def test_the_note_that_it_contradicts(put: Put) -> None:
    """What was seen is not noted as impossible to see."""
    run = read_state(put(*run_of(staircase([1.1, 0.73, 0.43], 40))))
    assert [] == [note for note in still_true(run.notes, findings_of(run)) if "can't be" in note]
    healthy = read_state(put(*run_of(falling(120, 2.0, 1.0))))
    assert any("can't be seen" in note for note in still_true(healthy.notes, findings_of(healthy)))


def decay(each: int, epochs: int, noise: float) -> list[float]:
    """A loss that falls smoothly over all epochs."""
    random = Random(epochs)
    steps = each * epochs
    return [
        (0.8 + 1.5 * math.exp(-3 * n / steps)) * (1 + random.gauss(0, noise)) for n in range(steps)
    ]


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        (decay(40, 3, 0.03), 3.0),
        (decay(8, 3, 0.05), 3.0),
        (decay(400, 5, 0.2), 5.0),
        ([1.1] * 120, 3.0),
        (staircase([1.1, 1.05, 1.0], 40), 3.0),
        (staircase([1.1, 0.73, 0.43], 40), 1.0),
        (staircase([1.1, 0.73, 0.43], 40), 0.5),
        (staircase([1.1, 0.73, 0.43], 40, noise=0.4), 3.0),
        (staircase([1.1, 0.73], 40) + staircase([0.73, 0.43], 20), 3.0),
        (falling(120, 3.0, 0.02), 3.0),
    ],
)
def test_losses_that_fall_for_another_reason(put: Put, losses: list[float], epochs: float) -> None:
    """A smooth fall, small steps, steps elsewhere, one epoch, or much noise: nothing is said."""
    assert "memorising" not in found(put, losses, epochs=epochs)


def test_with_an_eval_set(put: Put) -> None:
    """Where the eval loss was measured it decides, here that nothing is wrong yet."""
    losses = staircase([1.1, 0.73, 0.43], 40)
    assert "memorising" not in found(put, losses, evals={"eval_loss": [1.0, 0.8, 0.7]})
    assert ["memorising"] == found(put, losses, evals={"eval_loss": [1.0]})
