"""The holdout: opened once per accepted iteration, reported in one line, used for no decision.

No adjustment sees it: it is loaded after an iteration was accepted, and the log keeps its figures
without any text. The diagnosis compares those with the eval set's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_ftloop.core.metrics import is_score, own_metrics, split_name
from pytest_ftloop.core.records import ExampleResult, HoldoutUse, Iteration, Judgement
from pytest_ftloop.core.runs import differences, example_metric, is_figure, named_alike
from pytest_ftloop.gate.verdict import Change, Verdict

ALARM_Z = 2.0
"""Standard errors by which the gain on the eval set must exceed that on the holdout to raise the
alarm. A gain that is real on both does so once in 44 times."""

WORN_USES = 20
"""Openings after which a holdout is reported as worn: if each misleads with a chance of 5%, one is
expected to have done so."""

HOLDOUT_METRICS = ("eval_loss", "pass_rate")
"""Metrics that are reported of a holdout, besides the loop's own."""


@dataclass(frozen=True)
class Gain:
    """One metric's gain on the eval set and on the holdout. Above 0 is better.

    `z` is the difference of the two, in standard errors. Those are of the examples alone, because
    the training seed moves both sets together.
    """

    metric: str
    on_eval: float
    on_holdout: float
    z: float

    @property
    def alarms(self) -> bool:
        """Whether the eval set gained so much more that the gain is not one on other examples."""
        return self.on_eval > 0 and self.z > ALARM_Z


@dataclass(frozen=True)
class HoldoutReport:
    """An iteration's figures on the holdout, and whether its gain appears there too.

    `reference` names the accepted iteration that it is compared with; None if the holdout was not
    opened for that one. `uses` counts the openings of a holdout with this content, this one
    included; `judged` counts the judgements that used the eval set.
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
        """Whether a gain on the eval set does not appear on the holdout."""
        return any(gain.alarms for gain in self.gains)

    @property
    def holdout_is_worn(self) -> bool:
        """Whether the holdout was opened too often to be unbiased."""
        return self.uses >= WORN_USES

    @property
    def eval_set_is_worn(self) -> bool:
        """Whether one of the judgements that used this eval set is expected to be wrong by now."""
        return self.judged * self.alpha >= 1


def report_of(
    iteration: Iteration,
    uses: Sequence[HoldoutUse],
    verdict: Verdict,
    baseline: Iteration | None,
    judgements: Sequence[Judgement],
) -> HoldoutReport | None:
    """The report on an iteration, from the openings logged; None if there is none for it."""
    own = next((use for use in uses if use.iteration == iteration.id), None)
    if own is None:
        return None
    before = None
    if baseline is not None:
        before = next((use for use in uses if use.iteration == baseline.id), None)
    gains = () if before is None else _gains(before, own, verdict)
    names = (*HOLDOUT_METRICS, *own_metrics([own.metrics]))
    return HoldoutReport(
        iteration=iteration.name,
        metrics={name: own.metrics[name] for name in names if name in own.metrics},
        reference=baseline.name if before is not None and baseline is not None else None,
        gains=gains,
        uses=sum(_is_of_the_same_set(use, own) for use in uses),
        # Only the gate chooses by the eval set's figures: an acceptance by hand does not wear it.
        judged=sum(judgement.by == "gate" for judgement in judgements),
        alpha=verdict.alpha,
    )


def _gains(before: HoldoutUse, after: HoldoutUse, verdict: Verdict) -> tuple[Gain, ...]:
    if not _is_of_the_same_set(before, after):
        return ()
    if dict(before.scoring) != dict(after.scoring):
        return ()
    changes = [change for change in verdict.changes if _is_on_both(change.metric)]
    gains = (_gain(change, before, after) for change in changes)
    return tuple(gain for gain in gains if gain is not None)


def _is_on_both(name: str) -> bool:
    """Whether a metric is compared between eval set and holdout: of all examples, not of a tag.

    pass@k is not, as the holdout's log keeps only the share of the sampled outputs that pass.
    """
    base, tag = split_name(name)
    return tag is None and (base in HOLDOUT_METRICS or is_score(base))


def _gain(change: Change, before: HoldoutUse, after: HoldoutUse) -> Gain | None:
    metric = example_metric(change.metric)
    assert metric is not None  # each of them is a mean over examples
    old = _by_id(named_alike(before.examples, after.examples))
    new = _by_id(after.examples)
    ids = sorted(old.keys() & new.keys())
    rows = [[table[i] for i in ids] for table in (old, new)]
    if len(ids) < 2:
        return None
    values = zip(*(metric.values(side) for side in rows), strict=True)
    worse = [b - a for a, b in values]
    if not all(map(is_figure, worse)):
        return None
    found = differences(worse)
    of_eval = _example_variance(change)
    error = math.sqrt(found.variance / found.n + of_eval)
    # Both are changes with higher = worse; a gain is their negative.
    on_eval, on_holdout = -change.test.change, -found.mean
    z = (on_eval - on_holdout) / error if error else 0.0
    return Gain(change.metric, on_eval, on_holdout, z)


def _example_variance(change: Change) -> float:
    """The part of a change's squared standard error that is due to the examples."""
    test = change.test
    seeds = (1 / test.k_baseline + 1 / test.k_candidate) * test.tau**2
    return max(test.se**2 - seeds, 0.0)


def _is_of_the_same_set(one: HoldoutUse, other: HoldoutUse) -> bool:
    if one.data.get("sha256") == other.data.get("sha256"):
        return True
    # Renamed ids change the hash, but they are not other examples.
    rows = [sorted(row.content for row in use.examples) for use in (one, other)]
    return rows[0] == rows[1]


def _by_id(rows: Sequence[ExampleResult]) -> dict[str, ExampleResult]:
    return {row.id: row for row in rows}
