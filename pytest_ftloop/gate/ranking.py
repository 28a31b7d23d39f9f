"""Which of several loops is the best on one eval set, and how far ahead beyond noise.

The leader is compared with each other loop by the gate's paired test. It was chosen by the same
examples, so its lead is corrected for all pairs of loops, in both directions: that no loop leads
by chance alone holds at `alpha`, however many there are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_ftloop.config.gates import ALPHA, Regression
from pytest_ftloop.core.metrics import figure_of, metric_of
from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import Cost, Iteration, SeedRun, measured_content
from pytest_ftloop.core.runs import (
    Measured,
    decisive,
    example_metric,
    groups_of,
    in_environment,
    is_figure,
    mean_of,
    runs_of,
)
from pytest_ftloop.core.untrained import shown_base
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.metric_tests import ANSWERS_CHANGED, SCORING_CHANGED, TOKENS_CHANGED
from pytest_ftloop.gate.paired import Groups
from pytest_ftloop.gate.statistic import CALIBRATED_DF
from pytest_ftloop.gate.verdict import Change
from pytest_ftloop.log import LogView

EvalSet = frozenset[tuple[str, int]]
"""What the model sees of the examples, and how often each occurs."""

Place = Literal["leads", "behind", "tied", "not compared"]

BY_DEFAULT = ("pass_rate", "eval_loss")
"""What loops are ranked by where they are not all chosen by one metric. Losses of models with
different tokenizers are means over different tokens, so the pass rate comes first."""

_OF_LOOPS = {
    SCORING_CHANGED: "scored in another way",
    ANSWERS_CHANGED: "the expected answers differ",
    TOKENS_CHANGED: "the tokenizers split the texts in different ways",
}
"""The gate's reasons are about a change; two loops only differ."""


@dataclass(frozen=True)
class Entry:
    """A loop with its best iteration, and what its log knows of the seed noise and the base.

    `metric` is what the best one was chosen by; `base` is the untrained base as iteration 0.
    """

    loop: str
    best: Iteration
    iterations: tuple[Iteration, ...]
    seed_runs: tuple[SeedRun, ...] = ()
    base: Iteration | None = None
    metric: str = "eval_loss"

    @classmethod
    def of(cls, view: LogView, best: Iteration, metric: str) -> Entry:
        """A loop's entry, from what its log says."""
        return cls(
            loop=best.loop,
            best=best,
            iterations=view.iterations(),
            seed_runs=view.seed_runs(),
            base=shown_base(view.bases(), best),
            metric=metric,
        )

    @property
    def cost(self) -> Cost:
        """What all trainings in the log cost: iterations and seed runs."""
        runs: list[Measured] = [*self.iterations, *self.seed_runs]
        costs = [run.cost for run in runs]
        return Cost(
            seconds=math.fsum(cost.seconds for cost in costs),
            steps=sum(cost.steps for cost in costs),
            tokens=sum(cost.tokens for cost in costs),
            device_memory_mib=max((cost.device_memory_mib for cost in costs), default=0.0),
        )

    def figure(self, metric: str) -> float:
        """A figure of the best iteration, as the mean over its seeds; NaN where one lacks it."""
        return mean_of([figure_of(run.metrics, metric) for run in self.side.runs])

    @property
    def seeds(self) -> int:
        """By how many trainings the best iteration is measured."""
        return len(self.side.runs)

    @property
    def side(self) -> Side:
        """The best iteration with its runs in its own environment."""
        runs = runs_of(self.best, self.iterations, self.seed_runs)
        return Side(self.best, in_environment(runs, self.best.environment))

    @property
    def groups(self) -> Groups:
        """The runs that differ only in their seed."""
        return groups_of(self.iterations, self.seed_runs)


@dataclass(frozen=True)
class Standing:
    """One loop in a ranking, and how it compares with the leader.

    `change` goes from the leader to this loop; `p`, and what its test would detect, are corrected.
    Of a tie nothing is proven. `why` is the reason why it is not compared.
    """

    entry: Entry
    place: Place
    change: Change | None = None
    p: float = math.nan
    why: str = ""


