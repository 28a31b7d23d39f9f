"""Logs that show too little, or that come back: what is said of them, over numbers and strides."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import fmean

import pytest

from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from tests.diagnose.trainer_state_cases import Put

STEPS = 6000


def logged(
    put: Put,
    evals: Sequence[float],
    train: Callable[[float], float],
    *,
    rows: int = 60,
    epochs: float = 3.0,
    decays: bool = True,
    planned: int = STEPS,
    noise: float = 0.02,
    seed: int = 0,
) -> set[str]:
    """The kinds of findings on a run of 6,000 steps.

    Its losses are logged in so many rows, each the mean of the steps since the last one, and it is
    evaluated at equal distances. `planned` steps more than that are a run that is not over.
    """
    draw = random.Random(seed)
    every = STEPS // rows
    losses = [train(n / STEPS) * math.exp(draw.gauss(0, noise)) for n in range(STEPS)]
    entries = [
        {
            "step": step,
            "epoch": epochs * step / STEPS,
            "loss": fmean(losses[step - every : step]),
            "learning_rate": 1e-4 * (1 - step / planned if decays else 1),
        }
        for step in range(every, STEPS + 1, every)
    ]
    for n, loss in enumerate(evals, start=1):
        step = round(STEPS * n / len(evals))
        at = {"step": step, "epoch": epochs * step / STEPS, "eval_runtime": 1.0}
        entries.append({**at, "eval_loss": loss})
    entries.sort(key=lambda entry: entry["step"])
    path = put(*entries, global_step=STEPS, max_steps=planned, epoch=epochs)
    return {found.kind for found in findings_of(read_state(path))}


def falling(to: float = 0.4) -> Callable[[float], float]:
    """A train loss that falls from 1.5, first quickly."""
    return lambda share: to + (1.5 - to) * math.exp(-6 * share)


# --- no overfitting ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("points", [6, 18, 40])
def test_a_gap_while_the_last_point_is_the_best(put: Put, points: int, scale: float) -> None:
    """However wide the gap: as long as the eval loss falls, fewer epochs would be wrong."""
    evals = [scale * (1 + 0.3 * math.exp(-5 * n / points)) for n in range(1, points + 1)]
    found = logged(put, evals, lambda share: scale * falling(0.3)(share))
    assert "overfitting" not in found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("jitter", [0.03, 0.06, 0.12])
def test_jitter(put: Put, seed: int, jitter: float) -> None:
    """A curve that came back from as large a rise before may do so again."""
    draw = random.Random(seed)
    evals = [0.22 + 0.05 * math.exp(-n / 5) for n in range(15)]
    evals = [loss * (1 + jitter * draw.choice((-1, 0, 1))) for loss in evals]
    # The last rise is one and a half times as high as the one at the third point, at most.
    evals = [*evals[:2], evals[2] * (1 + jitter), *evals[3:-2], min(evals), min(evals)]
    evals[-1] *= 1 + jitter
    assert "overfitting" not in logged(put, evals, falling(0.03), epochs=18)


@pytest.mark.parametrize("before", [[], [0.6], [0.6, 0.5], [0.9, 0.7, 0.6, 0.5]])
@pytest.mark.parametrize("rise", [0.05, 0.2, 0.6])
def test_one_bad_point(put: Put, before: list[float], rise: float) -> None:
    """One point above the lowest is too little, however high."""
    found = logged(put, [*before, 0.4, 0.4 * (1 + rise)], falling(), planned=9000)
    assert "overfitting" not in found


# --- overfitting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [6, 12, 60, 200])
@pytest.mark.parametrize("points", [4, 5, 12])
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_a_rise_that_lasts(put: Put, rows: int, points: int, scale: float) -> None:
    """It is named at any scale, from two points after the lowest on, however coarse the log."""
    evals = [scale * (1 + 0.35 * n / points) for n in range(points)]
    found = logged(put, evals, lambda share: scale * falling(0.02)(share), rows=rows, epochs=12)
    assert "overfitting" in found
    assert not found & {"converged", "underfit", "oscillation"}


def test_within_the_first_epoch(put: Put) -> None:
    """No row was seen twice, so nothing was learned by heart: the rate is too high."""
    rising = [0.4, 0.5, 0.6, 0.7]
    assert "oscillation" in logged(put, rising, falling(), epochs=0.9)
    assert "overfitting" not in logged(put, rising, falling(), epochs=0.9)
    assert "overfitting" in logged(put, rising, falling(), epochs=4)


# --- coarse logs ---------------------------------------------------------------------------------


def shapes(seed: int) -> dict[str, Callable[[float], float]]:
    """Losses that go wrong from some time on: at a jump, or slowly to over twice as much."""
    draw = random.Random(seed)
    floor, when, times = draw.uniform(0.3, 1.5), draw.uniform(0.2, 0.6), draw.uniform(2.5, 6)

    def jump(share: float) -> float:
        return times * floor if share > when else floor + math.exp(-10 * share)

    def drift(share: float) -> float:
        rise = (times - 1) * max(0.0, share - when) / (1 - when)
        return floor * (1 + rise) + math.exp(-10 * share)

    return {"jump": jump, "drift": drift}


@pytest.mark.parametrize("rows", [8, 12, 24, 60, 600])
@pytest.mark.parametrize("shape", ["jump", "drift"])
def test_divergence_at_any_stride(put: Put, shape: str, rows: int) -> None:
    """A dozen entries show it as sixty do: it is never taken for overfitting."""
    named = 0
    for seed in range(10):
        train = shapes(seed)[shape]
        evals = [train(n / 6) for n in range(1, 7)]
        found = logged(put, evals, train, rows=rows, noise=0.2, seed=seed)
        assert "overfitting" not in found
        named += bool(found & {"diverged", "oscillation"})
    assert named >= 9


@pytest.mark.parametrize("rows", [12, 24, 60])
def test_divergence_in_the_last_tenth(put: Put, rows: int) -> None:
    """The last two entries of a dozen are enough."""
    named = 0
    for seed in range(10):
        draw = random.Random(seed)
        when, times = draw.uniform(0.84, 0.9), draw.uniform(2.5, 4)

        def train(share: float, when: float = when, times: float = times) -> float:
            return 0.8 * times if share > when else 0.8 + math.exp(-10 * share)

        named += "diverged" in logged(put, [], train, rows=rows, noise=0.2, seed=seed)
    assert named == 10


@pytest.mark.parametrize("rows", [24, 60, 600])
def test_destroyed_first(put: Put, rows: int) -> None:
    """A run that first lost what it knew and relearned it, also where that took two entries."""

    def train(share: float) -> float:
        lost = 6 if 0.02 < share < 0.12 else 0
        return lost or (2.0 if share <= 0.02 else 0.8 + 5 * math.exp(-8 * (share - 0.12)))

    assert "oscillation" in logged(put, [], train, rows=rows, noise=0.2)


@pytest.mark.parametrize("rows", [12, 24, 60])
def test_both_rise_early_and_sink_a_little(put: Put, rows: int) -> None:
    """The warmup ends in a rate that is too high: both losses jump up and stay up."""

    def train(share: float) -> float:
        return 0.35 - share if share < 0.2 else 0.3 - 0.1 * share

    evals = [0.22, 0.42, 0.42, 0.41, 0.43, 0.40]
    found = logged(put, evals, train, rows=rows, epochs=1.4, planned=44_000)
    assert "oscillation" in found
    assert "overfitting" not in found


# --- converged -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.003, 0.3, 3.0])
def test_a_fall_of_a_tenth_is_no_standstill(put: Put, scale: float) -> None:
    """Also not where the losses are so small that it is a fraction of a hundredth of a nat."""
    evals = [scale * (1 - 0.04 * n) for n in range(1, 13)]
    assert "converged" not in logged(put, evals, lambda _: scale)
    assert "converged" in logged(put, [scale] * 12, lambda _: scale)


def test_a_schedule_that_is_not_over(put: Put) -> None:
    """While the rate decays the loss may fall again; at a constant one four level points count."""
    level = [1.2, 0.9, *[0.8] * 10]
    flat = falling(0.79)
    assert "converged" in logged(put, level, flat)
    assert "converged" not in logged(put, level, flat, planned=2 * STEPS)
    assert "converged" in logged(put, level, flat, planned=2 * STEPS, decays=False)
    wobbles = [1.2, 0.9, *[0.8, 0.83] * 5]
    assert "converged" not in logged(put, wobbles, flat, planned=2 * STEPS, decays=False)


def test_overfitting_and_converged_exclude_each_other(put: Put) -> None:
    """Whatever the curve: one says that it went too far, the other that it stands still."""
    for seed in range(60):
        draw = random.Random(seed)
        turn, level = draw.randrange(1, 8), draw.randrange(1, 8)
        rise = draw.uniform(1.0, 1.5)
        evals = [1 - 0.05 * n for n in range(turn)]
        evals += [evals[-1] * (1 + (rise - 1) * n / level) for n in range(1, level + 1)]
        evals += [evals[-1]] * draw.randrange(6)
        found = logged(put, evals, falling(0.02), rows=24, epochs=6, seed=seed)
        assert not {"overfitting", "converged"} <= found
        assert not {"overconfidence", "converged"} <= found
