"""Follow the logged decisions of a loop: which chain they give, and what to train next."""

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
from pytest_ftloop.core.records import ended_as_hopeless, is_unscored
from pytest_ftloop.core.runs import groups_of
from pytest_ftloop.gate.lift import LiftTests
from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.adjust.function import Adjust
    from pytest_ftloop.adjust.policy import Policy
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Adjustment, Decision, Iteration, Settings
    from pytest_ftloop.loop.inputs import Inputs

PENDING = "pending"
"""The kind of a decision that is still to be made: the record was written before it."""

RESUMABLE = frozenset({"iterations", "time"})
"""Kinds of stops that a larger budget lifts. Their decision holds the next adjustments too."""


@dataclass(frozen=True)
class Plan:
    """The next iteration to train: `settings` are those of `parent` with `adjustments` applied."""

    parent: Iteration | None
    adjustments: tuple[Adjustment, ...]
    settings: Settings
    fingerprint: str


@dataclass(frozen=True)
class Planner:
    """Follows the decisions in the log, and makes new ones.

    `stated_limit` is the command line's maximum length of the chain (None: use the loop file's).
    With `explores` False (a replay, or CI) only the loop file's own settings are ever planned.
    `adjust_hook` is the user's `pytest_ftloop_adjust`, if there is one. More than ten methods:
    `walk` and `decide` ask the same questions (limit, time, gates, policy), each of which is one
    method.
    """

    config: LoopConfig
    inputs: Inputs
    log: ImprovementLog
    adjust_hook: Adjust | None
    stated_limit: int | None
    explores: bool

    @cached_property
    def policy(self) -> Policy:
        """The policy that proposes the next settings, made when it is first needed."""
        return policy_of(self.config, self.adjust_hook)

    @property
    def asks_user(self) -> bool:
        """Whether the user's code decides, once there is an iteration to decide by."""
        return self.adjust_hook is not None or ":" in str(self.config.loop.policy)

    def limit(self, chain: Sequence[Iteration]) -> int:
        """The maximum length of the chain.

        Iterations that another policy made do not count against the entries of a policy list.
        """
        return self._limit_of_file(chain) if self.stated_limit is None else self.stated_limit

    def _limit_of_file(self, chain: Sequence[Iteration]) -> int:
        loop = self.config.loop
        if not chain or loop.gone_through is None:
            return loop.limit
        settings = adjust.settings_of(chain[0], loop.gone_through)
        listed = {adjust.canonical(of_entry) for of_entry in settings}
        others = [i for i in chain[1:] if adjust.canonical(i.settings) not in listed]
        return loop.limit + len(others)

    def walk(self, logged: Sequence[Iteration]) -> tuple[tuple[Iteration, ...], Plan | None]:
        """The loop's chain in the log, and the plan for what to train next (None: nothing).

        The chain starts at the loop file's own settings and follows the decisions. If one leads to
        settings that the log holds from another chain, those iterations join this chain.

        Nothing is planned after a chain that `goes_on` says is complete.
        """
        start = self.inputs.fingerprint(self.config, self.config.settings)
        logged = [i for i in logged if not is_unscored(i)]  # they are still to be scored
        # An iteration that was ended early, because a better one existed, can't start a chain.
        whole = [i for i in logged if i.fingerprint != start or not ended_as_hopeless(i)]
        chain = list(chain_from(whole, start))
        if not chain:
            return (), Plan(None, (), self.config.settings, start)
        goes_on = self.goes_on(chain)
        follow = self._decision_to_follow if goes_on else self._decision_followed
        while (decision := follow(chain, logged)) is not None:
            parent = self.parent(decision, chain)
            settings = parent.settings.adjusted(decision.next)
            fingerprint = self.inputs.fingerprint(self.config, settings)
            ids = {iteration.id for iteration in chain}
            found = [i for i in chain_from(logged, fingerprint) if i.id not in ids]
            if not found:
                if not goes_on or any(i.fingerprint == fingerprint for i in chain):
                    break  # a user's policy chose settings that the chain has tried already
                return tuple(chain), Plan(parent, decision.next, settings, fingerprint)
            chain += found
        return tuple(chain), None

    def foreseen(
        self, chain: Sequence[Iteration], plan: Plan, logged: Sequence[Iteration], most: int
    ) -> tuple[Settings, ...]:
        """The settings of up to `most` iterations after the plan's, as far as no result can matter.

        None with a time budget, which results use up. Before the chain has an iteration, these are
        guesses: the first may show a fault, which ends the loop.
        """
        if (left := self._left_after_next(chain, plan)) == 0:
            return ()
        metric = self.config.metric_of(chain)
        known = self.known(chain, logged) if chain else adjust.Known()
        return adjust.foresee(self.policy, chain, plan.settings, metric, min(most, left), known)

    def guessed(
        self, chain: Sequence[Iteration], plan: Plan, logged: Sequence[Iteration], most: int
    ) -> tuple[Settings, ...]:
        """Up to `most` settings, one of which may come after the plan's.

        None with a time budget, nor before the chain has an iteration to guess from.
        """
        if not chain or self._left_after_next(chain, plan) == 0:
            return ()
        metric, known = self.config.metric_of(chain), self.known(chain, logged)
        return adjust.guess(self.policy, chain, plan.settings, metric, most, known)

    def _left_after_next(self, chain: Sequence[Iteration], plan: Plan) -> int:
        """How many iterations may follow the plan's, where that can be said before it is made."""
        if self.config.loop.time_budget_s is not None:
            return 0
        if not self._explores_from(chain[0].parent if chain else plan.parent):
            return 0
        return max(self.limit(chain) - len(chain) - 1, 0)

    def goes_on(self, chain: Sequence[Iteration]) -> bool:
        """Whether something may be trained after this chain.

        Not in a replay or in CI. Nor if the chain starts at an adjusted iteration: its settings
        were written into the loop file (`ftloop accept`) once the loop had found them, so that loop
        is finished. A number of iterations on the command line continues it.
        """
        return self._explores_from(chain[0].parent)

    def _explores_from(self, parent: object) -> bool:
        """Whether a chain goes on whose first iteration has this parent; None if it has none."""
        is_accepted = parent is not None and self.stated_limit is None
        return self.explores and not is_accepted

    def parent(self, decision: Decision, chain: Sequence[Iteration]) -> Iteration:
        """The iteration whose settings a decision adjusts: the one it names, else the best."""
        best = adjust.parent_of_next(chain, self.config.metric_of(chain))
        return next((i for i in chain if decision.parent and i.id == decision.parent), best)

    def _decision_to_follow(
        self, chain: Sequence[Iteration], logged: Sequence[Iteration]
    ) -> Decision | None:
        """The decision to continue the chain with, or None if the chain is complete.

        Logged decisions are followed, not made again by a newer policy. A stop is reconsidered only
        if its reason is gone: the budget is larger, the gates no longer hold, the policy failed
        then, or policy or patience have changed.
        """
        decision = chain[-1].decision
        if len(chain) >= self.limit(chain):
            return None
        # The budget may have grown since the stop; otherwise it still holds.
        if decision.kind == "time" and not self._time_allows(chain):
            return None
        if decision.action == "stop" and self._is_outdated(decision, chain):
            new = self.decide(chain, logged)
            return new if new.action == "adjust" else None
        return decision if _has_next(decision) else None

    def _decision_followed(
        self, chain: Sequence[Iteration], _: Sequence[Iteration]
    ) -> Decision | None:
        """The last decision as logged, if an earlier run can have followed it; none is made."""
        decision = chain[-1].decision
        may_follow = _has_next(decision) and len(chain) < self._limit_of_file(chain)
        return decision if may_follow else None

    def _is_outdated(self, decision: Decision, chain: Sequence[Iteration]) -> bool:
        """Whether the reasons for a logged stop no longer hold. Those for a fault always do."""
        if decision.kind == "gates" and not self._gates_hold(chain):
            return True
        return decision.kind == PENDING or (
            decision.kind != "fault" and decision.rests_on != self._rests_on
        )

    @property
    def _rests_on(self) -> str:
        """The policy's hash and the patience, as the log records them; empty for the defaults."""
        loop = self.config.loop
        default = type(loop).model_validate({})
        if (loop.policy, loop.patience) == (default.policy, default.patience):
            return ""
        policy = loop.model_dump_json(include={"policy"})
        return f"policy {hashlib.sha256(policy.encode()).hexdigest()[:8]}, patience {loop.patience}"

    def decide(self, chain: Sequence[Iteration], logged: Sequence[Iteration]) -> Decision:
        """Decide what follows the last iteration of the chain: a stop, or the next adjustments."""
        limits = adjust.Limits(
            iterations=self.limit(chain),
            patience=self.config.loop.patience,
            metric=self.config.metric_of(chain),
            seconds_left=self._seconds_left(chain),
        )
        known = self.known(chain, logged)
        decision = adjust.decide(chain, self._gates_hold(chain), limits, self.policy, known)
        return replace(decision, rests_on=self._rests_on if decision.action == "stop" else "")

    def known(self, chain: Sequence[Iteration], logged: Sequence[Iteration]) -> adjust.Known:
        """Other iterations on the same model and rows, and the seed noise."""
        again = self._evaluated_before(chain[0], logged)
        others = tuple(
            i for i in logged if _same_task(i, chain[0]) and i not in chain and i.id not in again
        )
        groups = groups_of(logged, self.log.view.seed_runs())
        return adjust.Known(others, measured_noise(groups))

    def _evaluated_before(self, first: Iteration, logged: Sequence[Iteration]) -> frozenset[str]:
        """The ids of the chains that a chain which is evaluated again goes through once more.

        As evidence of which settings fail, their trainings would count twice, and lead away from
        settings whose weights are known.
        """
        if "measured_again" not in first.facts:
            return frozenset()
        settings = adjust.canonical(first.settings)
        starts = [
            i for i in logged if i.parent is None and adjust.canonical(i.settings) == settings
        ]
        return frozenset(i.id for start in starts for i in chain_from(logged, start.fingerprint))

    def _seconds_left(self, chain: Sequence[Iteration]) -> float | None:
        """Seconds left of the time budget; None without one. May be negative."""
        # By the logged costs, not by a clock, so that every machine decides the same.
        budget = self.config.loop.time_budget_s
        return None if budget is None else budget - sum(i.cost.seconds for i in chain)

    def _time_allows(self, chain: Sequence[Iteration]) -> bool:
        left = self._seconds_left(chain)
        return left is None or left >= chain[-1].cost.seconds

    def _gates_hold(self, chain: Sequence[Iteration]) -> bool:
        best = best_of(chain, self.config.metric_of(chain))
        # Without gates this is False, so that the loop continues to a plateau or to its limits.
        results = LiftTests.of(self.log.view).check(self.config.gates, best)
        return bool(results) and all(result.passed for result in results)


def _has_next(decision: Decision) -> bool:
    """Whether a decision leads to another iteration, now or with a larger budget."""
    return bool(decision.next) and (decision.action == "adjust" or decision.kind in RESUMABLE)


def _same_task(one: Iteration, other: Iteration) -> bool:
    """Whether both trained the same base model on the same rows, so that settings can compare."""
    hashes = [i.data.get("train", {}).get("sha256") for i in (one, other)]
    return one.model == other.model and hashes[0] == hashes[1]
