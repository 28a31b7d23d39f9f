"""Judge a loop's best iteration against the baseline, with more seeds where it is in doubt.

The comparison itself is pure (`compare`); here is what it is given, and what is kept of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.records import Iteration, Judgement, SeedRun
from pytest_ftloop.core.runs import (
    Measured,
    decisive,
    groups_of,
    in_environment,
    runs_of,
    why_incomplete,
)
from pytest_ftloop.gate.baseline import Baseline
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.holdout import HoldoutReport, report_of
from pytest_ftloop.gate.standing import RAISING, heads
from pytest_ftloop.gate.verdict import FAILING, Change, Verdict
from pytest_ftloop.log import ImprovementLog, verify
from pytest_ftloop.loop.seeds import SeedTrainer

IN_DOUBT = 0.20
"""A p-value up to this is worth more seeds. It spares work, and adds no false alarm: a candidate
that passes on one seed could only have failed later."""

SEEDS_IN_DOUBT = 3
"""Seeds that a candidate in doubt is judged by."""


@dataclass(frozen=True)
class Judging:
    """The judgement of one candidate.

    `seeds` is None where nothing may be trained or written. `retrain` trains the baseline in the
    candidate's environment, where that was asked for.
    """

    log: ImprovementLog
    candidate: Iteration
    baseline: Baseline
    seeds: SeedTrainer | None = None
    retrain: Callable[[Judging], None] | None = None

    def verdict(self, rule: Regression) -> Verdict:
        """The verdict, after training two more seeds when one is not enough to tell."""
        if self.retrain and self.baseline.iteration is not None and not self.baseline_runs():
            self.retrain(self)
        verdict = self._compared(rule)
        if self.seeds is not None and is_in_doubt(verdict):
            more = self.seeds.train(self.candidate, SEEDS_IN_DOUBT, "gate")
            return self._compared(rule) if more else verdict
        return verdict

    def baseline_runs(self) -> tuple[Measured, ...]:
        """The baseline's runs in the candidate's environment; none where it has to be trained."""
        baseline = self.baseline.iteration
        if baseline is None:
            return ()
        old, _ = self._sides(baseline, *self._logged)
        return in_environment(old.runs, self.candidate.environment)

    def keep(self, verdict: Verdict) -> Judgement | None:
        """Log the verdict, unless it is there already, nothing was compared, or a hand decided."""
        baseline = self.baseline.iteration
        if baseline is not None and baseline.fingerprint == self.candidate.fingerprint:
            return None
        if verdict.ok and self._stands_by_hand:
            return None
        known = self.log.view.judgements()
        if baseline is None and (not self.baseline.is_first or self.baseline.was_stated):
            return None  # no repository, or a commit older than the log: no first version
        is_first = baseline is None and verdict.ok
        judgement = Judgement(
            loop=self.candidate.loop,
            candidate=self.candidate.id,
            baseline=baseline.id if baseline else None,
            by="gate",
            kind="first" if is_first else verdict.kind,
            passed=verdict.ok,
            because="nothing was committed before it" if is_first else verdict.because,
            over=tuple(head.name for head in heads(known)) if verdict.ok else (),
            verdict=_without_names(verdict),
        )
        if _is_known(judgement, known):
            return None
        return self.log.append_judgement(judgement)

    def by_this_eval_set(self) -> tuple[Judgement, ...]:
        """The judgements of iterations that were measured on the candidate's eval set."""
        view = self.log.view
        sets = {i.id: i.data.get("eval", {}).get("sha256") for i in view.iterations()}
        own = self.candidate.data.get("eval", {}).get("sha256")
        return tuple(j for j in view.judgements() if sets.get(j.candidate, own) == own)

    def _compared(self, rule: Regression) -> Verdict:
        candidate, baseline = self.candidate, self.baseline.iteration
        if why := why_incomplete(candidate):
            # Also where there is nothing to compare with, or the committed version is as broken.
            return Verdict(
                kind="incomplete",
                ok=False,
                because=f"{candidate.name}: {why}",
                candidate=candidate.name,
                baseline=baseline.name if baseline else None,
                against=self.baseline.shown,
                alpha=rule.alpha,
                total=len(candidate.examples),
            )
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
        stem = f"{baseline.name}-{baseline.tag}" if baseline.tag else baseline.name
        verify(baseline, self.baseline.view.files.shown(f"{stem}.yaml"))
        iterations, seed_runs = self._logged
        groups = groups_of(iterations, seed_runs)

        old, new = self._sides(baseline, iterations, seed_runs)
        anchor = self.baseline.anchor
        if anchor is not None and self._is_one_group(anchor):
            anchor = None  # the same settings again: nothing but chance is between them
        past = Side(anchor, runs_of(anchor, iterations, seed_runs)) if anchor else None
        verdict = compare(new, old, past, groups, rule)
        return self._accepted(replace(verdict, against=self.baseline.shown))

    def _accepted(self, verdict: Verdict) -> Verdict:
        """The verdict, passing where the user accepted the candidate whatever it is."""
        if verdict.ok or verdict.kind == "incomplete" or not self._stands_by_hand:
            return verdict
        return replace(verdict, ok=True, because=f"accepted by hand; {verdict.because}")

    @property
    def _stands_by_hand(self) -> bool:
        standing = heads(self.log.view.judgements())
        return any(j.by == "hand" and j.candidate == self.candidate.id for j in standing)

    @property
    def _logged(self) -> tuple[tuple[Iteration, ...], tuple[SeedRun, ...]]:
        """All iterations and seed runs, of the log as it is now and of the baseline's commit."""
        view = self.baseline.view
        views = (self.log.view,) if view is None else (self.log.view, view)
        iterations = tuple(iteration for each in views for iteration in each.iterations())
        return iterations, tuple(run for each in views for run in each.seed_runs())

    def _is_one_group(self, other: Iteration) -> bool:
        return bool(self.candidate.group) and self.candidate.group == other.group

    def _sides(
        self,
        baseline: Iteration,
        iterations: Sequence[Iteration],
        seed_runs: Sequence[SeedRun],
    ) -> tuple[Side, Side]:
        """Baseline and candidate with their runs. None of these stands on both sides.

        Where both have the same settings, a run is the candidate's that was trained for it, or was
        trained in its environment when the baseline was not, and not to stand for the baseline.
        """
        candidate = self.candidate
        if not self._is_one_group(baseline):
            old, new = (runs_of(it, iterations, seed_runs) for it in (baseline, candidate))
            return Side(baseline, old), Side(candidate, new)
        here = decisive(candidate.environment)
        moved = here != decisive(baseline.environment)

        def is_candidates(run: Measured) -> bool:
            is_here = decisive(run.environment) == here
            if isinstance(run, Iteration):
                return is_here and (moved or run.fingerprint == candidate.fingerprint)
            if run.role == "baseline":
                return False
            if candidate.id == baseline.id:
                return moved and is_here
            # Calibration may have trained the candidate's seed for the baseline before.
            return run.iteration == candidate.id or run.fingerprint == candidate.fingerprint

        own = [run for run in seed_runs if is_candidates(run)]
        others = [run for run in iterations if not is_candidates(run)]
        old = runs_of(baseline, others, [run for run in seed_runs if not is_candidates(run)])
        return Side(baseline, old), Side(candidate, runs_of(candidate, (), own))


