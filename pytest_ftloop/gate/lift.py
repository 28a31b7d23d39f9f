"""Whether training is proven to have gained over the untrained base, by the gate's paired test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_ftloop.config.gates import ALPHA, Gate, Lift, Regression
from pytest_ftloop.core.metrics import format_figure
from pytest_ftloop.core.records import Iteration, SeedRun, Untrained
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.core.untrained import base_of, fitting
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.paired import Groups
from pytest_ftloop.gate.statistic import MOST_EXAMPLES, MOST_SEEDS, PairedTest
from pytest_ftloop.gate.student_t import quantile, survival
from pytest_ftloop.gate.thresholds import GateResult, check_gate
from pytest_ftloop.gate.verdict import Change, amount_text, change_text, p_text
from pytest_ftloop.log import FOLDER, LogView

NO_BASE = "the log has no measurement of the untrained base"
"""How the reason begins where the base is still to be measured."""


@dataclass(frozen=True)
class Gain:
    """The change of one metric from the untrained base to a candidate, tested.

    `before` and `after` are the metric's own figures; `lift` is the improvement, above 0 if better,
    in the metric's unit. Only the candidate has seed noise: the base was not trained.
    """

    change: Change

    @property
    def lift(self) -> float:
        """The improvement, whatever the metric's direction."""
        return -self.test.change

    @property
    def test(self) -> PairedTest:
        """The test; in it a change above 0 is worse."""
        return self.change.test

    def p(self, bound: float) -> float:
        """Probability of so large a gain, or a larger one, if the true one is only `bound`."""
        if self.test.se == 0:
            return 0.0 if self.lift > bound else 1.0
        return survival((self.lift - bound) / self.test.se, self.test.df)

    def lower(self, alpha: float = ALPHA) -> float:
        """The gain that is proven at this level."""
        if self.test.se == 0:
            return self.lift
        return self.lift - quantile(1 - alpha, self.test.df) * self.test.se

    def examples_to_prove(self, bound: float, alpha: float = ALPHA) -> int | None:
        """About how many examples would prove a gain of this size; None if none can."""
        test, room = self.test, self._room(bound, alpha)
        seeds = _seed_variance(test)
        sampling = test.se * test.se - seeds
        if room <= seeds or test.n < 2:
            return None
        needed = math.ceil(sampling * test.n / (room - seeds))
        return needed if test.n < needed <= MOST_EXAMPLES else None

    def seeds_to_prove(self, bound: float, alpha: float = ALPHA) -> int | None:
        """About how many seeds would prove a gain of this size; None if none can."""
        test, room = self.test, self._room(bound, alpha)
        seeds = _seed_variance(test)
        sampling = test.se * test.se - seeds
        if room <= sampling or not seeds:
            return None
        needed = math.ceil(seeds * test.k_candidate / (room - sampling))
        return needed if test.k_candidate < needed <= MOST_SEEDS else None

    def _room(self, bound: float, alpha: float) -> float:
        """The largest squared standard error at which this gain would be proven."""
        return ((self.lift - bound) / quantile(1 - alpha, self.test.df)) ** 2


def gain_of(
    candidate: Side, base: Iteration, groups: Groups, metric: str, alpha: float = ALPHA
) -> Gain | str:
    """The gain in one metric over the base, or the reason why it can't be tested."""
    rule = Regression(alpha=alpha, metrics=(metric,))
    verdict = compare(candidate, Side(base, (base,)), None, groups, rule)
    if verdict.kind == "incomplete" or not verdict.changes:
        return verdict.because
    return Gain(verdict.changes[0])


@dataclass(frozen=True)
class LiftTests:
    """Checks the gates of an iteration: thresholds by its figures, lifts by a test.

    `bases` are the log's measurements of the base, `iterations` and `seed_runs` what it knows of
    the seed noise.
    """

    bases: Sequence[Untrained]
    iterations: Sequence[Iteration]
    seed_runs: Sequence[SeedRun]

    @classmethod
    def of(cls, view: LogView) -> LiftTests:
        """The tests by what a log says."""
        return cls(view.bases(), view.iterations(), view.seed_runs())

    def check(self, gates: Iterable[Gate], candidate: Iteration) -> tuple[GateResult, ...]:
        """Check each gate, in order. A lift that can't be tested fails, and says why."""
        return tuple(
            self._lift(gate, candidate) if isinstance(gate, Lift) else check_gate(gate, candidate)
            for gate in gates
        )

    def gain(self, metric: str, candidate: Iteration) -> Gain | str:
        """The candidate's gain over the base, with all its seeds; or why it can't be tested."""
        base = base_of(self.bases, candidate)
        if base is None:
            return why_no_base(self.bases, candidate)
        runs = runs_of(candidate, self.iterations, self.seed_runs)
        groups = groups_of(self.iterations, self.seed_runs)
        return gain_of(Side(candidate, runs), base.as_iteration(), groups, metric)

    def _lift(self, gate: Lift, candidate: Iteration) -> GateResult:
        gain = self.gain(gate.metric, candidate)
        if isinstance(gain, str):
            return GateResult(gate, None, passed=False, proof=f"{gate.name} is not known: {gain}")
        passed = gain.p(gate.bound) <= ALPHA
        return GateResult(gate, gain.lift, passed, proof=lift_text(gate, gain, passed=passed))


def why_no_base(bases: Iterable[Untrained], candidate: Iteration) -> str:
    """Why there is no measurement to compare with, and what to run."""
    if fitting(bases, candidate):
        return (
            "the untrained base was measured in another environment; pytest --ftloop-retrain "
            "measures and trains both here"
        )
    return f"{NO_BASE}; run pytest --ftloop and commit {FOLDER}/"


def lift_text(gate: Lift, gain: Gain, *, passed: bool) -> str:
    """`lift +55.0 points (pass_rate 20.0% -> 75.0%), wanted >= 10 points: proven, p < 0.0001`."""
    change = gain.change
    before, after = (
        format_figure(change.metric, value) for value in (change.baseline, change.candidate)
    )
    lift = change_text(change.metric, gain.lift)
    p = gain.p(gate.bound)
    text = f"{gate.name} {lift} ({change.metric} {before} -> {after}), wanted {gate.condition}"
    if passed:
        return f"{text}: proven, p {p_text(p)}"
    if gain.lift <= gate.bound:
        return text
    lower = max(gain.lower(), 0.0)
    proven = f"only {amount_text(change.metric, lower)} is proven" if lower else "none is proven"
    ways = [
        f"{number} {unit}"
        for number, unit in (
            (gain.examples_to_prove(gate.bound), "examples"),
            (gain.seeds_to_prove(gate.bound), "seeds"),
        )
        if number is not None
    ]
    decide = f"; about {' or '.join(ways)} would prove a gain of this size" if ways else ""
    return f"{text}: {proven}, p {p_text(p)}{decide}"


def _seed_variance(test: PairedTest) -> float:
    return test.tau * test.tau / test.k_candidate
