"""Compare a candidate with its baseline, from what the log holds: a pure function.

Each metric is tested by `statistic`. Holm's correction covers the metrics that decide. Tags are
tested beside them at their own level. The best iteration ever accepted, the anchor, is compared
too, so that many small losses in a row are noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.metrics import NO_SET_METRICS, depends_on_scoring, is_score, split_name
from pytest_ftloop.core.noise import Prior, SeedNoise, measured_noise, noise_of, pool
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.core.runs import (
    RUN_METRICS,
    Common,
    Differences,
    ExampleMetric,
    Measured,
    differences,
    distinct,
    environment_changes,
    example_metric,
    has_figure,
    in_environment,
    is_untrained,
    mean_of,
    rows_of,
    why_incomplete,
    with_names_of,
)
from pytest_ftloop.core.sampled import has_score
from pytest_ftloop.core.set_metrics import SetMetric, unit_of
from pytest_ftloop.gate.alike import is_one_training, trained_alike
from pytest_ftloop.gate.bootstrap import change_variance, resampled_figure, seed_from
from pytest_ftloop.gate.paired import Groups, PairedRuns, seed_means
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
from pytest_ftloop.gate.verdict import (
    ENVIRONMENT_CHANGED,
    FAILING,
    TRAINED_ANEW,
    Change,
    Kind,
    MetricKind,
    Verdict,
    amount_text,
    p_text,
)

TAG_ALPHA = 0.05
"""Level of the tests per tag, over all tags together (Holm). The usual 5% is enough, as these tests
only report: a tag fails a gate only if the gate names it, and then at the gate's own alpha."""

ANCHOR_ALPHA_SHARE = 0.5
"""Level of the comparison with the anchor, as a share of the gate's alpha: this second chance of a
false alarm may add at most half of what the gate allows."""

NO_NOISE = Prior(0.0, 1.0)
"""The seed noise between two evaluations of one training."""

ONE_TRAINING = "both sides are evaluations of one training, so there is no seed noise between them"

SetMetrics = Mapping[str, SetMetric]
"""The metrics of the whole set, by the user's name."""

SCORING_CHANGED = "scoring changed"
TOKENS_CHANGED = "the tokens of the examples changed"
WHOLE_SET_CHANGED = "it is a figure of the whole eval set, which changed"
MEASURED_ANEW = frozenset({SCORING_CHANGED, TOKENS_CHANGED, WHOLE_SET_CHANGED})
"""Why a metric is not compared where candidate and baseline were measured in different ways."""


@dataclass(frozen=True)
class Side:
    """One iteration with all its runs in the log, from any environment."""

    iteration: Iteration
    runs: tuple[Measured, ...]

    def within(self, environment: Sequence[tuple[str, str]]) -> Side:
        """The side with only the runs of one environment."""
        return replace(self, runs=in_environment(self.runs, dict(environment)))


