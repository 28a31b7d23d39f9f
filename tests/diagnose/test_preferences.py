"""Runs that learn from pairs, as trl's DPO, ORPO, CPO, KTO and RewardTrainer log them."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from tests.diagnose.test_memorising import staircase
from tests.diagnose.trainer_state_cases import Put, run_of

N = 60


def ramp(first: float, last: float, spread: float = 0.02) -> list[float]:
    """Figures that settle from one value at another, the same each time."""
    random = Random(round(1000 * (first + 2 * last)))
    shape = (last + (first - last) * math.exp(-6 * n / N) for n in range(N))
    return [value + random.uniform(-spread, spread) for value in shape]


def capped(first: float, last: float) -> list[float]:
    """The same of a share."""
    return [min(1.0, max(0.0, value)) for value in ramp(first, last)]


def dpo(losses: list[float], right: list[float], margin: float) -> dict[str, list[float]]:
    """What trl 1.16's DPOTrainer logs beside a loss (with the loss)."""
    return {
        "loss": losses,
        "rewards/chosen": ramp(0.0, -0.5),
        "rewards/rejected": ramp(0.0, -0.5 - margin),
        "rewards/accuracies": right,
        "rewards/margins": ramp(0.0, margin),
        "logps/chosen": ramp(-200.0, -210.0),
        "logps/rejected": ramp(-200.0, -240.0),
        "mean_token_accuracy": ramp(0.6, 0.6),
        "num_tokens": [100.0 * n for n in range(N)],
    }


def orpo(losses: list[float], right: list[float], margin: float) -> dict[str, list[float]]:
    """ORPO and CPO: a negative log-likelihood beside it."""
    return {**dpo(losses, right, margin), "nll_loss": losses, "log_odds_ratio": ramp(-0.7, -0.4)}


def kto(losses: list[float], right: list[float], margin: float) -> dict[str, list[float]]:
    """KTO: no accuracy."""
    figures = {**dpo(losses, right, margin), "kl": ramp(0.0, 0.5)}
    return {name: of for name, of in figures.items() if name != "rewards/accuracies"}


def reward_model(losses: list[float], right: list[float], margin: float) -> dict[str, list[float]]:
    """RewardTrainer."""
    figures = {"min_reward": ramp(-1.0, -3.0), "mean_reward": ramp(0.0, 0.1)}
    return {"loss": losses, "accuracy": right, "margin": ramp(0.0, margin), **figures}


def found(
    put: Put,
    figures: dict[str, list[float]],
    evals: dict[str, list[float]] | None = None,
    epochs: float = 3.0,
) -> dict[str, Any]:
    """The findings by kind."""
    beside = dict(figures)
    losses = beside.pop("loss")
    path = put(*run_of(losses, evals, epochs=epochs, **beside))
    return {of.kind: of for of in findings_of(read_state(path))}


TRAINERS = pytest.mark.parametrize("trainer", [dpo, orpo, reward_model])


@TRAINERS
def test_learned_by_heart_by_the_eval_accuracy(put: Put, trainer: Any) -> None:
    """Nearly all train pairs ranked right, and many fewer of the eval pairs."""
    prefix = "eval_accuracy" if trainer is reward_model else "eval_rewards/accuracies"
    evals = {"eval_loss": [0.62, 0.60, 0.59], prefix: [0.66, 0.69, 0.70]}
    of = found(put, trainer(ramp(0.69, 0.06), capped(0.5, 1.0), 4.0), evals)
    assert ["memorised-preferences"] == list(of)
    assert "of the eval pairs 70.0%" in of["memorised-preferences"].message


@TRAINERS
def test_learned_by_heart_by_the_eval_loss(put: Put, trainer: Any) -> None:
    """The eval loss rises while the train loss goes to 0: the best checkpoint is named."""
    evals = {"eval_loss": [0.60, 0.55, 0.58, 0.66, 0.75, 0.80]}
    of = found(put, trainer(ramp(0.69, 0.03), capped(0.5, 1.0), 6.0), evals)
    assert ["memorised-preferences"] == list(of)
    assert of["memorised-preferences"].remedy.startswith("Use checkpoint-200 (epoch 1 of 3)")


