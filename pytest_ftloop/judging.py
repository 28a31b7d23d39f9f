"""Judge a loop's best iteration against the baseline, with more seeds where it is in doubt.

The comparison itself is pure (`compare`); here is what it is given, and what is kept of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pytest_ftloop.baseline import Baseline
from pytest_ftloop.compare.compare import Side, compare
from pytest_ftloop.compare.runs import groups_of, in_environment, runs_of
from pytest_ftloop.compare.verdict import FAILING, Change, Verdict
from pytest_ftloop.gates import Regression
from pytest_ftloop.holdout import HoldoutReport, report_of
from pytest_ftloop.log import ImprovementLog, verify
from pytest_ftloop.records import Iteration, Judgement
from pytest_ftloop.seeds import SeedTrainer
from pytest_ftloop.standing import RAISING, heads

IN_DOUBT = 0.20
"""A p-value up to this is worth more seeds. It spares work, and adds no false alarm: a candidate
that passes on one seed could only have failed later."""

SEEDS_IN_DOUBT = 3
"""Seeds that a candidate in doubt is judged by."""


@dataclass(frozen=True)
class Judging:
    """The judgement of one candidate.

    `seeds` is None where nothing may be trained or written. `retrain` trains the baseline in this
    environment, where that was asked for.
    """

    log: ImprovementLog
    candidate: Iteration
    baseline: Baseline
    seeds: SeedTrainer | None = None
    retrain: Callable[[Baseline], None] | None = None

    def verdict(self, rule: Regression) -> Verdict:
        """The verdict, after training two more seeds when one is not enough to tell."""
        if self.retrain is not None and not self._baseline_runs_here():
            self.retrain(self.baseline)
        verdict = self._compared(rule)
        if self.seeds is not None and is_in_doubt(verdict):
            more = self.seeds.train(self.candidate, SEEDS_IN_DOUBT, "gate")
            return self._compared(rule) if more else verdict
        return verdict

    def _baseline_runs_here(self) -> bool:
        """Whether there is nothing to train: no baseline, or its figures are from here already."""
        baseline, view = self.baseline.iteration, self.baseline.view
        if baseline is None or view is None:
            return True
        seed_runs = (*self.log.view.seed_runs(), *view.seed_runs())
        runs = runs_of(baseline, (), seed_runs)
        return bool(in_environment(runs, self.candidate.environment))

    def keep(self, verdict: Verdict) -> Judgement | None:
        """Log the verdict, unless it is there already or nothing was compared."""
        baseline = self.baseline.iteration
        if baseline is not None and baseline.fingerprint == self.candidate.fingerprint:
            return None
        known = self.log.view.judgements()
        kind = "first" if baseline is None and self.baseline.is_first else verdict.kind
        if baseline is None and kind != "first":
            return None  # no repository: what passes there is no committed version
        judgement = Judgement(
            loop=self.candidate.loop,
            candidate=self.candidate.id,
            baseline=baseline.id if baseline else None,
            by="gate",
            kind=kind,
            passed=verdict.ok,
            because=verdict.because if baseline else "nothing was committed before it",
            over=tuple(head.name for head in heads(known)) if verdict.ok else (),
            verdict=_without_names(verdict),
        )
        if _is_known(judgement, known):
            return None
        return self.log.append_judgement(judgement)

    def _compared(self, rule: Regression) -> Verdict:
        candidate, baseline = self.candidate, self.baseline.iteration
        if baseline is None or self.baseline.view is None:
            return _nothing_to_compare(candidate, self.baseline, rule)
        if _is_the_same(candidate, baseline):
            return Verdict(
                kind="unchanged",
                ok=True,
                because=f"it is the version at {self.baseline.shown} itself",
                candidate=candidate.name,
                baseline=baseline.name,
                against=self.baseline.shown,
                alpha=rule.alpha,
                common=len(candidate.examples),
                total=len(candidate.examples),
            )
        view = self.baseline.view
        verify(baseline, view.files.shown(f"{baseline.name}.yaml"))
        iterations = (*self.log.read(), *view.iterations())
        seed_runs = (*self.log.view.seed_runs(), *view.seed_runs())
        groups = groups_of(iterations, seed_runs)

        def side(iteration: Iteration) -> Side:
            return Side(iteration, runs_of(iteration, iterations, seed_runs))

        new = side(candidate)
        if candidate.group and candidate.group == baseline.group:
            new = Side(candidate, (candidate,))  # a run can't stand on both sides
        anchor = self.baseline.anchor
        verdict = compare(new, side(baseline), side(anchor) if anchor else None, groups, rule)
        return replace(verdict, against=self.baseline.shown)


@dataclass
class Judge:
    """Judges a loop's best iteration for each gate that asks, and for nobody who does not.

    `begin` finds the baseline, when the first gate asks. `after` is done once a verdict by the
    whole eval set was kept: the holdout is opened then. Nothing is written in a replay.
    """

    begin: Callable[[], Judging]
    after: Callable[[], None]
    writes: bool
    _verdicts: dict[Regression, Verdict] = field(default_factory=dict, init=False)

    @cached_property
    def judging(self) -> Judging:
        """The judgement under way."""
        return self.begin()

    def verdict(self, rule: Regression) -> Verdict:
        """The verdict by one gate, made once."""
        if rule not in self._verdicts:
            verdict = self.judging.verdict(rule)
            if self.writes and rule.tag is None:
                self.judging.keep(verdict)
                self.after()
            self._verdicts[rule] = verdict
        return self._verdicts[rule]

    def holdout(self, rule: Regression) -> HoldoutReport | None:
        """What the holdout says, where it was opened for this iteration."""
        verdict, judging = self.verdict(rule), self.judging
        view = judging.log.view
        baseline = judging.baseline.iteration
        return report_of(
            judging.candidate, view.holdout_uses(), verdict, baseline, view.judgements()
        )


def is_in_doubt(verdict: Verdict) -> bool:
    """Whether a metric looks worse enough that more seeds could turn out to prove it."""
    judged: tuple[Change, ...] = (*verdict.changes, *verdict.slide)
    return any(change.test.p_worse <= IN_DOUBT for change in judged)


def is_accepted(judgement: Judgement) -> bool:
    """Whether a judgement makes its iteration one that the holdout is opened for."""
    return judgement.passed and (judgement.by == "hand" or judgement.kind in RAISING)


def _nothing_to_compare(candidate: Iteration, baseline: Baseline, rule: Regression) -> Verdict:
    strict = "not comparable" in rule.fail_on and not baseline.is_first
    return Verdict(
        kind="not comparable",
        ok="not comparable" not in FAILING and not strict,
        because=f"{baseline.why_none}, so there is nothing to compare with yet",
        candidate=candidate.name,
        against=baseline.shown,
        alpha=rule.alpha,
        total=len(candidate.examples),
    )


def _is_the_same(candidate: Iteration, baseline: Iteration) -> bool:
    """Whether both are one training: equal settings and data, and equal figures too."""
    return (
        candidate.fingerprint == baseline.fingerprint
        and candidate.metrics == baseline.metrics
        and candidate.environment == baseline.environment
    )


def _without_names(verdict: Verdict) -> dict[str, object]:
    """The verdict's record without what the judgement says itself."""
    said = {"kind", "ok", "because", "candidate", "baseline"}
    return {key: value for key, value in verdict.as_record().items() if key not in said}


def _is_known(judgement: Judgement, known: Sequence[Judgement]) -> bool:
    """Whether a judgement says again what stands, or what failed before."""
    standing = heads(known)
    same = [
        other
        for other in known
        if (other.candidate, other.baseline, other.kind, other.passed, other.because)
        == (
            judgement.candidate,
            judgement.baseline,
            judgement.kind,
            judgement.passed,
            judgement.because,
        )
    ]
    if not judgement.passed:
        return bool(same)
    return len(standing) == 1 and standing[0] in same
