"""What a policy will propose whatever the results are: trainings that need not wait for another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pytest_ftloop.adjust.function import Listed
from pytest_ftloop.adjust.policy import Policy
from pytest_ftloop.adjust.sampler import Sampler
from pytest_ftloop.adjust.state import NOTHING, Known, canonical, figure
from pytest_ftloop.core.records import Cost, Decision, Iteration, Settings


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
    that do not exist, and the rules always depend on results. Where `first` is the first of all,
    its training may show a fault, which ends the loop whatever the policy.
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


def _pretended(
    chain: Sequence[Iteration], settings: Settings, metric: str, value: float
) -> Iteration:
    """An iteration with these settings and this figure, and nothing else to decide by."""
    start = chain[0] if chain else _BLANK
    return replace(
        start,
        number=start.number + len(chain),
        id=f"{len(chain):08x}",
        settings=settings,
        metrics={**start.metrics, metric: value},
        findings=(),
    )


_BLANK = Iteration(
    loop="",
    number=1,
    id="",
    fingerprint="",
    parent=None,
    adjustments=(),
    model="",
    settings=Settings(lora={}, training={}),
    scoring={},
    data={},
    metrics={},
    final={},
    base={},
    facts={},
    steps=(),
    evals=(),
    findings=(),
    failing=(),
    decision=Decision("adjust", "", ""),
    environment={},
    cost=Cost(seconds=0.0, steps=0, tokens=0),
)
"""What a chain's first iteration is pretended from."""
