"""Runs that learn from rewards, as trl's GRPO, RLOO and PPO log them."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from pytest_ftloop.diagnose.any_trainer.trainer_state import TrainerRun, findings_of, read_state
from tests.diagnose.trainer_state_cases import Put, run_of

N = 60


def varied(mean: float, spread: float = 0.1, end: float | None = None) -> list[float]:
    """Figures about a mean, or from it to `end`, the same each time."""
    random = Random(round(1000 * mean))
    last = mean if end is None else end
    return [mean + (last - mean) * n / N + random.uniform(-spread, spread) for n in range(N)]


def grpo(**figures: list[float]) -> list[dict[str, Any]]:
    """The entries of a healthy run of trl 1.16's GRPOTrainer (and RLOO's), but for `figures`."""
    usual = {
        "num_tokens": [1000.0 * n for n in range(N)],
        "completions/mean_length": varied(120.0, 20),
        "completions/min_length": varied(20.0, 5),
        "completions/max_length": varied(250.0, 6),
        "completions/clipped_ratio": varied(0.1, 0.1),
        "completions/mean_terminated_length": varied(110.0, 20),
        "rewards/accuracy_reward/mean": varied(0.3, 0.1, 0.6),
        "rewards/accuracy_reward/std": varied(0.4),
        "rewards/format_reward/mean": varied(0.5, 0.1, 0.95),
        "rewards/format_reward/std": varied(0.3),
        "reward": varied(0.8, 0.1, 1.5),
        "reward_std": varied(0.4),
        "frac_reward_zero_std": varied(0.2, 0.2, 0.55),
        "entropy": varied(0.5),
        "kl": varied(0.02, 0.01),
        "clip_ratio/low_mean": varied(0.002, 0.002),
        "clip_ratio/region_mean": varied(0.004, 0.004),
    }
    return run_of(varied(0.0, 0.02), **{**usual, **figures})


def found(put: Put, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The findings by kind."""
    return {of.kind: of for of in findings_of(read_state(put(*entries)))}


ZERO, ONE = [0.0] * N, [1.0] * N
SOLVED = [min(1.0, 0.2 + 0.04 * n) for n in range(N)]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"frac_reward_zero_std": ONE, "reward": ZERO, "reward_std": ZERO}, ["no-signal"]),
        ({"frac_reward_zero_std": varied(0.97, 0.03)}, ["no-signal"]),
        ({"frac_reward_zero_std": ONE, "reward": ONE, "reward_std": ZERO}, ["no-signal"]),
        ({"frac_reward_zero_std": [*[0.3] * 25, *[1.0] * 35]}, ["no-signal"]),
        (
            {"frac_reward_zero_std": [*[0.3] * 25, *[1.0] * 35], "reward": SOLVED},
            ["reward-saturated"],
        ),
        ({"frac_reward_zero_std": varied(0.6, 0.2)}, []),
        ({"completions/clipped_ratio": ONE}, ["clipped-completions"]),
        ({"completions/clipped_ratio": varied(0.95, 0.04)}, ["clipped-completions"]),
        ({"completions/clipped_ratio": varied(0.6, 0.1)}, []),
        ({"completions/clipped_ratio": [*[1.0] * 20, *[0.2] * 40]}, []),
        (
            {"rewards/format_reward/mean": ZERO, "rewards/format_reward/std": ZERO},
            ["dead-reward"],
        ),
        ({"rewards/length_penalty/mean": ZERO, "rewards/length_penalty/std": ZERO}, []),
        ({"rewards/format_reward/mean": ONE, "rewards/format_reward/std": ZERO}, []),
        ({"clip_ratio/region_mean": varied(0.8, 0.1)}, ["clipped-updates"]),
    ],
)
def test_grpo(put: Put, figures: dict[str, list[float]], expected: list[str]) -> None:
    """Rewards without spread, cut completions and a dead reward are named; healthy runs are not."""
    assert expected == list(found(put, grpo(**figures)))


def test_figures_of_the_finding(put: Put) -> None:
    """It counts the steps without any spread, and what the reward was."""
    shares = [0.75, 0.75, *[1.0] * 57, 0.75]
    of = found(put, grpo(frac_reward_zero_std=shares, reward=ZERO))["no-signal"]
    assert "in 57 of 60 logged steps" in of.message
    assert (57, 0.0) == (of.evidence["steps_without_spread"], of.evidence["reward_mean"])
    assert "error" == of.severity
    assert not of.tunable


def older(**figures: list[float] | None) -> list[dict[str, Any]]:
    """What trl logged before 0.16: no share of groups, one figure per reward function."""
    usual = {
        "reward": varied(0.8, 0.1),
        "reward_std": varied(0.4),
        "completion_length": varied(120.0, 20),
        "rewards/accuracy_reward": varied(0.3),
        "rewards/format_reward": varied(0.5),
        "clip_ratio": varied(0.01, 0.01),
        "kl": varied(0.02, 0.01),
    }
    logged = {name: of for name, of in {**usual, **figures}.items() if of is not None}
    return run_of(varied(0.0, 0.02), **logged)


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"reward_std": ZERO}, ["no-signal"]),
        ({"reward_std": None, "reward": ZERO}, ["no-signal"]),
        ({"rewards/accuracy_reward": ZERO}, ["dead-reward"]),
        ({"clip_ratio": varied(0.8, 0.1)}, ["clipped-updates"]),
    ],
)
def test_older_grpo(put: Put, figures: dict[str, list[float]], expected: list[str]) -> None:
    """The names of older versions are read, too."""
    assert expected == list(found(put, older(**figures)))


def ppo(**figures: list[float]) -> list[dict[str, Any]]:
    """What trl's PPOTrainer logs: objectives, and no loss."""
    usual = {
        "objective/kl": varied(1.0, 0.5),
        "objective/entropy": varied(30.0, 3),
        "objective/scores": varied(0.5, 0.3, 2.0),
        "objective/rlhf_reward": varied(0.4, 0.3, 1.9),
        "policy/clipfrac_avg": varied(0.05, 0.05),
        "loss/policy_avg": varied(0.0, 0.05),
        "loss/value_avg": varied(0.3, 0.1),
        "val/num_eos_tokens": [8.0] * N,
        "lr": [1e-6] * N,
    }
    entries = run_of(varied(0.0, 0.02), **{**usual, **figures})
    return [{key: of for key, of in entry.items() if key != "loss"} for entry in entries]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"val/num_eos_tokens": ZERO}, ["clipped-completions"]),
        ({"objective/scores": ZERO}, ["no-signal"]),
        ({"policy/clipfrac_avg": varied(0.7, 0.1)}, ["clipped-updates"]),
    ],
)
def test_ppo(put: Put, figures: dict[str, list[float]], expected: list[str]) -> None:
    """A log without any loss is read by its objectives."""
    run = read_state(put(*ppo(**figures)))
    assert expected == [of.kind for of in findings_of(run)]
    assert "the spread of rewards" in run.notes[0]
    assert not any("train loss is logged" in note for note in run.notes)


def test_what_is_not_judged(put: Put) -> None:
    """One line says what was checked of the rewards, and what can't be seen."""
    run: TrainerRun = read_state(put(*grpo()))
    (note, *_) = run.notes
    assert "not a language model's" in note
    assert "can't be seen" in note
    assert not any("evaluated" in other for other in run.notes)


def test_nan_is_still_an_error(put: Put) -> None:
    """A NaN loss hides the rest."""
    entries = grpo(frac_reward_zero_std=ONE)
    entries[-1]["loss"] = math.nan
    assert ["non-finite"] == list(found(put, entries))
