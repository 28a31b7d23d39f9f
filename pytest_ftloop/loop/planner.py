"""What the log holds of a loop's chain already, and what is to be trained next."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pytest_ftloop import adjust
from pytest_ftloop.adjust.choose import policy_of
from pytest_ftloop.core.chain import best_of, chain_from
from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import ended_as_hopeless
from pytest_ftloop.core.runs import groups_of
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.adjust.policy import Policy
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Adjustment, Decision, Iteration, Settings
    from pytest_ftloop.loop.inputs import Inputs

PENDING = "pending"
"""The kind of decision of a record that was written before there was one."""

RESUMABLE = frozenset({"iterations", "time"})
"""Stops that a larger budget undoes: what would have come next is in the log."""


@dataclass(frozen=True)
class Plan:
    """What to train next: these settings, made from the parent's by the adjustments."""

    parent: Iteration | None
    adjustments: tuple[Adjustment, ...]
    settings: Settings
    fingerprint: str


@dataclass(frozen=True)
class Planner:
    """Follows the decisions of a log.

    `stated_limit` is how many iterations the chain may have, None for what the loop file says;
    `explores` False: no decision to go on is followed. `adjust_hook` is the user's
    `pytest_ftloop_adjust`, if there is one.
    """

    config: LoopConfig
    inputs: Inputs
    log: ImprovementLog
    adjust_hook: Adjust | None
    stated_limit: int | None
    explores: bool

    @cached_property
    def policy(self) -> Policy:
        """What says which settings come next; made when something has to be decided."""
        return policy_of(self.config, self.adjust_hook)

    def limit(self, chain: Sequence[Iteration]) -> int:
        """How many iterations the chain may have.

        A list is gone through whatever another policy tried before it.
        """
        if self.stated_limit is not None:
            return self.stated_limit
        loop = self.config.loop
        if not chain or loop.gone_through is None:
            return loop.limit
        settings = adjust.settings_of(chain[0], loop.gone_through)
        listed = {adjust.canonical(of_entry) for of_entry in settings}
        others = [i for i in chain[1:] if adjust.canonical(i.settings) not in listed]
        return loop.limit + len(others)

    def walk(self, logged: Sequence[Iteration]) -> tuple[tuple[Iteration, ...], Plan | None]:
        """The loop's chain as far as the log holds it, and what to train next (None: complete).

        Where it comes to settings that another chain has trained, it goes on along that one.
        """
        start = self.inputs.fingerprint(self.config, self.config.settings)
        # One that was ended for what the best had reached by then is no start: it has to be whole.
        whole = [i for i in logged if i.fingerprint != start or not ended_as_hopeless(i)]
        chain = list(chain_from(whole, start))
        if not chain:
            return (), Plan(None, (), self.config.settings, start)
        while (decision := self._follow(chain, logged)) is not None:
            parent = self.parent(decision, chain)
            settings = parent.settings.adjusted(decision.next)
            fingerprint = self.inputs.fingerprint(self.config, settings)
            ids = {iteration.id for iteration in chain}
            found = [i for i in chain_from(logged, fingerprint) if i.id not in ids]
            if not found:
                if any(i.fingerprint == fingerprint for i in chain):
                    break  # a user's decision led back to where the chain has been
                return tuple(chain), Plan(parent, decision.next, settings, fingerprint)
            chain += found
        return tuple(chain), None

    def parent(self, decision: Decision, chain: Sequence[Iteration]) -> Iteration:
        """The iteration that a decision's adjustments are relative to."""
        best = adjust.parent_of_next(chain, self.config.loop.metric)
        return next((i for i in chain if decision.parent and i.id == decision.parent), best)

    def _follow(self, chain: Sequence[Iteration], logged: Sequence[Iteration]) -> Decision | None:
        """The logged decision to go on, or None when the chain is complete as it stands.

        A decision is taken as logged. A stop is looked at again only where what it rested on has
        changed: a larger budget, gates that held then and do not hold now, a policy that failed,
        another policy or patience.
        """
        decision = chain[-1].decision
        if len(chain) >= self.limit(chain) or not self.explores:
            return None
        if decision.kind == "time" and not self._time_allows(chain):
            return None
        if decision.action == "stop" and self._rested_on_something_else(decision, chain):
            again = self.decide(chain, logged)
            return again if again.action == "adjust" else None
        goes_on = decision.action == "adjust" or decision.kind in RESUMABLE
        return decision if goes_on and decision.next else None

    def _rested_on_something_else(self, decision: Decision, chain: Sequence[Iteration]) -> bool:
        if decision.kind == "gates" and not self._gates_hold(chain):
            return True
        return decision.kind == PENDING or (
            decision.kind != "fault" and decision.rests_on != self._rests_on
        )

    @property
    def _rests_on(self) -> str:
        """Policy and patience in a few words; empty for the defaults."""
        loop = self.config.loop
        usual = type(loop).model_validate({})
        if (loop.policy, loop.patience) == (usual.policy, usual.patience):
            return ""
        policy = loop.model_dump_json(include={"policy"})
        return f"policy {hashlib.sha256(policy.encode()).hexdigest()[:8]}, patience {loop.patience}"

    def decide(self, chain: Sequence[Iteration], logged: Sequence[Iteration]) -> Decision:
        """What follows the last iteration of the chain."""
        limits = adjust.Limits(
            iterations=self.limit(chain),
            patience=self.config.loop.patience,
            metric=self.config.loop.metric,
            seconds_left=self._seconds_left(chain),
        )
        known = self.known(chain, logged)
        decision = adjust.decide(chain, self._gates_hold(chain), limits, self.policy, known)
        return replace(decision, rests_on=self._rests_on if decision.action == "stop" else "")

    def known(self, chain: Sequence[Iteration], logged: Sequence[Iteration]) -> adjust.Known:
        """What the log knows beside the chain."""
        others = tuple(i for i in logged if _same_task(i, chain[0]) and i not in chain)
        groups = groups_of(logged, self.log.view.seed_runs())
        return adjust.Known(others, measured_noise(groups))

    def _seconds_left(self, chain: Sequence[Iteration]) -> float | None:
        """Of the time budget, by the costs logged: the same log gives the same answer anywhere."""
        budget = self.config.loop.time_budget_s
        return None if budget is None else budget - sum(i.cost.seconds for i in chain)

    def _time_allows(self, chain: Sequence[Iteration]) -> bool:
        left = self._seconds_left(chain)
        return left is None or left >= chain[-1].cost.seconds

    def _gates_hold(self, chain: Sequence[Iteration]) -> bool:
        best = best_of(chain, self.config.loop.metric)
        # A loop without gates has nothing that could hold: it goes on to a plateau or its limits.
        results = check_gates(self.config.gates, best.metrics)
        return bool(results) and all(result.passed for result in results)


def _same_task(one: Iteration, other: Iteration) -> bool:
    """Whether what one shows of its settings holds for the other: same base model, same rows."""
    hashes = [i.data.get("train", {}).get("sha256") for i in (one, other)]
    return one.model == other.model and hashes[0] == hashes[1]
