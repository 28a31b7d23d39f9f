"""The tests of one comparison: how each metric changed, and whether that is proven.

`compare` chooses the runs and examples, and makes one verdict of the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.metrics import depends_on_scoring, is_score, split_name
from pytest_ftloop.core.noise import Prior, SeedNoise, noise_of, pool
from pytest_ftloop.core.runs import (
    RUN_METRICS,
    Differences,
    ExampleMetric,
    differences,
    distinct,
    example_metric,
    has_figure,
    is_untrained,
    mean_of,
)
from pytest_ftloop.core.sampled import has_score
from pytest_ftloop.core.set_metrics import SetMetric, unit_of
from pytest_ftloop.gate.bootstrap import change_variance, resampled_figure, seed_from
from pytest_ftloop.gate.paired import PairedRuns, seed_means
from pytest_ftloop.gate.statistic import (
    CALIBRATED_DF,
    PairedTest,
    corrected,
    examples_to_decide,
    paired_test,
    prior_for,
    run_level_test,
    seeds_to_decide,
)
from pytest_ftloop.gate.verdict import Change, MetricKind

TAG_ALPHA = 0.05
"""Level of the tests per tag, over all tags together (Holm). The usual 5% is enough, as these tests
only report: a tag fails a gate only if the gate names it, and then at the gate's own alpha."""

NO_NOISE = Prior(0.0, 1.0)
"""The seed noise between two evaluations of one training."""

SetMetrics = Mapping[str, SetMetric]
"""The metrics of the whole set, by the user's name."""

SCORING_CHANGED = "scoring changed"
TOKENS_CHANGED = "the tokens of the examples changed"
WHOLE_SET_CHANGED = "it is a figure of the whole eval set, which changed"
ANSWERS_CHANGED = "the answers, or the columns that the scorer reads, changed in every example"
MEASURED_ANEW = frozenset({SCORING_CHANGED, TOKENS_CHANGED, WHOLE_SET_CHANGED, ANSWERS_CHANGED})
"""Why a metric is not compared where candidate and baseline were measured in different ways."""


