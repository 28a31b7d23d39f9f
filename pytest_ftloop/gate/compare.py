"""Baseline and candidate to a verdict: pure, over what the log holds.

The statistic is `statistic.paired_test`, per metric; Holm's correction over the metrics that
decide; tags beside them at 5%; the anchor at half the gate's alpha, so that a slow slide is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.noise import (
    Prior,
    Replicates,
    SeedNoise,
    measured_noise,
    pool,
    replicates,
)
from pytest_ftloop.core.records import ExampleResult, Iteration
from pytest_ftloop.core.runs import (
    EXAMPLE_METRICS,
    RUN_METRICS,
    Common,
    Differences,
    ExampleMetric,
    Measured,
    differences,
    environment_changes,
    has_figure,
    in_environment,
    is_figure,
    rows_of,
    why_incomplete,
)
from pytest_ftloop.gate.statistic import (
    CALIBRATED_DF,
    PairedTest,
    examples_to_decide,
    holm_adjusted,
    paired_test,
    prior_for,
    run_level_test,
    seeds_to_decide,
)
from pytest_ftloop.gate.verdict import FAILING, Change, Kind, MetricKind, Verdict, amount_text

TAG_ALPHA = 0.05
"""Of all tags together (Holm): they are told, and fail only where a gate names the tag."""

ANCHOR_ALPHA = 0.5
"""Share of the gate's alpha at which the anchor is judged."""

Groups = Sequence[Sequence[Measured]]


@dataclass(frozen=True)
class Side:
    """One iteration and its runs: of each, what the log holds in whichever environment."""

    iteration: Iteration
    runs: tuple[Measured, ...]

    def within(self, environment: Sequence[tuple[str, str]]) -> Side:
        """The side with the runs of one environment only."""
        return replace(self, runs=in_environment(self.runs, dict(environment)))


def compare(
    candidate: Side, baseline: Side, anchor: Side | None, groups: Groups, rule: Regression
) -> Verdict:
    """The verdict on a candidate. The anchor is None where it is the baseline itself."""
    verdict = _against(candidate, baseline, groups, rule)
    if anchor is None or verdict.kind in {"incomplete", "not comparable"}:
        return verdict
    stricter = replace(rule, alpha=rule.alpha * ANCHOR_ALPHA)
    past = _against(candidate, anchor, groups, stricter, alone=True)
    slide, name = past.changes, anchor.iteration.name
    if not slide:
        note = f"the best ever accepted, {name}, is not compared: {past.because}"
        return replace(verdict, anchor=name, notes=(*verdict.notes, note))
    if past.kind == "regressed" and verdict.kind != "regressed":
        because = f"against the best ever accepted, {name}: {past.because}"
        return replace(
            verdict, kind="regressed", ok=False, because=because, anchor=name, slide=slide
        )
    return replace(verdict, anchor=name, slide=slide)


def _against(
    candidate: Side, baseline: Side, groups: Groups, rule: Regression, *, alone: bool = False
) -> Verdict:
    """The verdict by one baseline; `alone` the deciding metrics, with nothing told beside them."""

    def verdict(kind: Kind, because: str) -> Verdict:
        return Verdict(
            kind=kind,
            ok=kind not in FAILING and kind not in rule.fail_on,
            because=because,
            candidate=candidate.iteration.name,
            baseline=baseline.iteration.name,
            alpha=rule.alpha,
        )

    environment = tuple(candidate.iteration.environment.items())
    old, new = baseline.within(environment), candidate.within(environment)
    figures = [_of_tag(name, rule.tag) for name in rule.metrics if name in RUN_METRICS]
    for run in new.runs:
        if why := why_incomplete(run, figures):
            return verdict("incomplete", f"{_run_name(run)}: {why}")
    if not old.runs:
        changed = environment_changes(
            baseline.iteration.environment, candidate.iteration.environment
        )
        return verdict("not comparable", f"environment changed ({', '.join(changed)})")
    for run in old.runs:
        if why := why_incomplete(run):
            return verdict("not comparable", f"the baseline {_run_name(run)}: {why}")

    common = Common.of(old.runs, new.runs)
    ids, total, notes = common.ids, len(new.iteration.examples), []
    eval_changed = bool(common.changed or common.only_baseline or common.only_candidate)
    if eval_changed:
        if _same_eval_set(old.iteration, new.iteration):
            lost = common.only_baseline or common.only_candidate or common.changed
            return verdict(
                "incomplete", f"the eval set is the same, but example {lost[0]} is not in both logs"
            )
        notes.append(_eval_note(common, total))
    if rule.tag is not None:
        ids = tuple(row.id for row in rows_of(new.runs[0], ids) if rule.tag in row.tags)
    if not ids:
        what = (
            "no example in common" if rule.tag is None else f"no common example tagged {rule.tag}"
        )
        return replace(verdict("not comparable", f"{what} with the baseline"), total=total)

    judged = _Judge(old.runs, new.runs, groups, rule, ids, eval_changed)
    metrics, left_out = judged.comparable_metrics()
    notes += left_out
    if not metrics:
        return verdict("not comparable", "; ".join(left_out))
    changes = judged.changes(metrics)
    kind, because = _conclude(changes, rule)
    fixed, broken = judged.flips()
    tells_more = rule.tag is None and not alone
    return replace(
        verdict(kind, because),
        changes=changes,
        tags=judged.tags(metrics) if tells_more else (),
        runs=judged.run_changes() if tells_more else (),
        common=len(ids),
        total=total,
        fixed=fixed,
        broken=broken,
        notes=(*notes, *judged.noise_notes(changes)),
    )


