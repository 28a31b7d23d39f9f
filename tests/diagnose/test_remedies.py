"""Remedies fit the run: its rate, its kind of training, the set that is at fault, its epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.core.records import Finding
from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state
from pytest_ftloop.diagnose.broken import diverged, non_finite
from pytest_ftloop.diagnose.evidence import Evidence, Rule
from pytest_ftloop.diagnose.rates import lower_rate
from tests.diagnose import fakes_curves
from tests.diagnose.trainer_state_cases import Put, evaluated, train

evidence: Callable[..., Evidence] = fakes_curves.evidence


def of(rule: Rule, run: Evidence) -> Finding:
    """The rule's finding on the run, which it must have."""
    found = rule(run)
    assert found is not None
    return found


FELL = [3.0, 2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.8, 0.7, 0.7, 0.7, 0.6]


@pytest.mark.parametrize(
    ("rate", "of_lora", "said"),
    [
        (1e-3, True, "by a factor of 3 to 10."),
        (0.04, None, "by a factor of 3 to 10."),
        (5.0, True, "of 5: with AdamW usual ones are up to 0.0005 for LoRA (10,000 times lower)."),
        (0.3, True, "of 0.3: with AdamW usual ones are up to 0.0005 for LoRA (600 times lower)."),
        (0.05, False, "of 0.05: with AdamW usual ones are up to 5e-05 for full fine-tuning"),
        (2.0, None, "0.0005 for LoRA (4,000 times lower) and 5e-05 for full fine-tuning"),
        (math.nan, None, "by a factor of 3 to 10."),
    ],
)
def test_a_rate_is_named_where_it_is_absurd(rate: float, of_lora: bool | None, said: str) -> None:
    """Three to ten times lower is no help where it is thousands of times too high."""
    run = evidence(FELL)
    steps = tuple(replace(step, learning_rate=rate) for step in run.steps)
    assert said in lower_rate(replace(run, steps=steps, of_lora=of_lora), "3 to 10")


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.64, 11.8, 11.6, 10.4, *[10.37] * 6], "10.37, 6.3 times its lowest, 1.64"),
        ([2.5, 0.9, 0.7, 0.7, 4.1, 5.2, 5.6, 5.6], "5.60, 8.0 times its lowest, 0.70"),
    ],
)
def test_figures_of_a_short_log_stand_in_its_curve(losses: list[float], said: str) -> None:
    """The lowest loss is the one that the curve shows, no mean of its start."""
    assert said in of(diverged, evidence(losses, (), math.nan)).message


@pytest.mark.parametrize(
    ("last", "tokens"), [(10.37, "32,000"), (11.93, "150,000"), (8.3, "4,000")]
)
def test_a_model_that_only_guesses(last: float, tokens: str) -> None:
    """A loss that stays at the logarithm of a vocabulary's size is that of guessing."""
    found = of(diverged, evidence([1.6, 11.0, *[last] * 8], (), math.nan))
    assert f"as among {tokens} tokens" in found.message
    other = of(diverged, evidence([1.6, 11.0, 9.0, 7.0, 6.0, 8.0, 7.5, 6.1], (), math.nan))
    assert "guesses" not in other.message


@pytest.mark.parametrize("evals", [(math.nan,), (math.nan,) * 3, (math.inf, math.nan)])
def test_an_eval_loss_alone_that_is_not_finite(evals: tuple[float, ...]) -> None:
    """Where the training is finite the eval set is at fault, and no setting of it."""
    found = of(non_finite, evidence(FELL, evals))
    assert not found.tunable
    assert "max_length" in found.remedy
    assert "learning rate" not in found.remedy


@pytest.mark.parametrize(
    ("losses", "evals"),
    [(FELL, (1.0, math.nan)), ([*FELL, math.nan], (math.nan,)), ([], (math.nan,))],
)
def test_an_eval_loss_that_became_nan(losses: list[float], evals: tuple[float, ...]) -> None:
    """Where it was finite before, or the training is not, the weights are at fault."""
    found = of(non_finite, evidence(losses, evals))
    assert found.tunable
    assert "learning rate" in found.remedy


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], None),
        (["config.json"], False),
        (["model.safetensors"], False),
        (["checkpoint-9/config.json"], False),
        (["adapter_config.json"], True),
        (["config.json", "checkpoint-9/adapter_config.json"], True),
    ],
)
def test_lora_by_the_files_beside(put: Put, files: list[str], expected: bool | None) -> None:
    """An adapter's files show LoRA, a model's without them a full fine-tuning."""
    path = put(*[train(n, loss) for n, loss in enumerate(FELL, start=1)])
    for name in files:
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_text("{}")
    assert expected is read_state(path).of_lora


@pytest.mark.parametrize(
    ("figures", "examples"),
    [
        ({"eval_samples_per_second": 1.3, "eval_runtime": 10.0}, 13),
        ({"eval_samples_per_second": 250.0, "eval_runtime": 0.08}, 20),
        ({"eval_samples_per_second": 0, "eval_runtime": 10.0}, 0),
        ({"eval_samples_per_second": "x", "eval_runtime": 10.0}, 0),
        ({"eval_samples_per_second": 1e300, "eval_runtime": 1e300}, 0),
        ({}, 0),
    ],
)
def test_the_size_of_an_eval_set(put: Put, figures: dict[str, Any], examples: int) -> None:
    """It is the time of an evaluation times examples per second; below 20 that is said."""
    losses = [train(n, loss) for n, loss in enumerate(FELL, start=1)]
    run = read_state(put(*losses, evaluated(6, 1.0, **figures), evaluated(12, 0.8, **figures)))
    assert examples == run.evidence().eval_examples
    small = [found for found in findings_of(run) if found.kind == "small-eval-set"]
    assert bool(small) is (examples == 13)


@pytest.mark.parametrize(
    ("stated", "epochs"), [(2.98, 2.98), (None, 1.5), (0, 1.5), ("3", 1.5), (True, 1.5)]
)
def test_epochs_are_those_of_the_state(put: Put, stated: object, epochs: float) -> None:
    """The last entry of a coarse log may be half a run before its end."""
    run = read_state(put(train(500, 0.8, epoch=1.5), global_step=990, epoch=stated))
    assert epochs == run.epochs
    assert round(990 / epochs) == run.steps_per_epoch
