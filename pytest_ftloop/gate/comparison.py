"""Compare a loop's best iteration with the baseline, with more seeds if the result is in doubt.

The statistic itself is pure (`compare`). This module collects its input and logs its verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pytest_ftloop.config.gates import DEFAULT_REGRESSION, Forgetting, Regression
from pytest_ftloop.core.errors import DamagedLogError
from pytest_ftloop.core.records import Iteration, Judgement, SeedRole, SeedRun
from pytest_ftloop.core.runs import (
    Measured,
    decisive,
    groups_of,
    in_environment,
    runs_of,
    why_incomplete,
)
from pytest_ftloop.core.set_metrics import SetMetric
from pytest_ftloop.core.untrained import base_of
from pytest_ftloop.gate.alike import measured_alike, trained_alike
from pytest_ftloop.gate.baseline import Baseline
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.forgetting import Reference, could_fail, judge_guards
from pytest_ftloop.gate.holdout import HoldoutReport, report_of
from pytest_ftloop.gate.judgements import RAISES_ANCHOR, RETIRED, covered_by, current_judgements
from pytest_ftloop.gate.lift import why_no_base
from pytest_ftloop.gate.verdict import SEEDS_MISSING, TRAINED_ANEW, Change, Verdict
from pytest_ftloop.log import FOLDER, ImprovementLog, verify
from pytest_ftloop.log.mended import MendedView

IN_DOUBT = 0.20
"""More seeds are trained if a metric's p-value for getting worse is at most this. Above it they are
spared, which adds no false alarm: they could only fail a candidate that now passes."""

SEEDS_IN_DOUBT = 3
"""Seeds by which a candidate in doubt is judged. Two more trainings remove two thirds of the seed's
variance on the candidate's side; each further one removes less."""


TrainSeeds = Callable[[Iteration, int, SeedRole], Sequence[SeedRun]]
"""Trains an iteration with more seeds until it has that many runs, and returns the new ones."""


