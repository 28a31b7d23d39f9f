"""What a policy will propose next: foreseen, or guessed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_ftloop.adjust.foresee import foresee, guess
from pytest_ftloop.adjust.function import Listed
from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.sampler import Dimension, Sampler
from tests.fakes import fake_iteration, fake_metrics

RATE = "training.learning_rate"
SPACE = {RATE: Dimension(1e-4, 1e-2, log=True)}


@pytest.mark.parametrize(
    ("policy", "known", "expected"),
    [
        (Listed(({RATE: 2e-3}, {RATE: 3e-3}, {RATE: 4e-3})), 1, 2),
        (Sampler("RandomSampler", SPACE), 1, 3),
        (Sampler("TPESampler", SPACE, options={"n_startup_trials": 4}), 1, 2),
        (Sampler("TPESampler", SPACE, options={"n_startup_trials": 2}), 3, 0),
        (Rules(), 1, 0),
    ],
)
def test_foreseen(policy: Policy, known: int, expected: int) -> None:
    """What comes whatever the results are is foreseen, and is what is then proposed."""
    chain = [fake_iteration(n, training={"learning_rate": n * 1e-3}) for n in range(1, known + 1)]
    proposal = policy.propose(chain, "eval_loss")
    first = proposal.parent.settings.adjusted(proposal.adjustments)
    found = foresee(policy, chain, first, "eval_loss", 3)
    assert expected == len(found)
    for number, settings in enumerate((first, *found), start=known + 1):
        proposal = policy.propose(chain, "eval_loss")
        assert settings == proposal.parent.settings.adjusted(proposal.adjustments)
        metrics = {**chain[0].metrics, "eval_loss": 1.7 - number / 10}
        made = {"number": number, "id": f"{number:08x}", "settings": settings, "metrics": metrics}
        chain.append(replace(chain[0], **made))


@pytest.mark.parametrize("learning_rate", [2e-4, 1e-3, 4e-3])
@pytest.mark.parametrize("metric", ["eval_loss", "pass_rate"])
def test_guess_is_right_after_gains(learning_rate: float, metric: str) -> None:
    """What the rules are guessed to do is what they do if each iteration is a gain."""
    chain = [fake_iteration(1, training={"learning_rate": learning_rate})]
    loss, rate = (chain[0].metrics[name] for name in ("eval_loss", "pass_rate"))
    proposal = Rules().propose(chain, metric)
    first = proposal.parent.settings.adjusted(proposal.adjustments)
    guessed = guess(Rules(), chain, first, metric, 3)
    assert 3 == len(guessed)
    for number, settings in enumerate((first, *guessed), start=2):
        proposal = Rules().propose(chain, metric)
        assert settings == proposal.parent.settings.adjusted(proposal.adjustments)
        metrics = {"eval_loss": loss * (1 - number / 9), "pass_rate": rate * (1 + number / 9)}
        made = {"number": number, "id": f"{number:08x}", "settings": settings, "metrics": metrics}
        chain.append(replace(chain[0], **made, findings=()))


@pytest.mark.parametrize("policy", [Listed(({RATE: 2e-3},) * 3), Sampler("TPESampler", SPACE)])
def test_rules_alone_are_guessed(policy: Policy) -> None:
    """A list is foreseen, a sampler moves elsewhere after any other result: neither is guessed."""
    chain = [fake_iteration(1)]
    assert () == guess(policy, chain, chain[0].settings, "eval_loss", 3)


def test_nothing_is_guessed_without_a_figure() -> None:
    """What follows a run that gave no figure is not guessed: no gain on it can be expected."""
    chain = [fake_iteration(1, metrics={**fake_metrics(), "eval_loss": math.nan})]
    assert () == guess(Rules(), chain, chain[0].settings, "eval_loss", 3)
