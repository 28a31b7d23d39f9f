"""What a policy will propose: whatever the results are, or if they are what they mostly are.

So a training need not wait for the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_ftloop.adjust.function import Listed
from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.rules import Rules
from pytest_ftloop.adjust.sampler import Sampler
from pytest_ftloop.adjust.state import NOTHING, Known, canonical, figure, parent_of_next
from pytest_ftloop.core.metrics import metric_of
from pytest_ftloop.core.records import Iteration, Settings

GAIN = 0.1
"""The share of its figure that a guess expects an iteration to gain: more than noise mostly is."""


def foresee(
    policy: Policy,
    chain: Sequence[Iteration],
    first: Settings,
    metric: str,
    most: int,
    known: Known = NOTHING,
) -> tuple[Settings, ...]:
    """The settings of up to `most` iterations after the next one, which trains `first`.

    Ends where the proposal depends on a result. A user's function is not asked about iterations
    that do not exist, and the rules always depend on results.
    """
    if not isinstance(policy, Listed | Sampler):
        return ()
    figures = [value for i in chain if math.isfinite(value := figure(i, metric))]
    # Below and above all that was seen: a proposal after both is one that no result decides.
    values = (min(figures, default=0.0) - 1, max(figures, default=0.0) + 1)
    chains = [[*chain, _pretended(chain, first, metric, value)] for value in values]
    foreseen: list[Settings] = []
    while len(foreseen) < most:
        proposals = [policy.propose(pretended, metric, known) for pretended in chains]
        wanted = [p.parent.settings.adjusted(p.adjustments) for p in proposals]
        if not all(p.adjustments for p in proposals):
            break
        if canonical(wanted[0]) != canonical(wanted[1]):
            break
        foreseen.append(wanted[0])
        for pretended, value in zip(chains, values, strict=True):
            pretended.append(_pretended(pretended, wanted[0], metric, value))
    return tuple(foreseen)


def guess(
    policy: Policy,
    chain: Sequence[Iteration],
    first: Settings,
    metric: str,
    most: int,
    known: Known = NOTHING,
) -> tuple[Settings, ...]:
    """The settings of up to `most` iterations after the next one, if each is a gain without faults.

    Of the rules alone: a sampler's next point is another one after any other result.
    """
    best = parent_of_next(chain, metric)
    value = figure(best, metric)
    guessed: list[Settings] = []
    if not isinstance(policy, Rules) or not math.isfinite(value):
        return ()
    sign = -1 if metric_of(metric).better == "lower" else 1
    pretended = list(chain)
    while len(guessed) < most:
        value += sign * GAIN * abs(value)
        pretended.append(_pretended(pretended, first, metric, value, like=best))
        proposal = policy.propose(pretended, metric, known)
        if not proposal.adjustments:
            break
        first = proposal.parent.settings.adjusted(proposal.adjustments)
        guessed.append(first)
    return tuple(guessed)


def _pretended(
    chain: Sequence[Iteration],
    settings: Settings,
    metric: str,
    value: float,
    like: Iteration | None = None,
) -> Iteration:
    """An iteration with these settings and this figure, without findings; else as `like`."""
    like = like or chain[0]
    return replace(
        like,
        number=chain[-1].number + 1,
        id=f"{len(chain):08x}",
        settings=settings,
        metrics={**like.metrics, metric: value},
        findings=(),
    )