def compare(
    candidate: Side,
    baseline: Side,
    anchor: Side | None,
    groups: Groups,
    rule: Regression,
    set_metrics: SetMetrics = NO_SET_METRICS,
) -> Verdict:
    """The verdict on a candidate. The anchor is None if it is the baseline.

    `set_metrics` computes the metrics of the whole set that the rule names.
    """
    verdict = _against(candidate, baseline, groups, rule, set_metrics)
    if anchor is None or verdict.kind in {"incomplete", "not comparable"}:
        return verdict
    stricter = replace(rule, alpha=rule.alpha * ANCHOR_ALPHA_SHARE)
    past = _against(candidate, anchor, groups, stricter, set_metrics, alone=True)
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
    candidate: Side,
    baseline: Side,
    groups: Groups,
    rule: Regression,
    set_metrics: SetMetrics,
    *,
    alone: bool = False,
) -> Verdict:
    """The verdict against one baseline; `alone`: without the figures that are only reported."""

    def verdict(kind: Kind, because: str) -> Verdict:
        return Verdict(
            kind=kind,
            ok=kind not in FAILING and kind not in rule.fail_on,
            because=because,
            candidate=candidate.iteration.name,
            baseline=baseline.iteration.name,
            alpha=rule.alpha,
        )

    def nothing_left(because: str) -> Verdict:
        # It is another model only if it was trained in another way.
        found = verdict("not comparable", because)
        return found if alike else replace(found, ok=False, notes=(TRAINED_ANEW,))

    for name in rule.metrics:
        if (metric := set_metrics.get(name)) and metric.unread:
            why = (
                f"{name} is computed by {metric.unread}, which runs in pytest --ftloop-replay only"
            )
            return verdict("incomplete", why)
    alike = trained_alike(candidate.iteration, baseline.iteration)
    environment = tuple(candidate.iteration.environment.items())
    old, new = baseline.within(environment), candidate.within(environment)
    # The candidate first: if it is incomplete it has to fail, whatever state the baseline is in.
    figures = [
        _of_tag(name, rule.tag) for name in rule.metrics if name in RUN_METRICS or is_score(name)
    ]
    for run in new.runs:
        if why := why_incomplete(run, figures):
            return verdict("incomplete", f"{_run_name(run)}: {why}")
    if not old.runs:
        changed = environment_changes(
            baseline.iteration.environment, candidate.iteration.environment
        )
        return verdict("not comparable", f"{ENVIRONMENT_CHANGED} ({', '.join(changed)})")
    for run in old.runs:
        if why := why_incomplete(run):
            return verdict("not comparable", f"the baseline {_run_name(run)}: {why}")

    # Ids are labels: an example is the same if its content is.
    names = new.runs[0].examples
    old, new = (
        replace(side, runs=tuple(with_names_of(run, names) for run in side.runs))
        for side in (old, new)
    )
    groups = [[with_names_of(run, names) for run in group] for group in groups]
    common = Common.of(old.runs, new.runs)
    ids, total, notes = common.ids, len(new.iteration.examples), []
    eval_changed = bool(common.changed or common.only_baseline or common.only_candidate)
    if eval_changed:
        # With the same eval set a missing example was lost or edited in the log. It may be one
        # that fails now, so the rest must not be judged without it.
        if _same_eval_set(old.iteration, new.iteration):
            lost = common.only_baseline or common.only_candidate or common.changed
            return verdict(
                "incomplete", f"the eval set is the same, but example {lost[0]} is not in both logs"
            )
        notes.append(_eval_note(common, total))
    if rule.tag is not None:
        ids = tuple(row.id for row in rows_of(new.runs[0], ids) if rule.tag in row.tags)
    if not ids:
        what = "no example" if rule.tag is None else f"no example tagged {rule.tag}"
        why = f"{what} is in common with the baseline"
        had_some = rule.tag is None or any(rule.tag in row.tags for row in old.runs[0].examples)
        none = nothing_left(why) if had_some else verdict("not comparable", why)
        return replace(none, total=total)

    again = _evaluated_again(old, new, ids) if alike else None
    if again is not None:
        old, new = again
        notes.append(ONE_TRAINING)
    paired = PairedRuns(old.runs, new.runs, groups, ids)
    tests = _Tests(paired, rule, eval_changed, set_metrics, again is not None)
    metrics, left_out = tests.comparable_metrics()
    notes += left_out
    if not metrics:
        why = "; ".join(left_out)
        return nothing_left(why) if tests.is_measured_anew else verdict("not comparable", why)
    changes = tests.changes(metrics)
    kind, because = _conclude(changes, rule)
    before = sum(rule.tag is None or rule.tag in row.tags for row in old.runs[0].examples)
    if kind == "inconclusive" and not alike and eval_changed and 2 * len(ids) < before:
        few = nothing_left(f"only {len(ids)} of the baseline's {before} examples are in common")
        return replace(few, changes=changes, common=len(ids), total=total)
    fixed, broken = tests.paired.flips()
    reports_more = rule.tag is None and not alone
    return replace(
        verdict(kind, because),
        changes=changes,
        tags=tests.tags(metrics) if reports_more else (),
        runs=tests.run_changes() if reports_more else (),
        common=len(ids),
        total=total,
        fixed=fixed,
        broken=broken,
        notes=(*notes, *(_noise_notes(changes, groups) if again is None else ())),
    )


def _evaluated_again(old: Side, new: Side, ids: Sequence[str]) -> tuple[Side, Side] | None:
    """The sides with the trainings only that both are evaluations of; None if there are two.

    What one side has trained beyond that says nothing of how the evaluations differ.
    """
    first = old.runs[0], new.runs[0]
    if first[0].seed != old.iteration.seed or not is_one_training(*first, ids):
        return None
    pairs = [
        (one, other) for one in old.runs for other in new.runs if is_one_training(one, other, ids)
    ]
    before, after = zip(*pairs, strict=True)
    return replace(old, runs=before), replace(new, runs=after)