@dataclass(frozen=True)
class _Judge:
    """The figures of one comparison: the runs of both sides on the examples `ids`."""

    old: Sequence[Measured]
    new: Sequence[Measured]
    groups: Groups
    rule: Regression
    ids: Sequence[str]
    eval_changed: bool

    def comparable_metrics(self) -> tuple[list[str], list[str]]:
        """The gate's metrics that both sides measured in the same way, and why others are not."""
        metrics, notes = [], []
        for name in self.rule.metrics:
            if why := self._why_not_comparable(name):
                notes.append(f"{why}: {name} is not compared")
            else:
                metrics.append(name)
        return metrics, notes

    def _why_not_comparable(self, name: str) -> str:
        if name == "pass_rate":
            return "" if self._same_scoring else "scoring changed"
        if not self._same_tokens:
            return "the tokens of the examples changed"
        if name not in RUN_METRICS:
            return "" if self._has_tokens(name, self.ids) else "the examples have no tokens"
        if name == "overfit_gap" and self.eval_changed:
            return "it is one of the whole eval set, which changed"
        figure = _of_tag(name, self.rule.tag)
        if not all(has_figure(run, figure) for run in (*self.old, *self.new)):
            return f"the baseline has no figure {figure}"
        # A gap's seed noise is no fixed share of the loss: no prior could stand for it.
        measured = self._run_df >= CALIBRATED_DF
        return "" if measured else "its seed noise is not measured yet (ftloop calibrate)"

    @property
    def _run_df(self) -> int:
        """Degrees of freedom of the seed noise of whole runs."""
        return sum(len(group) - 1 for group in self.groups)

    @property
    def _same_scoring(self) -> bool:
        return dict(self.old[0].scoring) == dict(self.new[0].scoring)

    @cached_property
    def _tables(self) -> Mapping[int, Mapping[str, ExampleResult]]:
        """The rows of each run by example; the runs by identity, their records can't be keys."""
        runs = (*self.old, *self.new, *chain.from_iterable(self.groups))
        return {id(run): {row.id: row for row in run.examples} for run in runs}

    @cached_property
    def _same_tokens(self) -> bool:
        runs = (*self.old, *self.new)
        return len({tuple(row.tokens for row in self._rows(run)) for run in runs}) == 1

    def changes(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """Each deciding metric, with Holm's correction over all of them."""
        raw = [
            self._run_change(_of_tag(name, self.rule.tag))
            if name in RUN_METRICS
            else self._change(name, self.ids, self.rule.tag, decides=True)
            for name in metrics
        ]
        return self._decided(raw, self.rule.alpha)

    def tags(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """Each metric of each tag, corrected over all of them."""
        by_tag: dict[str, list[str]] = {}
        for row in self._rows(self.new[0]):
            for tag in row.tags:
                by_tag.setdefault(tag, []).append(row.id)
        raw = [
            self._change(name, ids, tag)
            for tag, ids in sorted(by_tag.items())
            if 1 < len(ids) < len(self.ids)
            for name in metrics
            if name in EXAMPLE_METRICS and self._has_tokens(name, ids)
        ]
        return self._decided(raw, TAG_ALPHA)

    def run_changes(self) -> tuple[Change, ...]:
        """The figures of whole runs, told beside the others."""
        names = [
            name
            for name in RUN_METRICS
            if name not in self.rule.metrics and not self._why_not_comparable(name)
        ]
        return self._decided([self._run_change(name) for name in names], self.rule.alpha)

    def flips(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of the examples that were failed before and pass now, and the other way round.

        By most seeds of either side, and by the first of them too: its outputs are what is shown.
        """
        if not self._same_scoring:
            return (), ()
        before, after = self._pass_shares(self.old), self._pass_shares(self.new)
        first, now = self._pass_shares(self.old[:1]), self._pass_shares(self.new[:1])
        rows = list(zip(self.ids, before, after, first, now, strict=True))
        fixed = tuple(i for i, old, new, was, is_ in rows if old < 0.5 < new and was < is_)
        broken = tuple(i for i, old, new, was, is_ in rows if new < 0.5 < old and is_ < was)
        return fixed, broken

    def noise_notes(self, changes: Sequence[Change]) -> tuple[str, ...]:
        """What the verdict assumes of the seed noise where hardly any is measured yet."""
        if all(change.test.nu >= CALIBRATED_DF for change in changes):
            return ()
        names, known = [change.metric for change in changes], measured_noise(self.groups)
        measured = _amounts((name, known[name].sd) for name in names if name in known)
        assumed = _amounts((change.metric, change.test.tau) for change in changes)
        so_far = f"hardly measured yet ({measured})" if measured else "not measured yet"
        return (
            f"seed noise is {so_far} and assumed to be {assumed}; ftloop calibrate measures it, "
            "and smaller drops are found then",
        )

    # --- one metric ------------------------------------------------------------------------------

    def _change(
        self, name: str, ids: Sequence[str], tag: str | None, *, decides: bool = False
    ) -> Change:
        metric = EXAMPLE_METRICS[name]
        old, new = (
            [metric.values(self._rows(run, ids)) for run in side] for side in (self.old, self.new)
        )
        before, after = _seed_means(old), _seed_means(new)
        told = differences([a - b for a, b in zip(after, before, strict=True)])
        if metric.unit == "rate":
            # No flip among n examples is not proof that none can flip: at least one is supposed.
            told = replace(told, variance=max(told.variance, 1 / told.n))
        noise = pool(self._replicates(metric, ids))
        level = math.fsum(before) / len(before)
        prior = prior_for(metric.unit, level, noise.df)
        test = paired_test(told, len(old), len(new), noise, prior, self.rule.alpha)
        figures = metric.figure(level), metric.figure(level + told.mean)
        change = Change(_of_tag(name, tag), *figures, test, math.nan, "unchanged")
        if decides and test.upper > (most := self._most(metric, level)):
            change = replace(change, decide=_what_decides(test, told, noise, prior, most))
        return change

    def _run_change(self, name: str) -> Change:
        old = [run.metrics.get(name, math.nan) for run in self.old]
        new = [run.metrics.get(name, math.nan) for run in self.new]
        groups = [[run.metrics.get(name, math.nan) for run in group] for group in self.groups]
        finite = [group for group in groups if all(map(is_figure, group))]
        # The prior is a share of the eval loss: a gap may be near 0.
        prior = prior_for("loss", self._loss_level(), sum(len(group) - 1 for group in finite))
        test = run_level_test(old, new, finite, prior, self.rule.alpha)
        before = math.fsum(old) / len(old)
        return Change(name, before, before + test.change, test, math.nan, "unchanged")

    def _decided(self, raw: Sequence[Change], alpha: float) -> tuple[Change, ...]:
        worse = holm_adjusted([change.test.p_worse for change in raw])
        better = holm_adjusted([change.test.p_better for change in raw])
        return tuple(
            replace(
                change,
                p=p_worse if change.test.change > 0 else p_better,
                kind=self._kind(change, p_worse, p_better, alpha),
            )
            for change, p_worse, p_better in zip(raw, worse, better, strict=True)
        )

    def _kind(self, change: Change, p_worse: float, p_better: float, alpha: float) -> MetricKind:
        level = change.baseline if change.metric.startswith("eval_loss") else self._loss_level()
        unit = abs(level) if self._is_loss(change.metric) else 1.0
        if p_worse <= alpha and change.test.change >= self.rule.min_regression * unit:
            return "regressed"
        if p_better <= alpha:
            return "improved"
        return "inconclusive" if change.decide else "unchanged"

    def _is_loss(self, metric: str) -> bool:
        name = metric.partition("[")[0]
        return name in RUN_METRICS or EXAMPLE_METRICS[name].unit == "loss"

    def _loss_level(self) -> float:
        level = self.old[0].metrics.get("eval_loss", 0.0)
        return level if is_figure(level) else 0.0

    def _most(self, metric: ExampleMetric, level: float) -> float:
        unit = abs(level) if metric.unit == "loss" else 1.0
        return self.rule.max_regression * unit

    def _replicates(self, metric: ExampleMetric, ids: Sequence[str]) -> list[Replicates]:
        """The A/A groups on these examples, as far as a group has most of them."""
        found = []
        for group in self.groups:
            runs = [run for run in group if self._measured_alike(run, metric)]
            tables = [self._tables[id(run)] for run in runs]
            everywhere = set(ids).intersection(*tables)
            shared = [i for i in ids if i in everywhere]
            if len(runs) > 1 and 2 * len(shared) >= len(ids):
                values = [metric.values([table[i] for i in shared]) for table in tables]
                if all(all(map(is_figure, run_values)) for run_values in values):
                    found.append(replicates(values))
        return found

    def _measured_alike(self, run: Measured, metric: ExampleMetric) -> bool:
        return metric.name != "pass_rate" or dict(run.scoring) == dict(self.new[0].scoring)

    def _has_tokens(self, name: str, ids: Sequence[str]) -> bool:
        return name == "pass_rate" or sum(row.tokens for row in self._rows(self.new[0], ids)) > 0

    def _rows(self, run: Measured, ids: Sequence[str] | None = None) -> list[ExampleResult]:
        table = self._tables[id(run)]
        return [table[id_] for id_ in (self.ids if ids is None else ids)]

    def _pass_shares(self, runs: Sequence[Measured]) -> list[float]:
        """Of each example, the share of seeds that pass it."""
        tables = [[row.passed is True for row in self._rows(run)] for run in runs]
        return [sum(passed) / len(passed) for passed in zip(*tables, strict=True)]


def _conclude(changes: Sequence[Change], rule: Regression) -> tuple[Kind, str]:
    """The verdict that the deciding metrics give together, and why."""
    for kind in ("regressed", "improved"):
        if said := [change for change in changes if change.kind == kind]:
            return kind, "; ".join(f"{change.text}, p {_p(change.p)}" for change in said)
    if open_ := [change for change in changes if change.kind == "inconclusive"]:
        first = open_[0]
        most = amount_text(first.metric, first.test.upper)
        return "inconclusive", (
            f"{first.text}: nothing is proven, but it could be worse by {most}, more than "
            f"max_regression ({rule.max_regression:.0%}) allows; {first.decide}"
        )
    return "unchanged", "; ".join(change.text for change in changes) + "; " + power_text(changes)


def power_text(changes: Sequence[Change]) -> str:
    """`200 examples, 1 and 3 seeds: finds a drop of 0.021 in eval_loss`."""
    test = max((change.test for change in changes), key=lambda test: test.n)
    k_old, k_new = test.k_baseline, test.k_candidate
    seeds = f"{k_new} {'seed' if k_new == 1 else 'seeds'} a side"
    if k_old != k_new:
        seeds = f"{k_new} against {k_old} seeds"
    of_examples = f"{test.n} examples, " if test.n else ""
    drops = " or ".join(
        f"{amount_text(change.metric, change.test.detectable)} in {change.metric}"
        for change in changes
        if math.isfinite(change.test.detectable)
    )
    return f"{of_examples}{seeds}: a drop of {drops} would be found"


def _what_decides(
    test: PairedTest, told: Differences, noise: SeedNoise, prior: Prior, most: float
) -> str:
    def answer(ask: Callable[..., int | None], unit: str) -> str | None:
        number = ask(test, told, noise, prior, most)
        return None if number is None else f"{number} {unit}"

    answers = (answer(seeds_to_decide, "seeds a side"), answer(examples_to_decide, "examples"))
    known = [text for text in answers if text]
    if known:
        return f"{' or '.join(known)} would decide"
    if noise.df < CALIBRATED_DF and told.n > 1:
        return "ftloop calibrate measures the seed noise, and tells what would decide"
    return "no number of seeds would decide"


def _amounts(of: Iterable[tuple[str, float]]) -> str:
    """`0.0061 in eval_loss, 2.0 points in pass_rate`."""
    return ", ".join(f"{amount_text(metric, amount)} in {metric}" for metric, amount in of)


def _seed_means(runs: Sequence[Sequence[float]]) -> list[float]:
    """Each example's mean over the seeds: (k, n) -> (n,)."""
    return [math.fsum(values) / len(values) for values in zip(*runs, strict=True)]


def _of_tag(name: str, tag: str | None) -> str:
    return name if tag is None else f"{name}[{tag}]"


def _same_eval_set(old: Iteration, new: Iteration) -> bool:
    before, after = (i.data.get("eval", {}).get("sha256") for i in (old, new))
    return before is not None and before == after


def _eval_note(common: Common, total: int) -> str:
    parts = [
        f"{len(ids)} {what}"
        for ids, what in (
            (common.changed, "changed"),
            (common.only_candidate, "new"),
            (common.only_baseline, "gone"),
        )
        if ids
    ]
    return f"eval set changed: {len(common.ids)} of {total} examples compared ({', '.join(parts)})"


def _run_name(run: Measured) -> str:
    return run.name if isinstance(run, Iteration) else f"{run.iteration} with seed {run.seed}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