@dataclass(frozen=True)
class MetricTests:
    """The tests of one comparison. `eval_changed`: the model sees another eval set on each side.

    `one_training`: both sides are evaluations of the same trainings, so that no seed noise is
    between them, and equal results are equal for certain.
    """

    paired: PairedRuns
    rule: Regression
    eval_changed: bool
    set_metrics: SetMetrics = field(default_factory=dict)
    one_training: bool = False

    def comparable_metrics(self) -> tuple[list[str], list[str]]:
        """The gate's metrics that both sides measured alike, and why the others are left out."""
        metrics, notes = [], []
        for name in self.rule.metrics:
            if why := self._why_not_comparable(name):
                notes.append(f"{name} is not compared: {why}")
            else:
                metrics.append(name)
        if not self.paired.same_scoring and "pass_rate" not in self.rule.metrics:
            # A threshold on the pass rate may hold by the new scoring alone.
            notes.append("scoring changed: pass rates before and now can't be compared")
        return metrics, notes

    @property
    def is_measured_anew(self) -> bool:
        """Whether a metric is left out because the sides were measured in different ways."""
        return any(self._why_not_comparable(name) in MEASURED_ANEW for name in self.rule.metrics)

    def fewest_undecided(self, changes: Sequence[Change]) -> int | None:
        """The fewest examples of any metric that is inconclusive, or left out for its answers.

        None if there is no such metric.
        """
        open_ = [
            split_name(change.metric)[0] for change in changes if change.kind == "inconclusive"
        ]
        lost = [n for n in self.rule.metrics if self._why_not_comparable(n) == ANSWERS_CHANGED]
        return min((len(self.paired.common(name)) for name in (*open_, *lost)), default=None)

    def changes(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """The change of each deciding metric, with Holm's correction over all of them."""
        raw = [
            self._run_change(of_tag(name, self.rule.tag))
            if name in RUN_METRICS
            else self._change(name, self.paired.common(name), self.rule.tag, decides=True)
            for name in metrics
        ]
        return self._corrected(raw, self.rule.alpha)

    def tags(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """The change of each metric per tag, corrected over all of them."""
        by_tag: dict[str, list[str]] = {}
        for row in self.paired.rows(self.paired.new[0], self.paired.measured):
            for tag in set(row.tags):
                by_tag.setdefault(tag, []).append(row.id)
        common = {name: set(self.paired.common(name)) for name in metrics if example_metric(name)}
        # A single example proves nothing, and a tag that all examples have is the whole set.
        raw = [
            self._change(name, ids, tag)
            for tag, tagged in sorted(by_tag.items())
            for name, compared in common.items()
            if 1 < len(ids := [id_ for id_ in tagged if id_ in compared]) < len(compared)
            and self.paired.has_tokens(name, ids)
        ]
        return self._corrected(raw, TAG_ALPHA)

    def run_changes(self) -> tuple[Change, ...]:
        """The changes of figures of whole runs that do not decide."""
        names = [
            name
            for name in RUN_METRICS
            if name not in self.rule.metrics and not self._why_not_comparable(name)
        ]
        return self._corrected([self._run_change(name) for name in names], self.rule.alpha)

    def _why_not_comparable(self, name: str) -> str:
        paired = self.paired
        if name in self.set_metrics:
            if not paired.defined_alike(name):
                return SCORING_CHANGED
            return "" if paired.ids else ANSWERS_CHANGED
        if depends_on_scoring(name):
            if not paired.same_scoring:
                return SCORING_CHANGED
            if not paired.ids:
                return ANSWERS_CHANGED
            # Of records from before scores, an example without one would count as 0.
            rows = [row for run in paired.old for row in paired.rows(run)]
            lacks = is_score(name) and not all(has_score(row, name) for row in rows)
            return f"the baseline lacks {name}" if lacks else ""
        if not paired.same_tokens:
            return TOKENS_CHANGED
        if name not in RUN_METRICS:
            return "" if paired.has_tokens(name, paired.measured) else "the examples have no tokens"
        if name == "overfit_gap" and self.eval_changed:
            return WHOLE_SET_CHANGED
        figure = of_tag(name, self.rule.tag)
        if not all(has_figure(run, figure) for run in (*paired.old, *paired.new)):
            return f"the baseline lacks {figure}"
        # A prior can't replace measured seed noise here: a gap's is not a fixed share of the loss.
        measured = paired.run_df >= CALIBRATED_DF or self.one_training
        return "" if measured else "its seed noise is not measured yet (run ftloop calibrate)"

    def _change(
        self, name: str, ids: Sequence[str], tag: str | None, *, decides: bool = False
    ) -> Change:
        """The change of a metric of the examples, before correction."""
        if name in self.set_metrics:
            return self._set_change(name, ids, tag, decides=decides)
        metric = _per_example(name)
        old, new = (
            [metric.values(self.paired.rows(run, ids)) for run in side]
            for side in (self.paired.old, self.paired.new)
        )
        before, after = seed_means(old), seed_means(new)
        found = differences([a - b for a, b in zip(after, before, strict=True)])
        if self.one_training and before == after:
            found = replace(found, variance=0.0)
        elif metric.unit == "rate":
            # That none of n examples flipped does not prove that none can: assume at least one.
            found = replace(found, variance=max(found.variance, 1 / found.n))
        level = math.fsum(before) / len(before)
        noise, prior = SeedNoise(0.0, 0.0, 0), NO_NOISE
        if not self.one_training:
            noise = pool(self.paired.replicates(metric, ids))
            prior = prior_for(metric.unit, level, noise.df)
        seeds, untrained = (len(old), len(new)), is_untrained(self.paired.old[0])
        test = paired_test(found, *seeds, noise, prior, self.rule.alpha, untrained=untrained)
        figures = metric.figure(level), metric.figure(level + found.mean)
        change = Change(of_tag(name, tag), *figures, test, math.nan, "unchanged")
        limit = self.rule.max_regression * (abs(level) if metric.unit == "loss" else 1.0)
        if decides and test.upper > limit:
            change = replace(change, decide=_what_decides(test, found, noise, prior, limit))
        return change

    def _set_change(
        self, name: str, ids: Sequence[str], tag: str | None, *, decides: bool
    ) -> Change:
        """The change of a metric of the whole set, before correction.

        The seed noise is that of whole runs. Their figures vary with the examples' chance too,
        which the bootstrap counts already: so the test is cautious, never too sure.
        """
        metric = self.set_metrics[name]
        old, new = (
            [[metric.parts(row) for row in self.paired.rows(run, ids)] for run in side]
            for side in (self.paired.old, self.paired.new)
        )
        everything = range(len(ids))
        before, after = (
            mean_of([resampled_figure(run, metric.figure, everything) for run in side])
            for side in (old, new)
        )
        unit, n = unit_of(before), len(ids)
        contents = [row.content for row in self.paired.rows(self.paired.new[0], ids)]
        variance = change_variance(old, new, metric.figure, seed_from(contents))
        # As for a rate: that no output changed does not prove that none can.
        least = 0.0 if self.one_training and old == new else unit * unit / n
        found = Differences(n, before - after, max(n * variance, least))
        noise, prior = SeedNoise(0.0, 0.0, 0), NO_NOISE
        if not self.one_training:
            noise = noise_of(self.paired.figures(name, metric, ids))
            prior = prior_for("loss", unit, noise.df)
        test = paired_test(found, len(old), len(new), noise, prior, self.rule.alpha)
        change = Change(of_tag(name, tag), before, after, test, math.nan, "unchanged")
        limit = self.rule.max_regression * unit
        if decides and test.upper > limit:
            change = replace(change, decide=_what_decides(test, found, noise, prior, limit))
        return change

    def _run_change(self, name: str) -> Change:
        """The change of a figure of whole runs, before correction."""
        known = [g for g in self.paired.groups if all(has_figure(run, name) for run in g)]
        old, new, *finite = (
            [run.metrics.get(name, math.nan) for run in runs]
            for runs in (self.paired.old, self.paired.new, *distinct(known))
        )
        # The prior is a share of the eval loss, not of the figure: a gap may be near 0.
        df = sum(len(group) - 1 for group in finite)
        prior = prior_for("loss", self.paired.loss_level, df)
        if self.one_training:
            finite, prior = [], NO_NOISE
        test = run_level_test(old, new, finite, prior, self.rule.alpha)
        before = math.fsum(old) / len(old)
        return Change(name, before, before + test.change, test, math.nan, "unchanged")

    def _corrected(self, raw: Sequence[Change], alpha: float) -> tuple[Change, ...]:
        """The changes with corrected p-values, and judged by them."""
        # Better and worse are two families of hypotheses, each at the full alpha: a false alarm
        # and a false improvement are different mistakes.
        worse, better = corrected([change.test for change in raw])
        return tuple(
            replace(
                change,
                p=p_worse if change.test.change > 0 else p_better,
                kind=self._kind(change, p_worse, p_better, alpha),
            )
            for change, p_worse, p_better in zip(raw, worse, better, strict=True)
        )

    def _kind(self, change: Change, p_worse: float, p_better: float, alpha: float) -> MetricKind:
        least = self.rule.min_regression * self._unit(change)
        if p_worse <= alpha and change.test.change >= least:
            return "regressed"
        # Of one training a small gain is only another rounding: nothing has become better.
        if p_better <= alpha and (not self.one_training or -change.test.change >= least):
            return "improved"
        return "inconclusive" if change.decide else "unchanged"

    def _unit(self, change: Change) -> float:
        """What `min_regression` is a share of."""
        if split_name(change.metric)[0] in self.set_metrics:
            return unit_of(change.baseline)
        is_eval_loss = change.metric.startswith("eval_loss")
        level = change.baseline if is_eval_loss else self.paired.loss_level
        return abs(level) if _is_loss(change.metric) else 1.0


def _what_decides(
    test: PairedTest, found: Differences, noise: SeedNoise, prior: Prior, limit: float
) -> str:
    def answer(ask: Callable[..., int | None], unit: str) -> str | None:
        number = ask(test, found, noise, prior, limit)
        return None if number is None else f"{number} {unit}"

    answers = (answer(seeds_to_decide, "seeds per side"), answer(examples_to_decide, "examples"))
    known = [text for text in answers if text]
    if known:
        return f"{' or '.join(known)} would decide"
    if noise.df < CALIBRATED_DF and found.n > 1:
        return "run ftloop calibrate to measure the seed noise, and to learn what would decide"
    return "no number of seeds would decide"


def of_tag(name: str, tag: str | None) -> str:
    """`eval_loss[x]`; the metric's name itself without a tag."""
    return name if tag is None else f"{name}[{tag}]"


def _is_loss(metric: str) -> bool:
    name = metric.partition("[")[0]
    return name in RUN_METRICS or _per_example(name).unit == "loss"


def _per_example(name: str) -> ExampleMetric:
    metric = example_metric(name)
    assert metric is not None, name  # a loop file's gates name no other
    return metric
