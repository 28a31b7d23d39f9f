"""Baseline and candidate to a verdict: pure, over what the log holds.

The statistic is `statistic.paired_test`, per metric; Holm's correction over the metrics that
decide; tags beside them at 5%; the anchor at half the gate's alpha, so that a slow slide is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pytest_ftloop.compare.runs import (
    EXAMPLE_METRICS,
    RUN_METRICS,
    Common,
    ExampleMetric,
    Measured,
    environment_changes,
    in_environment,
    rows_of,
    why_incomplete,
)
from pytest_ftloop.compare.statistic import (
    Differences,
    PairedTest,
    Prior,
    Replicates,
    SeedNoise,
    differences,
    examples_to_decide,
    holm_adjusted,
    paired_test,
    pool,
    prior_for,
    replicates,
    run_level_test,
    seeds_to_decide,
)
from pytest_ftloop.compare.verdict import FAILING, Change, Kind, MetricKind, Verdict, amount_text
from pytest_ftloop.gates import Regression
from pytest_ftloop.records import ExampleResult, Iteration

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
    past = _against(candidate, anchor, groups, stricter)
    slide, name = past.changes, anchor.iteration.name
    if past.kind == "regressed" and verdict.kind != "regressed":
        because = f"against the best ever accepted, {name}: {past.because}"
        return replace(
            verdict, kind="regressed", ok=False, because=because, anchor=name, slide=slide
        )
    return replace(verdict, anchor=name, slide=slide)


def _against(candidate: Side, baseline: Side, groups: Groups, rule: Regression) -> Verdict:
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
    for run in new.runs:
        if why := why_incomplete(run):
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
    if common.changed or common.only_baseline or common.only_candidate:
        if _same_eval_set(old.iteration, new.iteration):
            lost = common.only_baseline or common.only_candidate or common.changed
            return verdict(
                "incomplete", f"the eval set is the same, but example {lost[0]} is not in both logs"
            )
        notes.append(_eval_note(common, total))
    if rule.tag is not None:
        ids = tuple(row.id for row in rows_of(new.runs[0], ids) if rule.tag in row.tags)
    counts = {"common": len(ids), "total": total}
    if not ids:
        what = (
            "no example in common" if rule.tag is None else f"no common example tagged {rule.tag}"
        )
        return verdict("not comparable", f"{what} with the baseline", **counts)

    judged = _Judge(old.runs, new.runs, groups, rule, ids)
    metrics, left_out = judged.comparable_metrics()
    notes += left_out
    if not metrics:
        return verdict("not comparable", "; ".join(left_out))
    changes = judged.changes(metrics)
    kind, because = _conclude(changes, rule)
    fixed, broken = judged.flips()
    return replace(
        verdict(kind, because),
        changes=changes,
        tags=judged.tags(metrics) if rule.tag is None else (),
        runs=judged.run_changes() if rule.tag is None else (),
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

    def comparable_metrics(self) -> tuple[list[str], list[str]]:
        """The gate's metrics that both sides measured in the same way, and why others are not."""
        metrics, notes = list(self.rule.metrics), []
        if dict(self.old[0].scoring) != dict(self.new[0].scoring) and "pass_rate" in metrics:
            metrics.remove("pass_rate")
            notes.append("scoring changed: the pass rate is not compared")
        tokens = [[row.tokens for row in self._rows(side[0])] for side in (self.old, self.new)]
        by_token = [m for m in metrics if m in {"eval_loss", "token_accuracy"}]
        if by_token and (tokens[0] != tokens[1] or not sum(tokens[1])):
            metrics = [m for m in metrics if m not in by_token]
            notes.append(f"the tokens of the examples changed: {by_token[0]} is not compared")
        return metrics, notes

    def changes(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """Each deciding metric, with Holm's correction over all of them."""
        raw = [
            self._run_change(name) if name in RUN_METRICS else self._change(name, self.ids)
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
            if name not in self.rule.metrics
            and all(math.isfinite(r.metrics.get(name, math.nan)) for r in (*self.old, *self.new))
        ]
        return self._decided([self._run_change(name) for name in names], self.rule.alpha)

    def flips(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of the examples that most seeds fail before and pass now, and the other way round."""
        if dict(self.old[0].scoring) != dict(self.new[0].scoring):
            return (), ()
        before, after = self._mostly_passed(self.old), self._mostly_passed(self.new)
        fixed = [i for i, was, is_ in zip(self.ids, before, after, strict=True) if is_ > was]
        broken = [i for i, was, is_ in zip(self.ids, before, after, strict=True) if is_ < was]
        return tuple(fixed), tuple(broken)

    def noise_notes(self, changes: Sequence[Change]) -> tuple[str, ...]:
        """What the verdict supposes instead of knowing."""
        if all(change.test.nu >= 4 for change in changes):
            return ()
        assumed = ", ".join(f"{amount_text(c.metric, c.test.tau)} in {c.metric}" for c in changes)
        return (
            f"seed noise is hardly measured yet and taken as {assumed}; ftloop calibrate measures "
            "it, and smaller drops are found then",
        )

    # --- one metric ------------------------------------------------------------------------------

    def _change(self, name: str, ids: Sequence[str], tag: str | None = None) -> Change:
        metric = EXAMPLE_METRICS[name]
        old, new = ([metric.values(rows_of(run, ids)) for run in s] for s in (self.old, self.new))
        before, after = _seed_means(old), _seed_means(new)
        told = differences([a - b for a, b in zip(after, before, strict=True)])
        if metric.unit == "rate":
            # No flip among n examples is not proof that none can flip: at least one is supposed.
            told = replace(told, variance=max(told.variance, 1 / told.n))
        noise = pool(self._replicates(metric, ids))
        level = math.fsum(before) / len(before)
        prior = prior_for(metric.unit, level, noise.df)
        test = paired_test(told, len(old), len(new), noise, prior, self.rule.alpha)
        shown = name if tag is None else f"{name}[{tag}]"
        figures = metric.figure(level), metric.figure(level + told.mean)
        change = Change(shown, *figures, test, math.nan, "unchanged")
        if tag is None and test.upper > (most := self._most(metric, level)):
            change = replace(change, decide=_what_decides(test, told, noise, prior, most))
        return change

    def _run_change(self, name: str) -> Change:
        old = [run.metrics.get(name, math.nan) for run in self.old]
        new = [run.metrics.get(name, math.nan) for run in self.new]
        groups = [[run.metrics.get(name, math.nan) for run in group] for group in self.groups]
        finite = [group for group in groups if all(map(math.isfinite, group))]
        # The prior is a share of the eval loss: a gap may be near 0.
        level = self.old[0].metrics.get("eval_loss", 0.0)
        prior = prior_for("loss", level, sum(len(group) - 1 for group in finite))
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
        return self.old[0].metrics.get("eval_loss", 0.0)

    def _most(self, metric: ExampleMetric, level: float) -> float:
        unit = abs(level) if metric.unit == "loss" else 1.0
        return self.rule.max_regression * unit

    def _replicates(self, metric: ExampleMetric, ids: Sequence[str]) -> list[Replicates]:
        """The A/A groups on these examples, as far as a group has most of them."""
        found = []
        for group in self.groups:
            runs = [run for run in group if self._measured_alike(run, metric)]
            tables = [{row.id: row for row in run.examples} for run in runs]
            shared = [i for i in ids if all(i in table for table in tables)]
            if len(runs) > 1 and 2 * len(shared) >= len(ids):
                values = [metric.values([table[i] for i in shared]) for table in tables]
                if all(math.isfinite(value) for run_values in values for value in run_values):
                    found.append(replicates(values))
        return found

    def _measured_alike(self, run: Measured, metric: ExampleMetric) -> bool:
        return metric.name != "pass_rate" or dict(run.scoring) == dict(self.new[0].scoring)

    def _has_tokens(self, name: str, ids: Sequence[str]) -> bool:
        return name == "pass_rate" or sum(row.tokens for row in rows_of(self.new[0], ids)) > 0

    def _rows(self, run: Measured) -> list[ExampleResult]:
        return rows_of(run, self.ids)

    def _mostly_passed(self, runs: Sequence[Measured]) -> list[bool]:
        tables = [[row.passed is True for row in self._rows(run)] for run in runs]
        return [2 * sum(passed) > len(passed) for passed in zip(*tables, strict=True)]


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
    test = changes[0].test
    k_old, k_new = test.k_baseline, test.k_candidate
    seeds = f"{k_new} {'seed' if k_new == 1 else 'seeds'} a side"
    if k_old != k_new:
        seeds = f"{k_new} against {k_old} seeds"
    drops = " or ".join(
        f"{amount_text(change.metric, change.test.detectable)} in {change.metric}"
        for change in changes
        if math.isfinite(change.test.detectable)
    )
    return f"{test.n} examples, {seeds}: a drop of {drops} would be found"


def _what_decides(
    test: PairedTest, told: Differences, noise: SeedNoise, prior: Prior, most: float
) -> str:
    def answer(ask: Callable[..., int | None], unit: str) -> str | None:
        number = ask(test, told, noise, prior, most)
        return None if number is None else f"{number} {unit}"

    answers = (answer(seeds_to_decide, "seeds a side"), answer(examples_to_decide, "examples"))
    known = [text for text in answers if text]
    return f"{' or '.join(known)} would decide" if known else "no number of seeds would decide"


def _seed_means(runs: Sequence[Sequence[float]]) -> list[float]:
    """Each example's mean over the seeds: (k, n) -> (n,)."""
    return [math.fsum(values) / len(values) for values in zip(*runs, strict=True)]


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