@TRAINERS
def test_learned_by_heart_before_all_is_ranked_right(put: Put, trainer: Any) -> None:
    """An eval loss that rises by far shows it, too, where the train loss has only halved."""
    evals = {"eval_loss": [0.77, 0.80, 1.2, 1.8, 2.1, 2.2]}
    of = found(put, trainer(ramp(0.69, 0.2), capped(0.5, 0.93), 4.0), evals)
    assert ["memorised-preferences"] == list(of)


@TRAINERS
def test_few_eval_pairs(put: Put, trainer: Any) -> None:
    """Of eight eval pairs six may be right by chance where nine in ten are."""
    prefix = "eval_accuracy" if trainer is reward_model else "eval_rewards/accuracies"
    evals = {"eval_loss": [0.6, 0.55, 0.5], prefix: [0.75, 0.75, 0.75]}
    evals |= {"eval_samples_per_second": [0.8] * 3}
    assert {} == found(put, trainer(ramp(0.69, 0.2), capped(0.5, 1.0), 2.0), evals)


@TRAINERS
def test_learned_by_heart_without_an_eval_set(put: Put, trainer: Any) -> None:
    """All pairs ranked right at a loss near 0 after several epochs."""
    of = found(put, trainer(ramp(0.69, 0.02, 0.005), [*capped(0.5, 1.0)[:30], *[1.0] * 30], 8.0))
    assert ["memorised-preferences"] == list(of)


@pytest.mark.parametrize("trainer", [dpo, orpo, kto, reward_model])
def test_steps_at_the_epoch_bounds(put: Put, trainer: Any) -> None:
    """A loss that falls where pairs are seen again, and only there."""
    losses = staircase([0.65, 0.42, 0.2], N // 3, noise=0.03)
    of = found(put, trainer(losses, capped(0.6, 0.9), 2.0))
    assert ["memorised-preferences"] == list(of)


@TRAINERS
def test_told_apart_at_once(put: Put, trainer: Any) -> None:
    """Within one epoch that is no learning by heart: something plain tells the pairs apart."""
    right = [*capped(0.5, 1.0)[:30], *[1.0] * 30]
    evals = {"eval_loss": [0.02], "eval_rewards/accuracies": [1.0], "eval_accuracy": [1.0]}
    of = found(put, trainer(ramp(0.69, 0.02, 0.005), right, 8.0), evals, epochs=1.0)
    assert ["trivial-preferences"] == list(of)


@pytest.mark.parametrize("trainer", [dpo, kto, reward_model])
def test_no_margin(put: Put, trainer: Any) -> None:
    """Margins that are exactly 0 throughout are a policy that never left its reference."""
    figures = trainer([math.log(2)] * N, [0.0] * N, 0.0)
    figures |= {name: [0.0] * N for name in ("rewards/margins", "margin") if name in figures}
    of = found(put, figures)
    assert ["no-signal"] == list(of)
    assert not of["no-signal"].tunable


@pytest.mark.parametrize("trainer", [dpo, orpo, kto, reward_model])
@pytest.mark.parametrize(
    ("last", "right", "evals"),
    [
        (0.55, 0.72, None),
        (
            0.45,
            0.80,
            {"eval_loss": [0.60, 0.57, 0.56], "eval_rewards/accuracies": [0.6, 0.7, 0.72]},
        ),
        (0.30, 0.92, {"eval_loss": [0.60, 0.52, 0.50, 0.50, 0.51, 0.51]}),
        (0.20, 0.95, None),
        (0.68, 0.52, None),
    ],
)
def test_healthy(
    put: Put, trainer: Any, last: float, right: float, evals: dict[str, list[float]] | None
) -> None:
    """Pairs that are learned as far as they generalise, and margins that grow: nothing is said."""
    assert {} == found(put, trainer(ramp(0.69, last), capped(0.5, right), 2.0), evals)


def test_what_is_not_judged(put: Put) -> None:
    """One line says what was checked of the pairs, and what can't be seen."""
    beside = dpo(ramp(0.69, 0.5), capped(0.5, 0.7), 1.0)
    run = read_state(put(*run_of(beside.pop("loss"), **beside)))
    assert "margins, ranking accuracy, the eval loss were checked" in run.notes[0]
