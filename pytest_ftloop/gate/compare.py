"""Compare a candidate with its baseline, from what the log holds: a pure function.

Each metric is tested by `statistic`. Holm's correction covers the metrics that decide. Tags are
tested beside them at their own level. The best iteration ever accepted, the anchor, is compared
too, so that many small losses in a row are noticed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.metrics import NO_SET_METRICS, is_score
from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.core.runs import (
    RUN_METRICS,
    Common,
    Measured,
    environment_changes,
    in_environment,
    rows_of,
    why_incomplete,
    with_names_of,
)
from pytest_ftloop.gate.alike import is_one_training, trained_alike
from pytest_ftloop.gate.metric_tests import MetricTests, SetMetrics, of_tag
from pytest_ftloop.gate.paired import Groups, PairedRuns
from pytest_ftloop.gate.statistic import (
    CALIBRATED_DF,
)
from pytest_ftloop.gate.verdict import (
    ENVIRONMENT_CHANGED,
    FAILING,
    TRAINED_ANEW,
    Change,
    Kind,
    Verdict,
    amount_text,
    p_text,
)

EVAL_CHANGED = "eval set changed"
"""How the note begins that figures are those of the examples which both sides have."""

ANCHOR_ALPHA_SHARE = 0.5
"""Level of the comparison with the anchor, as a share of the gate's alpha: this second chance of a
false alarm may add at most half of what the gate allows."""

ONE_TRAINING = "both sides are evaluations of one training, so there is no seed noise between them"


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


@dataclass(frozen=True)
class _Pair:
    """What is compared by which gate; with what is said where it can't be compared."""

    candidate: Side
    baseline: Side
    rule: Regression

    @property
    def alike(self) -> bool:
        """Whether both were trained in the same way, of whatever rows."""
        return trained_alike(self.candidate.iteration, self.baseline.iteration)

    @property
    def has_one_eval_set(self) -> bool:
        """Whether both logs say that they were measured on the same rows."""
        sides = (self.baseline, self.candidate)
        before, after = (side.iteration.data.get("eval", {}).get("sha256") for side in sides)
        return before is not None and before == after

    def verdict(self, kind: Kind, because: str) -> Verdict:
        """A verdict that says no more than this."""
        return Verdict(
            kind=kind,
            ok=kind not in FAILING and kind not in self.rule.fail_on,
            because=because,
            candidate=self.candidate.iteration.name,
            baseline=self.baseline.iteration.name,
            alpha=self.rule.alpha,
        )

    def nothing_left(self, because: str) -> Verdict:
        """Nothing can be compared. It is another model only if it was trained in another way."""
        found = self.verdict("not comparable", because)
        return found if self.alike else replace(found, ok=False, notes=(TRAINED_ANEW,))

    def why_not_judged(self, old: Side, new: Side, set_metrics: SetMetrics) -> Verdict | None:
        """What the runs of the candidate's environment, or metrics, lack for a comparison.

        The candidate first: if it is incomplete it has to fail, whatever state the baseline is in.
        """
        rule = self.rule
        for name in rule.metrics:
            if (metric := set_metrics.get(name)) and metric.unread:
                return self.verdict(
                    "incomplete",
                    f"{name} is computed by {metric.unread}, which runs in pytest --ftloop-replay "
                    "only",
                )
        figures = [
            of_tag(name, rule.tag) for name in rule.metrics if name in RUN_METRICS or is_score(name)
        ]
        for run in new.runs:
            if why := why_incomplete(run, figures):
                return self.verdict("incomplete", f"{_run_name(run)}: {why}")
        if not old.runs:
            environments = (self.baseline.iteration, self.candidate.iteration)
            changed = ", ".join(environment_changes(*(i.environment for i in environments)))
            return self.verdict("not comparable", f"{ENVIRONMENT_CHANGED} ({changed})")
        for run in old.runs:
            if why := why_incomplete(run):
                return self.verdict("not comparable", f"the baseline {_run_name(run)}: {why}")
        return None

    def why_none_in_common(self, old: Side) -> Verdict:
        """No example of the gate's is on both sides."""
        tag = self.rule.tag
        what = "no example" if tag is None else f"no example tagged {tag}"
        why = f"{what} is in common with the baseline"
        had_some = tag is None or any(tag in row.tags for row in old.runs[0].examples)
        return self.nothing_left(why) if had_some else self.verdict("not comparable", why)


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
    pair = _Pair(candidate, baseline, rule)
    environment = tuple(candidate.iteration.environment.items())
    old, new = baseline.within(environment), candidate.within(environment)
    if (missing := pair.why_not_judged(old, new, set_metrics)) is not None:
        return missing

    # Ids are labels: an example is the same if its content is.
    names = new.runs[0].examples
    old, new = (
        replace(side, runs=tuple(with_names_of(run, names) for run in side.runs))
        for side in (old, new)
    )
    groups = [[with_names_of(run, names) for run in group] for group in groups]
    common, total, notes = Common.of(old.runs, new.runs), len(new.iteration.examples), []
    eval_changed = bool(common.changed or common.only_baseline or common.only_candidate)
    if eval_changed:
        # With the same eval set a missing example was lost or edited in the log. It may be one
        # that fails now, so the rest must not be judged without it.
        if pair.has_one_eval_set:
            lost = (common.only_baseline or common.only_candidate or common.changed)[0]
            why = f"the eval set is the same, but example {lost} is not in both logs"
            return pair.verdict("incomplete", why)
        notes.append(_eval_note(common, total))
    ids, measured = (
        tuple(row.id for row in rows_of(new.runs[0], of) if rule.tag in {None, *row.tags})
        for of in (common.ids, common.measured)
    )
    if not measured:
        return replace(pair.why_none_in_common(old), total=total)

    again = _evaluated_again(old, new, measured) if pair.alike else None
    if again is not None:
        old, new = again
        notes.append(ONE_TRAINING)
    paired = PairedRuns(old.runs, new.runs, groups, ids, measured)
    tests = MetricTests(paired, rule, not common.is_whole, set_metrics, again is not None)
    metrics, left_out = tests.comparable_metrics()
    notes += left_out
    if not metrics:
        say = (
            pair.nothing_left if tests.is_measured_anew else partial(pair.verdict, "not comparable")
        )
        return say("; ".join(left_out))
    changes = tests.changes(metrics)
    kind, because = _conclude(changes, rule)
    counted = max(len(paired.common(name)) for name in metrics)
    before = sum(rule.tag in {None, *row.tags} for row in old.runs[0].examples)
    # Good losses on all examples do not make up for a pass rate that is left out, or is of a few.
    is_open = kind == "inconclusive" or (kind != "regressed" and len(ids) < len(measured))
    left = tests.fewest_undecided(changes)
    if is_open and not pair.alike and eval_changed and left is not None and 2 * left < before:
        how = "in common" if left == len(measured) else "scored by the same answers and columns"
        few = pair.nothing_left(f"only {left} of the baseline's {before} examples are {how}")
        return replace(few, changes=changes, common=counted, total=total)
    fixed, broken = tests.paired.flips()
    reports_more = rule.tag is None and not alone
    return replace(
        pair.verdict(kind, because),
        changes=changes,
        tags=tests.tags(metrics) if reports_more else (),
        runs=tests.run_changes() if reports_more else (),
        common=counted,
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
    so_far = f"; so far {measured}" if measured else ""
    return (
        "the log has too few seeds to measure the seed noise (how far trainings that differ in "
        f"their seed alone are apart{so_far}), so it is assumed to be {assumed}; ftloop calibrate "
        "measures it, so that smaller regressions are detected",
    )


def _amounts(of: Iterable[tuple[str, float]]) -> str:
    """`0.0061 in eval_loss, 2.0 points in pass_rate`."""
    return ", ".join(f"{amount_text(metric, amount)} in {metric}" for metric, amount in of)


def _eval_note(common: Common, total: int) -> str:
    rescored = set(common.measured) - set(common.ids)
    parts = [
        f"{len(ids)} {what}"
        for ids, what in (
            (set(common.changed) - rescored, "changed"),
            (rescored, "by their losses alone, as what the scorer reads of them changed"),
            (common.only_candidate, "new"),
            (common.only_baseline, "gone"),
        )
        if ids
    ]
    compared = len(common.measured)
    return f"{EVAL_CHANGED}: {compared} of {total} examples compared ({', '.join(parts)})"


def _run_name(run: Measured) -> str:
    return run.name if isinstance(run, Iteration) else f"{run.iteration} with seed {run.seed}"