@dataclass(frozen=True)
class Ranking:
    """The loops of one eval set and environment, the best by `metric` first.

    `calibrated` is whether the seed noise of all that are compared was measured.
    """

    metric: str
    standings: tuple[Standing, ...]
    eval_set: EvalSet
    alpha: float = ALPHA
    calibrated: bool = True

    @property
    def leader(self) -> Entry:
        """The loop with the best figure."""
        return self.standings[0].entry

    @property
    def examples(self) -> int:
        """How many examples the eval set has."""
        return len(self.leader.best.examples)


def rank(entries: Iterable[Entry], alpha: float = ALPHA) -> tuple[Ranking, ...]:
    """A ranking per eval set and environment, in the order of the first loop of each.

    Figures of two environments are not compared, as by the gate: hardware and versions shift them.
    """
    alike: dict[tuple[EvalSet, tuple[str, ...]], list[Entry]] = {}
    for entry in entries:
        contents = Counter(measured_content(row.content) for row in entry.best.examples)
        key = frozenset(contents.items()), decisive(entry.best.environment)
        alike.setdefault(key, []).append(entry)
    return tuple(_ranking(found, eval_set, alpha) for (eval_set, _), found in alike.items())


def _ranking(entries: Sequence[Entry], eval_set: EvalSet, alpha: float) -> Ranking:
    metric = _metric_for(entries)
    better = -1 if metric_of(metric).better == "higher" else 1

    def key(entry: Entry) -> tuple[bool, float]:
        figure = entry.figure(metric)
        return not is_figure(figure), better * figure if is_figure(figure) else 0.0

    first, *others = sorted(entries, key=key)
    found = [_compared(first, other, metric) for other in others]
    compared = sum(isinstance(change, Change) for change in found) + 1
    pairs = compared * (compared - 1)  # in both directions
    standings = [Standing(first, "leads")]
    for other, change in zip(others, found, strict=True):
        if isinstance(change, str):
            standings.append(Standing(other, "not compared", why=change))
            continue
        test = replace(change.test, alpha=alpha / pairs)
        p = min(1.0, pairs * test.p_worse)
        place: Place = "behind" if p <= alpha else "tied"
        standings.append(Standing(other, place, replace(change, test=test), p))
    calibrated = all(s.change.test.nu >= CALIBRATED_DF for s in standings if s.change)
    return Ranking(metric, tuple(standings), eval_set, alpha, calibrated)


def _metric_for(entries: Sequence[Entry]) -> str:
    """The metric that all loops were chosen by; else the first that all can be compared by."""
    chosen = {entry.metric for entry in entries}
    wanted = [*chosen] if len(chosen) == 1 else []
    known = [name for name in (*wanted, *BY_DEFAULT) if example_metric(name)]
    first, *others = entries

    def compares_all(name: str) -> bool:
        return all(isinstance(_compared(first, other, name), Change) for other in others)

    return next(filter(compares_all, known), known[0])


def _compared(leader: Entry, other: Entry, metric: str) -> Change | str:
    """The change from one loop to another, uncorrected; or why they can't be compared."""
    rule = Regression(alpha=ALPHA, metrics=(metric,))
    verdict = compare(other.side, leader.side, None, _noise_of(leader, other), rule)
    if verdict.kind == "incomplete" or not verdict.changes:
        because = verdict.because.removeprefix(f"{metric} is not compared: ")
        return _of_loops(because, leader.loop)
    return verdict.changes[0]


def _noise_of(leader: Entry, other: Entry) -> Groups:
    """The runs that show the seed noise of both; none if one of the logs has none.

    The noise of one model says nothing of another's: then it is assumed, as for any log without
    seed runs.
    """
    sides = [entry.groups for entry in (leader, other)]
    return [*sides[0], *sides[1]] if all(measured_noise(groups) for groups in sides) else ()


def _of_loops(because: str, leader: str) -> str:
    for said, text in _OF_LOOPS.items():
        because = because.replace(said, text)
    return because.replace("the baseline", leader)