@dataclass(frozen=True)
class Comparison:
    """A candidate and its baseline: compares them, and logs the judgement.

    `train_seeds` is None if nothing may be trained. `retrain_baseline` trains the baseline in the
    candidate's environment; None unless the user asked for it. `set_metrics` are the loop's metrics
    of the whole eval set, `judge_note` is what to know of the judge that scored.

    It has more than ten methods: a verdict has many reasons to be none, and each is one method.
    """

    log: ImprovementLog
    candidate: Iteration
    baseline: Baseline
    train_seeds: TrainSeeds | None = None
    retrain_baseline: Callable[[Comparison], None] | None = None
    judge_note: str = ""
    set_metrics: Mapping[str, SetMetric] = field(default_factory=dict)

    def verdict(self, rule: Regression) -> Verdict:
        """The verdict by the gate's rule, after training up to 3 seeds of a candidate in doubt.

        Before that the baseline is trained, if that was asked for and it has no run here.
        """
        is_missing = self.baseline.iteration is not None and not self.baseline_runs()
        is_missing = is_missing and not self.baseline.unlogged
        if self.retrain_baseline and is_missing:
            self.retrain_baseline(self)
        verdict = self._compared(rule)
        if is_in_doubt(verdict, rule):
            verdict = self._decided(verdict, rule)
        context = (*self._context(verdict), *self._damages, *verdict.context)
        notes = (*verdict.notes, *filter(None, [self.judge_note]))
        return replace(verdict, context=context, notes=notes)

    def _decided(self, verdict: Verdict, rule: Regression) -> Verdict:
        """A verdict in doubt, with the seeds that decide."""
        if self.train_seeds is None:
            return self._with_the_seeds_that_decide(verdict, rule)
        more = self.train_seeds(self.candidate, SEEDS_IN_DOUBT, "gate")
        return self._compared(rule) if more else verdict

    def _with_the_seeds_that_decide(self, verdict: Verdict, rule: Regression) -> Verdict:
        """A verdict in doubt where nothing may be trained: incomplete if the log lacks the seeds.

        Else a regression would pass once the seeds that proved it were not committed. A default
        rule, which no loop file states, trains none, so the log need not have them.
        """
        seeds = min(change.test.k_candidate for change in _judged(verdict))
        decides = seeds >= SEEDS_IN_DOUBT or not rule.stated
        if decides or not verdict.ok or self._is_accepted_by_hand:
            return verdict
        commit = self.baseline.commit[:7]  # empty outside a repository
        against = f" --ftloop-baseline {commit}" if commit else ""
        because = (
            f"{SEEDS_MISSING} {seeds} of the {SEEDS_IN_DOUBT} seeds that decide "
            f"({verdict.because}); run pytest --ftloop{against} and commit "
            f"{FOLDER}/ with its seeds/"
        )
        return replace(verdict, kind="incomplete", ok=False, because=because)

    def _context(self, verdict: Verdict) -> tuple[str, ...]:
        """What to know of the baseline; first whether its commit has the candidate already."""
        baseline = self.baseline
        if verdict.ok or not baseline.has_candidate or baseline.iteration is None:
            return baseline.context
        return (
            f"{baseline.shown} has this version already: this change does not make it worse. "
            f"ftloop accept --baseline accepts it; or restore the settings of "
            f"{baseline.iteration.name}",
            *baseline.context,
        )

    def baseline_runs(self) -> tuple[Measured, ...]:
        """The baseline's runs in the candidate's environment; empty if it was not trained there."""
        baseline = self.baseline.iteration
        if baseline is None:
            return ()
        old, _ = self._sides(baseline, *self._logged)
        return in_environment(old.runs, self.candidate.environment)

    def keep(self, verdict: Verdict) -> Judgement | None:
        """Log the verdict as a judgement. None if there is nothing new to log.

        That is if the candidate is the baseline or was committed before, the user accepted it by
        hand, there is no baseline though this is not a first version, or the log has the same
        judgement already.
        """
        baseline = self.baseline.iteration
        if baseline is not None and baseline.fingerprint == self.candidate.fingerprint:
            return None
        if self.baseline.is_review or self.baseline.unlogged:
            return None
        if verdict.ok and self._is_accepted_by_hand:
            return None
        known = self.log.view.judgements()
        # Without a repository, or at a stated commit older than the log, no baseline does not mean
        # that this is the first version.
        if baseline is None and (not self.baseline.is_first or self.baseline.was_stated):
            return None
        is_first = baseline is None and verdict.ok
        judgement = Judgement(
            loop=self.candidate.loop,
            candidate=self.candidate.id,
            baseline=baseline.id if baseline else None,
            by="gate",
            kind="first" if is_first else verdict.kind,
            passed=verdict.ok,
            because="nothing was committed before it" if is_first else verdict.because,
            over=tuple(j.name for j in current_judgements(known)) if verdict.ok else (),
            verdict=_without_names(verdict),
        )
        if _is_known(judgement, known):
            return None
        return self.log.append_judgement(judgement)

    def holdout(self, verdict: Verdict) -> HoldoutReport | None:
        """The holdout's report on the candidate; None if it was not opened for it."""
        uses = self.log.view.holdout_uses()
        if not any(use.iteration == self.candidate.id for use in uses):
            return None
        judgements = self._judgements_by_eval_set()
        return report_of(self.candidate, uses, verdict, self.baseline.iteration, judgements)

    def _judgements_by_eval_set(self) -> tuple[Judgement, ...]:
        """The judgements of iterations that were measured on the candidate's eval set.

        Those of iterations that are no longer in the log count too: they used the eval set.
        """
        view = self.log.view
        sets = {i.id: i.data.get("eval", {}).get("sha256") for i in view.iterations()}
        own = self.candidate.data.get("eval", {}).get("sha256")
        return tuple(j for j in view.judgements() if sets.get(j.candidate, own) == own)

    def _compared(self, rule: Regression) -> Verdict:
        candidate, baseline = self.candidate, self.baseline.iteration
        if why := why_incomplete(candidate):
            # Checked first: an incomplete candidate must not pass because there is nothing to
            # compare with, or because the committed version is just as incomplete.
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
        if isinstance(rule, Forgetting):
            return self._accepted(self._guards_compared(rule))
        if self.baseline.unlogged:
            return Verdict(
                kind="incomplete",
                ok=False,
                because=self.baseline.unlogged,
                candidate=candidate.name,
                against=self.baseline.shown,
                alpha=rule.alpha,
                total=len(candidate.examples),
            )
        if baseline is None or self.baseline.view is None:
            return self._accepted(_nothing_to_compare(candidate, self.baseline, rule))
        if why := self._contradiction(baseline):
            lost = replace(self.baseline, why_none=why)
            return self._accepted(_nothing_to_compare(candidate, lost, rule))
        if self.baseline.is_version(candidate):
            return Verdict(
                kind="unchanged",
                ok=True,
                because=f"it is the version committed at {self.baseline.shown}",
                candidate=candidate.name,
                baseline=baseline.name,
                against=self.baseline.shown,
                alpha=rule.alpha,
                common=len(candidate.examples),
                total=len(candidate.examples),
            )
        iterations, seed_runs = self._logged
        groups = groups_of(iterations, seed_runs)

        old, new = self._sides(baseline, iterations, seed_runs)
        anchor = self.baseline.anchor
        if anchor is not None and self._is_one_group(anchor):
            anchor = None  # the same settings: only chance can differ
        past = Side(anchor, runs_of(anchor, iterations, seed_runs)) if anchor else None
        verdict = compare(new, old, past, groups, rule, self.set_metrics)
        if TRAINED_ANEW in verdict.notes:
            verdict = self._bridged(verdict, rule) or verdict
        return self._accepted(replace(verdict, against=self.baseline.shown))

    def _guards_compared(self, rule: Forgetting) -> Verdict:
        """The verdict on the candidate's guards, by the base and by the baseline."""
        iterations, seed_runs = self._logged
        candidate = Side(self.candidate, runs_of(self.candidate, iterations, seed_runs))
        references: list[Reference] = []
        if "base" in rule.against:
            bases = self.log.view.bases()
            found = base_of(bases, self.candidate)
            side = Side(base := found.as_iteration(), (base,)) if found else None
            why = "" if found else why_no_base(bases, self.candidate)
            references.append(Reference("base", side, why, fails=True))
        if "baseline" in rule.against:
            baseline = self.baseline.iteration
            why = self._why_not_against(baseline)
            if baseline is None or why:
                references.append(Reference("baseline", why=why))
            else:
                old, candidate = self._sides(baseline, iterations, seed_runs)
                references.append(Reference("baseline", old))
        groups = groups_of(iterations, seed_runs)
        return replace(
            judge_guards(candidate, references, groups, rule), against=self.baseline.shown
        )

    def _why_not_against(self, baseline: Iteration | None) -> str:
        """Why a guard is not compared with the baseline; empty if it is."""
        if self.baseline.unlogged:
            return self.baseline.unlogged
        if baseline is None or self.baseline.view is None:
            return self.baseline.why_none or "nothing is committed yet"
        if self.baseline.is_version(self.candidate):
            return f"it is the version committed at {self.baseline.shown}"
        return self._contradiction(baseline)

    def _bridged(self, verdict: Verdict, rule: Regression) -> Verdict | None:
        """The verdict where the log leads from the baseline's eval set to the candidate's.

        An iteration that is trained as the baseline and measured as the candidate takes the
        baseline's place. A version that was accepted later, elsewhere, with the candidate's eval
        set shows that it is not the candidate's change that leaves nothing to compare.
        """
        candidate, baseline, newest = self.candidate, self.baseline.iteration, self.baseline.newest
        assert baseline is not None
        iterations, seed_runs = self._logged
        here = decisive(candidate.environment)
        for bridge in reversed(iterations):
            if (
                trained_alike(bridge, baseline)
                and measured_alike(bridge, candidate)
                and decisive(bridge.environment) == here
                and not self._contradiction(bridge)
            ):
                old, new = self._sides(bridge, iterations, seed_runs)
                groups = groups_of(iterations, seed_runs)
                found = compare(new, old, None, groups, rule, self.set_metrics)
                note = f"compared with {bridge.name}: {baseline.name}, measured as now"
                return replace(found, notes=(note, *found.notes))
        if newest is not None and measured_alike(newest, candidate):
            notes = tuple(note for note in verdict.notes if note != TRAINED_ANEW)
            return replace(verdict, ok=verdict.kind not in rule.fail_on, notes=notes)
        return None

    def _contradiction(self, baseline: Iteration) -> str:
        """Why an iteration's figures are not to be compared with; empty if they are sound.

        A baseline, or what takes its place, whose figures were edited would let a worse candidate
        pass. A log that still has the same record is an error; one that replaced it mends it.
        """
        record, *_ = self.log.files(baseline)
        try:
            verify(baseline, record)
        except DamagedLogError as error:
            if record.name in self.log.view.names:
                raise
            return f"the log at {self.baseline.shown} is damaged: {error.where}: {error.why}"
        return ""

    @property
    def _damages(self) -> tuple[str, ...]:
        """What to tell of damaged files at the baseline's commit."""
        view = self.baseline.view
        return view.notes(self.baseline.shown) if isinstance(view, MendedView) else ()

    def _accepted(self, verdict: Verdict) -> Verdict:
        """The verdict, made passing if the user accepted the candidate by hand."""
        if verdict.ok or verdict.kind == "incomplete" or not self._is_accepted_by_hand:
            return verdict
        return replace(verdict, ok=True, because=f"accepted by hand; {verdict.because}")

    @property
    def _is_accepted_by_hand(self) -> bool:
        """Whether the user accepted the candidate in place of this baseline."""
        current = current_judgements(self.log.view.judgements())
        given = [
            j
            for j in current
            if j.by == "hand" and j.kind != RETIRED and j.candidate == self.candidate.id
        ]
        baseline = self.baseline.iteration
        covered = [covered_by(judgement) for judgement in given]
        return any(baseline is None or not ids or baseline.id in ids for ids in covered)

    @property
    def _logged(self) -> tuple[tuple[Iteration, ...], tuple[SeedRun, ...]]:
        """The iterations and seed runs of the log as it is now and at the baseline's commit."""
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
        """Baseline and candidate with their runs, each run on one side only.

        If both have the same settings, a run is the candidate's in two cases: it was trained for
        the candidate; or the environment changed since the baseline, and it was trained in the new
        one. A run of `--ftloop-retrain-baseline` is always the baseline's.
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
            # `ftloop calibrate` may have trained the candidate's seed for the baseline before.
            return run.iteration == candidate.id or run.fingerprint == candidate.fingerprint

        # A run on both sides would make them look more alike than they are.
        own = [run for run in seed_runs if is_candidates(run)]
        others = [run for run in iterations if not is_candidates(run)]
        old = runs_of(baseline, others, [run for run in seed_runs if not is_candidates(run)])
        return Side(baseline, old), Side(candidate, runs_of(candidate, (), own))


def is_in_doubt(verdict: Verdict, rule: Regression = DEFAULT_REGRESSION) -> bool:
    """Whether a metric may be worse, so that more seeds could prove a regression.

    Nearly every training moves a guard a little, and provably so. One that moved by less than what
    fails the gate is not in doubt.
    """
    return any(
        change.test.p_worse <= IN_DOUBT
        and not (isinstance(rule, Forgetting) and not could_fail(change, rule))
        for change in _judged(verdict)
    )


def _judged(verdict: Verdict) -> tuple[Change, ...]:
    """The changes that decide: against the baseline and against the anchor."""
    return (*verdict.changes, *verdict.slide)


def is_accepted(judgement: Judgement) -> bool:
    """Whether a judgement accepts its iteration, so that the holdout is opened for it."""
    return judgement.passed and (judgement.by == "hand" or judgement.kind in RAISES_ANCHOR)


def _nothing_to_compare(candidate: Iteration, baseline: Baseline, rule: Regression) -> Verdict:
    # A strict loop passes as a first version only if it never had a log: deleting the log, or
    # leaving it under another name, must not be a way past the comparison.
    is_first = baseline.is_first and not baseline.had_log
    why = baseline.why_none or f"nothing of the log at {baseline.shown} can be read"
    return Verdict(
        kind="not comparable",
        ok=is_first or "not comparable" not in rule.fail_on,
        because=f"{why}, so there is nothing to compare with yet",
        candidate=candidate.name,
        against=baseline.shown,
        alpha=rule.alpha,
        total=len(candidate.examples),
    )


def _without_names(verdict: Verdict) -> dict[str, object]:
    """The verdict's record without the keys that the judgement has itself."""
    own = {"kind", "ok", "because", "candidate", "baseline", "context"}
    return {key: value for key, value in verdict.as_record().items() if key not in own}


def _is_known(judgement: Judgement, known: Sequence[Judgement]) -> bool:
    """Whether the log has this judgement already.

    A passing one is known if it equals the only current one, a failing one if it equals any.
    """
    current = current_judgements(known)
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
    # Two current judgements (a merge) are still to be replaced by one.
    return len(current) == 1 and current[0] in same