@dataclass
class Judge:
    """Judges a loop's best iteration for each gate that asks, and for nobody who does not.

    `begin` finds the baseline, when the first gate asks. `after` is done once a verdict by the
    whole eval set was kept: the holdout is opened then. Nothing is written in a replay. `verdicts`
    are those made so far.
    """

    begin: Callable[[], Judging]
    after: Callable[[], None]
    writes: bool
    verdicts: dict[Regression, Verdict] = field(default_factory=dict)

    @cached_property
    def judging(self) -> Judging:
        """The judgement under way."""
        return self.begin()

    def verdict(self, rule: Regression) -> Verdict:
        """The verdict by one gate, made once."""
        if rule not in self.verdicts:
            verdict = self.judging.verdict(rule)
            if self.writes and rule.tag is None:
                self.judging.keep(verdict)
                self.after()
            self.verdicts[rule] = verdict
        return self.verdicts[rule]

    @property
    def failed(self) -> dict[Regression, Verdict]:
        """The verdicts made so far that fail."""
        return {rule: verdict for rule, verdict in self.verdicts.items() if not verdict.ok}

    def holdout(self, rule: Regression) -> HoldoutReport | None:
        """What the holdout says, where it was opened for this iteration."""
        verdict, judging = self.verdict(rule), self.judging
        uses = judging.log.view.holdout_uses()
        if not any(use.iteration == judging.candidate.id for use in uses):
            return None
        baseline = judging.baseline.iteration
        return report_of(judging.candidate, uses, verdict, baseline, judging.by_this_eval_set())


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
