"""The holdout: opened once for each accepted iteration, told in one line, never decided by.

Nothing that adjusts gets to see it: it is loaded after an iteration was accepted, and what the log
keeps of it are figures without any text. The diagnosis compares those with the eval set's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_ftloop.core.records import ExampleResult, HoldoutUse, Iteration, Judgement
from pytest_ftloop.core.runs import EXAMPLE_METRICS, differences, is_figure
from pytest_ftloop.gate.verdict import Change, Verdict

ALARM_Z = 2.0
"""From here on a gain that the holdout does not show is told as an alarm: with an honest gain it
happens once in 44 times."""

WORN_USES = 20
"""Openings after which a holdout is told to be worn: at 5% each, one would mislead by now."""

METRICS = ("eval_loss", "pass_rate")


@dataclass(frozen=True)
class Gain:
    """One metric's gain on the eval set beside that on the holdout; above 0 is better.

    `z` is the difference of both in its standard errors, of the examples alone: the seed moves both
    sets together.
    """

    metric: str
    on_eval: float
    on_holdout: float
    z: float

    @property
    def alarms(self) -> bool:
        """Whether the gain on the eval set can't be one on other examples."""
        return self.on_eval > 0 and self.z > ALARM_Z


@dataclass(frozen=True)
class HoldoutReport:
    """What the holdout says of an iteration.

    `metrics` are its figures there. `reference` names the accepted iteration before it, None where
    the holdout was never opened before. `uses` counts the openings of a holdout of this content,
    this one included; `judged` the judgements by the eval set so far.
    """

    iteration: str
    metrics: dict[str, float]
    reference: str | None
    gains: tuple[Gain, ...]
    uses: int
    judged: int
    alpha: float

    @property
    def alarm(self) -> bool:
        """Whether a gain does not hold."""
        return any(gain.alarms for gain in self.gains)

    @property
    def holdout_is_worn(self) -> bool:
        """Whether the holdout was opened too often to be blind."""
        return self.uses >= WORN_USES

    @property
    def eval_set_is_worn(self) -> bool:
        """Whether one of the judgements by this eval set is expected to be luck by now."""
        return self.judged * self.alpha >= 1


def report_of(
    iteration: Iteration,
    uses: Sequence[HoldoutUse],
    verdict: Verdict,
    baseline: Iteration | None,
    judgements: Sequence[Judgement],
) -> HoldoutReport | None:
    """What the openings logged so far say of an iteration; None where it was not opened for it."""
    own = next((use for use in uses if use.iteration == iteration.id), None)
    if own is None:
        return None
    before = None
    if baseline is not None:
        before = next((use for use in uses if use.iteration == baseline.id), None)
    gains = () if before is None else _gains(before, own, verdict)
    return HoldoutReport(
        iteration=iteration.name,
        metrics={name: own.metrics[name] for name in METRICS if name in own.metrics},
        reference=baseline.name if before is not None and baseline is not None else None,
        gains=gains,
        uses=sum(_is_of_the_same_set(use, own) for use in uses),
        judged=sum(judgement.by == "gate" for judgement in judgements),
        alpha=verdict.alpha,
    )


def _gains(before: HoldoutUse, after: HoldoutUse, verdict: Verdict) -> tuple[Gain, ...]:
    if not _is_of_the_same_set(before, after):
        return ()
    if dict(before.scoring) != dict(after.scoring):
        return ()
    told = (_gain(change, before, after) for change in verdict.changes if change.metric in METRICS)
    return tuple(gain for gain in told if gain is not None)


def _gain(change: Change, before: HoldoutUse, after: HoldoutUse) -> Gain | None:
    metric = EXAMPLE_METRICS[change.metric]
    old, new = _by_id(before.examples), _by_id(after.examples)
    ids = sorted(old.keys() & new.keys())
    rows = [[table[i] for i in ids] for table in (old, new)]
    if len(ids) < 2:
        return None
    values = zip(*(metric.values(side) for side in rows), strict=True)
    worse = [b - a for a, b in values]
    if not all(map(is_figure, worse)):
        return None
    told = differences(worse)
    of_eval = _example_variance(change)
    error = math.sqrt(told.variance / told.n + of_eval)
    on_eval, on_holdout = -change.test.change, -told.mean
    z = (on_eval - on_holdout) / error if error else 0.0
    return Gain(change.metric, on_eval, on_holdout, z)


def _example_variance(change: Change) -> float:
    """The part of a change's squared standard error that the examples bring."""
    test = change.test
    seeds = (1 / test.k_baseline + 1 / test.k_candidate) * test.tau**2
    return max(test.se**2 - seeds, 0.0)


def _is_of_the_same_set(one: HoldoutUse, other: HoldoutUse) -> bool:
    return bool(one.data.get("sha256") == other.data.get("sha256"))


def _by_id(rows: Sequence[ExampleResult]) -> dict[str, ExampleResult]:
    return {row.id: row for row in rows}