@dataclass(frozen=True)
class _Tests:
    """The tests of one comparison. `eval_changed`: the sides have different eval sets.

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

    def changes(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """The change of each deciding metric, with Holm's correction over all of them."""
        raw = [
            self._run_change(_of_tag(name, self.rule.tag))
            if name in RUN_METRICS
            else self._change(name, self.paired.ids, self.rule.tag, decides=True)
            for name in metrics
        ]
        return self._corrected(raw, self.rule.alpha)

    def tags(self, metrics: Sequence[str]) -> tuple[Change, ...]:
        """The change of each metric per tag, corrected over all of them."""
        by_tag: dict[str, list[str]] = {}
        for row in self.paired.rows(self.paired.new[0]):
            for tag in row.tags:
                by_tag.setdefault(tag, []).append(row.id)
        # A single example proves nothing, and a tag that all examples have is the whole set.
        raw = [
            self._change(name, ids, tag)
            for tag, ids in sorted(by_tag.items())
            if 1 < len(ids) < len(self.paired.ids)
            for name in metrics
            if example_metric(name) and self.paired.has_tokens(name, ids)
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
            return "" if paired.defined_alike(name) else SCORING_CHANGED
        if depends_on_scoring(name):
            if not paired.same_scoring:
                return SCORING_CHANGED
            # Of records from before scores, an example without one would count as 0.
            rows = [row for run in paired.old for row in paired.rows(run)]
            lacks = is_score(name) and not all(has_score(row, name) for row in rows)
            return f"the baseline lacks {name}" if lacks else ""
        if not paired.same_tokens:
            return TOKENS_CHANGED
        if name not in RUN_METRICS:
            return "" if paired.has_tokens(name, paired.ids) else "the examples have no tokens"
        if name == "overfit_gap" and self.eval_changed:
            return WHOLE_SET_CHANGED
        figure = _of_tag(name, self.rule.tag)
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
        change = Change(_of_tag(name, tag), *figures, test, math.nan, "unchanged")
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
        change = Change(_of_tag(name, tag), before, after, test, math.nan, "unchanged")
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


def _conclude(changes: Sequence[Change], rule: Regression) -> tuple[Kind, str]:
    """The verdict that the deciding metrics give together, and the reason."""
    # One regression outweighs any gain: a better loss does not pay for failing examples.
    for kind in ("regressed", "improved"):
        if proven := [change for change in changes if change.kind == kind]:
            return kind, "; ".join(f"{change.text}, p {p_text(change.p)}" for change in proven)
    if open_ := [change for change in changes if change.kind == "inconclusive"]:
        first = open_[0]
        most = amount_text(first.metric, first.test.upper)
        return "inconclusive", (
            f"{first.text}: no regression is proven, but it could be worse by up to {most}, more "
            f"than max_regression ({rule.max_regression:.0%}) allows; {first.decide}"
        )
    return "unchanged", "; ".join(change.text for change in changes) + "; " + power_text(changes)


def power_text(changes: Sequence[Change]) -> str:
    """`200 examples, 3 seeds against 1: a regression of 0.021 in eval_loss would be detected`."""
    test = max((change.test for change in changes), key=lambda test: test.n)
    k_old, k_new = test.k_baseline, test.k_candidate
    seeds = f"{k_new} {'seed' if k_new == 1 else 'seeds'} per side"
    if k_old != k_new:
        seeds = f"{k_new} {'seed' if k_new == 1 else 'seeds'} against {k_old}"
    of_examples = f"{test.n} examples, " if test.n else ""
    regressions = " or ".join(
        f"{amount_text(change.metric, change.test.detectable)} in {change.metric}"
        for change in changes
        if math.isfinite(change.test.detectable)
    )
    return f"{of_examples}{seeds}: a regression of {regressions} would be detected"


def _noise_notes(changes: Sequence[Change], groups: Groups) -> tuple[str, ...]:
    """What the verdict assumes of the seed noise, while too few seeds measure it."""
    if all(change.test.nu >= CALIBRATED_DF for change in changes):
        return ()
    names, known = [change.metric for change in changes], measured_noise(groups)
    measured = _amounts((name, known[name].sd) for name in names if name in known)
    assumed = _amounts((change.metric, change.test.tau) for change in changes)
    so_far = f" (so far {measured})" if measured else ""
    return (
        f"the log has too few seeds to measure the seed noise{so_far}, so it is assumed to be "
        f"{assumed}; ftloop calibrate measures it, so that smaller regressions are detected",
    )


def _amounts(of: Iterable[tuple[str, float]]) -> str:
    """`0.0061 in eval_loss, 2.0 points in pass_rate`."""
    return ", ".join(f"{amount_text(metric, amount)} in {metric}" for metric, amount in of)


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


def _of_tag(name: str, tag: str | None) -> str:
    return name if tag is None else f"{name}[{tag}]"


def _is_loss(metric: str) -> bool:
    name = metric.partition("[")[0]
    return name in RUN_METRICS or _per_example(name).unit == "loss"


def _per_example(name: str) -> ExampleMetric:
    metric = example_metric(name)
    assert metric is not None, name  # a loop file's gates name no other
    return metric


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
