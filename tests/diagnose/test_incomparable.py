"""Figures of a log that do not measure the same: a sum beside a mean, other tokens."""

from __future__ import annotations

import math

import pytest

from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from tests.diagnose.trainer_state_cases import Put, falling, run_of

TRAIN = falling(60, 2.4, 1.0)


def found(put: Put, losses: list[float], evals: dict[str, list[float]]) -> list[str]:
    """The messages of `incomparable-losses`."""
    findings = findings_of(read_state(put(*run_of(losses, evals))))
    return [of.message for of in findings if of.kind == "incomparable-losses"]


def beside(losses: list[float], points: int, share: float = 1.0) -> list[float]:
    """Eval losses at so many points, as the train loss is there."""
    each = len(losses) // points
    return [share * sum(losses[each * n : each * (n + 1)]) / each for n in range(points)]


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("points", [6, 12])
@pytest.mark.parametrize("share", [0.96, 1.0, 1.05])
def test_a_sum_over_accumulation_steps(put: Put, factor: int, points: int, share: float) -> None:
    """A train loss that is 2, 4, 8, ... times the eval loss throughout is said to be a sum."""
    evals = beside(TRAIN, points, share)
    (message,) = found(put, [factor * loss for loss in TRAIN], {"eval_loss": evals})
    assert message.startswith(f"The train loss is about {factor} times the eval loss")
    assert "a sum over gradient accumulation steps" in message


@pytest.mark.parametrize(("factor", "share"), [(10, 1.0), (12, 1.0), (16, 0.7), (16, 1.4)])
def test_an_odd_factor(put: Put, factor: int, share: float) -> None:
    """Another number of steps, or an eval set that is harder or easier, is a sum all the same."""
    losses = [factor * share * loss for loss in TRAIN]
    (message,) = found(put, losses, {"eval_loss": beside(TRAIN, 6)})
    assert message.startswith(f"The train loss is about {round(factor * share)} times")


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_divided_twice(put: Put, factor: int) -> None:
    """A train loss that is a fraction of the eval loss from the first evaluation on."""
    losses = [loss / factor for loss in TRAIN]
    (message,) = found(put, losses, {"eval_loss": beside(TRAIN, 6)})
    assert message.startswith(f"The eval loss is about {factor} times the train loss")


@pytest.mark.parametrize(
    ("losses", "evals"),
    [
        (TRAIN, beside(TRAIN, 6)),
        (TRAIN, beside(TRAIN, 6, 1.6)),
        ([*([1.7] * 30), *([1.3] * 30)], [1.5, 1.2, 0.9, 0.8, 0.7, 0.65]),  # wrong labels
        ([2.2] * 60, [1.9, 1.4, 1.0, 0.8, 0.6, 0.55]),  # mixup: a factor of 4 at the end only
        ([3 * loss for loss in TRAIN], beside(TRAIN, 6)),
        (falling(60, 2.4, 0.05), [0.8, 0.62, 0.6, 0.6, 0.6, 0.6]),  # known by heart
        ([0.05] * 60, [0.6, 0.6, 0.61, 0.6, 0.6, 0.6]),
        ([16 * loss for loss in TRAIN], beside(TRAIN, 2)),
    ],
)
def test_losses_that_differ_for_another_reason(
    put: Put, losses: list[float], evals: list[float]
) -> None:
    """Harder rows, wrong labels and augmentation are no sums."""
    assert [] == found(put, losses, {"eval_loss": evals})


@pytest.mark.parametrize("name", ["eval_mean_token_accuracy", "eval_accuracy"])
def test_a_loss_below_what_its_accuracy_allows(put: Put, name: str) -> None:
    """Of 20% wrong answers each costs ln 2 or more: a loss of 0.05 is of other tokens."""
    evals = {"eval_loss": [0.07, 0.06, 0.05], name: [0.75, 0.78, 0.8]}
    (message,) = found(put, falling(60, 0.5, 0.05), evals)
    assert f"at least {0.2 * math.log(2):.3g}" in message


@pytest.mark.parametrize(("accuracy", "expected"), [(0.6, 1), (0.97, 0)])
def test_a_train_loss_below_what_its_accuracy_allows(
    put: Put, accuracy: float, expected: int
) -> None:
    """The accuracy that trl logs beside its train losses is compared, too."""
    path = put(*run_of(falling(60, 0.5, 0.05), mean_token_accuracy=[accuracy] * 60))
    findings = findings_of(read_state(path))
    messages = [of.message for of in findings if of.kind == "incomparable-losses"]
    assert expected == len(messages)
    assert all("the train loss is 0.0" in message for message in messages)


@pytest.mark.parametrize(
    "evals",
    [
        {"eval_loss": [0.5, 0.4, 0.35], "eval_accuracy": [0.75, 0.8, 0.85]},
        {"eval_loss": [0.15, 0.14, 0.14], "eval_mean_token_accuracy": [0.8, 0.8, 0.8]},
        {"eval_loss": [0.0, 0.0, 0.0], "eval_accuracy": [0.99, 0.99, 0.99]},
        {"eval_loss": [0.07, 0.06, 0.05], "eval_accuracy": [0.7, 0.7, 0.7], "eval_f1": [0.8] * 3},
    ],
)
def test_a_loss_that_fits_its_accuracy(put: Put, evals: dict[str, list[float]]) -> None:
    """Nothing is said; nor of the accuracy of sets of labels, which F1 beside it shows."""
    assert [] == found(put, falling(60, 0.5, 0.05), evals)
