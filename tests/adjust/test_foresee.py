"""What a policy will propose whatever the results are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_ftloop.adjust.foresee import foresee
from pytest_ftloop.adjust.function import Listed
from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.sampler import Dimension, Sampler
from tests.fakes import fake_iteration

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
