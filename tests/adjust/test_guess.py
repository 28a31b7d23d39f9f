"""What the rules will probably propose next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.adjust.function import Function, Listed
from pytest_ftloop.adjust.guess import guess
from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.sampler import Dimension, Sampler
from pytest_ftloop.core.records import Finding, Iteration, Settings
from tests.fakes import fake_iteration, fake_metrics

RATE = "training.learning_rate"


def after(chain: list[Iteration], metric: str) -> Settings:
    """What the rules propose after this chain."""
    proposal = Rules().propose(chain, metric)
    return proposal.parent.settings.adjusted(proposal.adjustments)


FALLS = (Finding("underfit", "warning", "the loss still falls", {}, ""),)


@pytest.mark.parametrize("learning_rate", [2e-4, 1e-3, 4e-3])
@pytest.mark.parametrize("metric", ["eval_loss", "pass_rate"])
@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"eval_loss": 0.6, "pass_rate": 1.4}, {}),
        ({"eval_loss": 0.6, "pass_rate": 1.4}, {"findings": FALLS}),
        ({"eval_loss": 1.3, "pass_rate": 0.5}, {}),
    ],
)
def test_usual_outcomes_are_among_the_guesses(
    learning_rate: float, metric: str, change: Mapping[str, float], made: Mapping[str, Any]
) -> None:
    """Whether a training gains or not, and still falls or not, what follows was guessed."""
    chain = [fake_iteration(1, training={"learning_rate": learning_rate, "num_train_epochs": 2})]
    first = after(chain, metric)
    guessed = guess(Rules(), chain, first, metric, 4)
    assert len(guessed) == len(set(map(repr, guessed))) <= 4
    metrics = {name: value * chain[0].metrics[name] for name, value in change.items()}
    longer = first.get("training.num_train_epochs") > 2
    gap = {"overfit_gap": 0.5, "train_loss": 0.2} if longer else {}
    second = replace(
        chain[0],
        number=2,
        id="2" * 8,
        settings=first,
        metrics={**chain[0].metrics, **metrics, **gap},
        findings=made.get("findings", ()),
    )
    assert after([*chain, second], metric) in guessed


@pytest.mark.parametrize("most", [-1, 0, 1, 2, 9])
def test_no_more_are_guessed_than_wanted(most: int) -> None:
    """As many guesses are made as there are idle workers, at most."""
    chain = [fake_iteration(1)]
    guessed = guess(Rules(), chain, after(chain, "eval_loss"), "eval_loss", most)
    assert len(guessed) <= max(most, 0)
    assert bool(guessed) == (most > 0)


@pytest.mark.parametrize(
    "policy",
    [
        Listed(({RATE: 2e-3},) * 3),
        Sampler("TPESampler", {RATE: Dimension(1e-4, 1e-2, log=True)}),
        Function("mine", lambda *_: pytest.fail("it is not asked"), otherwise=Rules()),
    ],
)
def test_rules_alone_are_guessed(policy: Policy) -> None:
    """A list is foreseen, a sampler moves elsewhere after any other result: neither is guessed.

    Nor is a user's function asked about what does not exist.
    """
    chain = [fake_iteration(1)]
    assert () == guess(policy, chain, chain[0].settings, "eval_loss", 3)


def test_nothing_is_guessed_without_a_figure() -> None:
    """What follows a run that gave no figure is not guessed: no gain on it can be expected."""
    chain = [fake_iteration(1, metrics={**fake_metrics(), "eval_loss": math.nan})]
    assert () == guess(Rules(), chain, chain[0].settings, "eval_loss", 3)


def test_iteration_without_points_can_be_guessed_after() -> None:
    """A record of another tool may hold no curve."""
    chain = [fake_iteration(1, evals=())]
    assert guess(Rules(), chain, after(chain, "eval_loss"), "eval_loss", 3)
