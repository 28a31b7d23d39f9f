"""Comparing a candidate: which runs stand on which side, more seeds in doubt, what is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pytest_ftloop.gate.comparison as comparison_module
from pytest_ftloop.config.gates import DEFAULT_REGRESSION, Regression
from pytest_ftloop.core.records import Cost, SeedRun
from pytest_ftloop.gate.baseline import Baseline
from pytest_ftloop.gate.compare import compare
from pytest_ftloop.gate.comparison import IN_DOUBT, Comparison, is_accepted, is_in_doubt
from pytest_ftloop.gate.holdout import report_of
from pytest_ftloop.gate.judgements import anchor_of, baseline_of, current_judgements
from pytest_ftloop.log import ImprovementLog
from tests.fakes import (
    fake_example,
    fake_holdout_use,
    fake_judgement,
    fake_measured,
    fake_seed_run,
    fake_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.compare import Side
    from pytest_ftloop.gate.verdict import Verdict
from tests.gate.comparison_cases import ELSEWHERE, OLD, N, log_of, losses, put, run_of

RULE = Regression(metrics=("eval_loss",))


WORSE, DOUBTFUL, CLEAR = run_of(2, 1.4), run_of(3, 1.045), run_of(4, 0.98)


@dataclass
class FakeSeeds:
    """A seed trainer whose runs have a given mean loss; asked for nothing but what is missing."""

    log: ImprovementLog
    mean: float = 1.045
    environment: Mapping[str, str] | None = None
    asked: list[tuple[str, int, str]] = field(default_factory=list)

    def train(self, iteration: Iteration, wanted: int, role: Any) -> tuple[SeedRun, ...]:
        self.asked.append((iteration.id, wanted, role))
        known = [run for run in self.log.view.seed_runs() if run.iteration == iteration.id]
        runs = (
            fake_seed_run(iteration, 42 + n, fake_table(losses(self.mean, 50 + n)), role=role)
            for n in range(1 + len(known), wanted)
        )
        return tuple(self.log.append_seed_run(run) for run in runs)


def against(log: ImprovementLog, **fields: Any) -> Baseline:
    """The baseline as a commit with this log has it."""
    view = log.view
    iterations, judgements = view.iterations(), view.judgements()
    iteration = baseline_of(iterations, judgements, "eval_loss")
    anchor = anchor_of(iterations, judgements, "eval_loss")
    if anchor and iteration and anchor.id == iteration.id:
        anchor = None
    return replace(Baseline("HEAD (1234567)", "1" * 40, None, view, iteration, anchor), **fields)


@dataclass
class Case:
    """A log as it is now, a committed one, and the judgement of one candidate."""

    tmp_path: Path
    committed: Sequence[Any] = (OLD,)
    now: Sequence[Any] = ()

    def comparison(self, candidate: Iteration, *, seeds: Any = None, **fields: Any) -> Comparison:
        committed = log_of(self.tmp_path / "committed", *self.committed)
        self.log = log_of(self.tmp_path / "now", *self.committed, *self.now)
        kept = put(self.log, candidate)
        if seeds == "fake":
            seeds = FakeSeeds(self.log)
        return Comparison(self.log, kept, against(committed, **fields), seeds and seeds.train)


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Side, Side, Side | None]]:
    """What was compared: the candidate's side, the baseline's, the anchor's."""
    seen: list[tuple[Side, Side, Side | None]] = []

    def watched(new: Side, old: Side, past: Side | None, *others: Any) -> Verdict:
        seen.append((new, old, past))
        return compare(new, old, past, *others)

    monkeypatch.setattr(comparison_module, "compare", watched)
    return seen


def keys(side: Side) -> list[tuple[int, str]]:
    return [(run.seed, run.environment["device"]) for run in side.runs]


# more seeds


@pytest.mark.parametrize(
    ("candidate", "trains"), [(CLEAR, False), (OLD, False), (DOUBTFUL, True), (WORSE, True)]
)
def test_more_seeds_only_in_doubt(tmp_path: Path, candidate: Iteration, trains: bool) -> None:
    """A candidate whose p is above 0.20 is never trained again; any other to three seeds."""
    comparison = Case(tmp_path).comparison(candidate)
    seeds = FakeSeeds(comparison.log)
    comparison = replace(comparison, train_seeds=seeds.train)
    verdict = comparison.verdict(RULE)
    assert ([(candidate.id, 3, "gate")] if trains else []) == seeds.asked
    if verdict.changes:
        assert (3 if trains else 1) == verdict.changes[0].test.k_candidate


@pytest.mark.parametrize(("p", "doubtful"), [(0.19, True), (0.21, False)])
def test_doubt_begins_at_a_fifth(tmp_path: Path, p: float, doubtful: bool) -> None:
    """p before Holm's correction, of any deciding metric, on either comparison."""
    verdict = Case(tmp_path).comparison(DOUBTFUL).verdict(RULE)
    change = verdict.changes[0]
    size = next(
        step / 1e5
        for step in range(100_000)
        if replace(change.test, change=step / 1e5).p_worse <= p
    )
    shifted = replace(change, test=replace(change.test, change=size))
    assert abs(shifted.test.p_worse - p) < 0.001
    assert doubtful is (shifted.test.p_worse <= IN_DOUBT)
    assert doubtful is is_in_doubt(replace(verdict, changes=(shifted,)))
    assert doubtful is is_in_doubt(replace(verdict, changes=(), slide=(shifted,)))
    assert not is_in_doubt(replace(verdict, changes=()))


def test_doubt_is_settled(tmp_path: Path) -> None:
    """A drop that one seed can't prove is found with three, where the seed noise is known."""
    noise = [fake_seed_run(OLD, 42 + n, fake_table(losses(1.0, 70 + n))) for n in range(1, 5)]
    case = Case(tmp_path, committed=(OLD, *noise))
    alone = case.comparison(replace(DOUBTFUL)).verdict(replace(RULE, alpha=1e-4))
    assert "incomplete" == alone.kind
    comparison = case.comparison(DOUBTFUL)
    seeds = FakeSeeds(comparison.log)
    assert (
        "regressed"
        == replace(comparison, train_seeds=seeds.train).verdict(replace(RULE, alpha=1e-4)).kind
    )


def test_three_seeds_are_not_trained_again(tmp_path: Path) -> None:
    """A second judgement finds the seeds, and says the same."""
    comparison = Case(tmp_path).comparison(DOUBTFUL, seeds="fake")
    first = comparison.verdict(RULE)
    assert 2 == len(comparison.log.view.seed_runs())
    assert first == comparison.verdict(RULE)
    assert 2 == len(comparison.log.view.seed_runs())


def test_seeds_that_decide_are_missing(tmp_path: Path) -> None:
    """Where nothing may be trained, a doubt that the gate's seeds would settle is incomplete."""
    comparison = Case(tmp_path).comparison(DOUBTFUL)
    verdict = comparison.verdict(RULE)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    assert "the log has 1 of the 3 seeds that decide" in verdict.because
    commit = comparison.baseline.commit[:7]
    assert f"run pytest --ftloop --ftloop-baseline {commit} and commit" in verdict.because
    outside = replace(comparison, baseline=replace(comparison.baseline, commit=""))
    assert "run pytest --ftloop and commit" in outside.verdict(RULE).because
    assert 1 == verdict.changes[0].test.k_candidate
    # A gate that no loop file states trained none.
    assert "incomplete" != comparison.verdict(DEFAULT_REGRESSION).kind
    # With the seeds it is judged.
    FakeSeeds(comparison.log).train(DOUBTFUL, 3, "gate")
    assert "incomplete" != comparison.verdict(RULE).kind


@pytest.mark.parametrize("candidate", [CLEAR, OLD])
def test_without_doubt_one_seed_is_complete(tmp_path: Path, candidate: Iteration) -> None:
    """What is not in doubt needs no more seeds."""
    assert Case(tmp_path).comparison(candidate).verdict(RULE).ok


# which runs stand on which side


def test_runs_of_both_logs(tmp_path: Path, sides: Any) -> None:
    """Seeds count wherever they were logged; those of another environment do not."""
    case = Case(
        tmp_path,
        committed=(OLD, fake_seed_run(OLD, 43)),
        now=[fake_seed_run(OLD, 44), fake_seed_run(OLD, 45, environment=ELSEWHERE)],
    )
    test = case.comparison(CLEAR).verdict(RULE).changes[0].test
    assert (3, 1) == (test.k_baseline, test.k_candidate)


def test_same_settings_with_another_seed(tmp_path: Path, sides: Any) -> None:
    """Candidate and baseline of one group share no run: the candidate is none of the baseline's."""
    reseeded = run_of(5, 1.4, seed=43, group=OLD.group, training={"seed": 43})
    before = fake_seed_run(OLD, 43, reseeded.examples, fingerprint=reseeded.fingerprint)
    own = fake_seed_run(reseeded, 44, fake_table(losses(1.4, 44)))
    case = Case(tmp_path, committed=(OLD, before, fake_seed_run(OLD, 45)), now=[own])
    verdict = case.comparison(reseeded).verdict(RULE)
    ((new, old, _),) = sides
    assert [(43, "cpu"), (44, "cpu")] == keys(new)
    assert [(42, "cpu"), (45, "cpu")] == keys(old)
    assert pytest.approx(0.4, abs=0.02) == verdict.changes[0].test.change


def test_retrained_with_other_figures(tmp_path: Path) -> None:
    """The same settings and seed that now give other figures are compared with what they gave."""
    again = replace(WORSE, number=1, id=OLD.id, fingerprint=OLD.fingerprint, group=OLD.group)
    verdict = Case(tmp_path).comparison(again).verdict(RULE)
    assert "regressed" == verdict.kind
    assert pytest.approx(0.4, abs=0.02) == verdict.changes[0].test.change


def test_retrained_on_another_machine(tmp_path: Path) -> None:
    """It is not compared with itself: there is no run of the baseline in this environment."""
    again = replace(OLD, environment=ELSEWHERE, cost=Cost(1.0, 2, 3))
    verdict = Case(tmp_path).comparison(again).verdict(RULE)
    assert "environment changed (device cpu -> cuda)" == verdict.because


@pytest.mark.parametrize("same", [True, False])
def test_baseline_trained_here(tmp_path: Path, sides: Any, same: bool) -> None:
    """What was trained to stand for the baseline in this environment does so."""
    candidate = replace(OLD if same else CLEAR, environment=ELSEWHERE, cost=Cost(1.0, 2, 3))
    case = Case(tmp_path)
    comparison = case.comparison(candidate)
    assert () == comparison.baseline_runs()
    asked: list[Comparison] = []

    def retrain(comparison: Comparison) -> None:
        asked.append(comparison)
        run = fake_seed_run(OLD, 42, role="baseline", environment=ELSEWHERE)
        comparison.log.append_seed_run(replace(run, fingerprint=OLD.fingerprint))

    comparison = replace(comparison, retrain_baseline=retrain)
    assert "not comparable" != comparison.verdict(RULE).kind
    comparison.verdict(RULE)
    assert 1 == len(asked)
    new, old, _ = sides[-1]
    # The sides hold what was run anywhere; `compare` takes what was run here.
    assert [(42, "cuda")] == keys(new)
    assert [(42, "cpu"), (42, "cuda")] == keys(old)


def test_anchor_of_the_candidates_settings(tmp_path: Path, sides: Any) -> None:
    """The best ever accepted, trained once more, can't have slid from itself."""
    first = fake_judgement(OLD, kind="first")
    case = Case(tmp_path, committed=(OLD, CLEAR))
    again = run_of(5, 1.0, group=OLD.group, training={"seed": 43})
    comparison = case.comparison(again)
    baseline = replace(comparison.baseline, iteration=CLEAR, anchor=OLD)
    assert first.passed
    verdict = replace(comparison, baseline=baseline).verdict(RULE)
    assert verdict.anchor is None
    assert sides[0][2] is None


def test_version_itself(tmp_path: Path) -> None:
    """The committed version judged against itself: unchanged, without any statistics."""
    verdict = Case(tmp_path).comparison(OLD, seeds="fake").verdict(RULE)
    assert ("unchanged", True, ()) == (verdict.kind, verdict.ok, verdict.changes)
    assert "it is the version committed at HEAD (1234567)" == verdict.because
    assert (N, N) == (verdict.common, verdict.total)


def test_broken_version_itself(tmp_path: Path) -> None:
    """A NaN fails, also where the committed version has it already."""
    rows = (replace(OLD.examples[0], loss=math.nan), *OLD.examples[1:])
    broken = fake_measured(1, rows)
    broken = replace(broken, metrics=dict(broken.metrics) | {"eval_loss": math.nan})
    assert "incomplete" == Case(tmp_path, committed=(broken,)).comparison(broken).verdict(RULE).kind


# nothing to compare with


def test_first_version(tmp_path: Path) -> None:
    """Nothing was committed: it passes, strict or not, and is kept as the first."""
    comparison = Case(tmp_path, committed=()).comparison(OLD, why_none="no log of x", is_first=True)
    verdict = comparison.verdict(replace(RULE, fail_on=("not comparable",)))
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert "no log of x, so there is nothing to compare with yet" == verdict.because
    kept = comparison.keep(verdict)
    assert kept is not None
    assert ("first", True, None, "nothing was committed before it") == (
        kept.kind,
        kept.passed,
        kept.baseline,
        kept.because,
    )
    assert comparison.keep(verdict) is None


def test_broken_first_version(tmp_path: Path) -> None:
    """A NaN fails with nothing to compare with too, and never becomes the baseline."""
    rows = (fake_example("e1"), fake_example("e2", loss=math.inf))
    comparison = Case(tmp_path, committed=()).comparison(fake_measured(1, rows), is_first=True)
    verdict = comparison.verdict(RULE)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    assert "the loss of 1 of 2 examples is not finite (e2)" in verdict.because
    kept = comparison.keep(verdict)
    assert kept is not None
    assert ("incomplete", False) == (kept.kind, kept.passed)
    assert () == current_judgements(comparison.log.view.judgements())


def test_no_repository(tmp_path: Path) -> None:
    """What passes outside of version control is no committed version: nothing is kept."""
    comparison = Case(tmp_path, committed=()).comparison(OLD, why_none="no repository")
    verdict = comparison.verdict(RULE)
    assert verdict.ok
    assert not comparison.verdict(replace(RULE, fail_on=("not comparable",))).ok
    assert comparison.keep(verdict) is None


def test_mended_figure_is_found(tmp_path: Path) -> None:
    """A committed record whose figure is not that of its table is told by its file."""
    forged = replace(OLD, metrics=dict(OLD.metrics) | {"eval_loss": 9.0})
    with pytest.raises(Exception, match=rf"{OLD.name}-[0-9a-f]{{4}}\.yaml.*\n?.*it says eval_loss"):
        Case(tmp_path, committed=(forged,)).comparison(CLEAR).verdict(RULE)


# what is kept


def test_passing_judgement_takes_the_place_of_what_stood(tmp_path: Path) -> None:
    """It names what it is compared with, why, and the judgements that it is over."""
    first = fake_judgement(OLD, kind="first")
    case = Case(tmp_path, committed=(OLD, first))
    comparison = case.comparison(CLEAR)
    (standing,) = current_judgements(comparison.log.view.judgements())
    verdict = comparison.verdict(RULE)
    kept = comparison.keep(verdict)
    assert kept is not None
    assert (CLEAR.id, OLD.id, "gate", verdict.kind, True, verdict.because) == (
        kept.candidate,
        kept.baseline,
        kept.by,
        kept.kind,
        kept.passed,
        kept.because,
    )
    assert (standing.name,) == kept.over
    (found,) = current_judgements(comparison.log.view.judgements())
    assert kept == replace(found, verdict=kept.verdict)
    assert verdict.as_record()["changes"][0]["p"] == pytest.approx(
        found.verdict["changes"][0]["p"], rel=1e-4
    )


def test_failing_judgement_is_kept_and_stands_for_nothing(tmp_path: Path) -> None:
    """Rejected candidates are in the log too."""
    case = Case(tmp_path, committed=(OLD, fake_judgement(OLD, kind="first")))
    comparison = case.comparison(WORSE)
    kept = comparison.keep(comparison.verdict(RULE))
    assert kept is not None
    assert (False, "regressed", ()) == (kept.passed, kept.kind, kept.over)
    current = current_judgements(comparison.log.view.judgements())
    assert [OLD.id] == [judgement.candidate for judgement in current]


@pytest.mark.parametrize("candidate", [WORSE, CLEAR, DOUBTFUL], ids=lambda it: it.id)
def test_keeping_twice_writes_nothing_new(tmp_path: Path, candidate: Iteration) -> None:
    """The same judgement again is known."""
    comparison = Case(tmp_path).comparison(candidate, seeds="fake")
    assert comparison.keep(comparison.verdict(RULE)) is not None
    written = sorted(comparison.log.folder.rglob("*"))
    for _ in range(2):
        assert comparison.keep(comparison.verdict(RULE)) is None
    assert written == sorted(comparison.log.folder.rglob("*"))


def test_merged_branches_are_joined(tmp_path: Path) -> None:
    """After a merge the next judgement takes both places, once."""
    left, right = fake_judgement(CLEAR, kind="improved"), fake_judgement(OLD, kind="first")
    case = Case(tmp_path, committed=(OLD, right), now=[CLEAR, left])
    comparison = case.comparison(DOUBTFUL, seeds="fake")
    kept = comparison.keep(comparison.verdict(RULE))
    assert kept is not None
    assert 2 == len(kept.over)
    assert comparison.keep(comparison.verdict(RULE)) is None


def test_candidate_that_is_the_baseline_is_not_judged(tmp_path: Path) -> None:
    """The committed version needs no judgement, nor does its retraining."""
    comparison = Case(tmp_path).comparison(OLD)
    assert comparison.keep(comparison.verdict(RULE)) is None
    again = replace(WORSE, number=1, id=OLD.id, fingerprint=OLD.fingerprint, group=OLD.group)
    comparison = Case(tmp_path / "again").comparison(again)
    assert comparison.keep(comparison.verdict(RULE)) is None


def test_accepted_by_hand(tmp_path: Path) -> None:
    """A regression that the user accepted passes, says so, and is not judged over again."""
    comparison = Case(tmp_path).comparison(WORSE)
    assert not comparison.verdict(RULE).ok
    comparison.log.append_judgement(fake_judgement(WORSE, kind="accepted", by="hand"))
    verdict = comparison.verdict(RULE)
    assert ("regressed", True) == (verdict.kind, verdict.ok)
    assert verdict.because.startswith("accepted by hand; eval_loss ")
    assert comparison.keep(verdict) is None


@pytest.mark.parametrize(
    ("kind", "by", "passed", "accepted"),
    [
        ("improved", "gate", True, True),
        ("first", "gate", True, True),
        ("accepted", "hand", True, True),
        ("unchanged", "gate", True, False),
        ("inconclusive", "gate", True, False),
        ("not comparable", "gate", True, False),
        ("improved", "gate", False, False),
    ],
)
def test_what_the_holdout_is_opened_for(kind: str, by: Any, passed: bool, accepted: bool) -> None:
    """Proven gains, first versions and what a hand accepted; not what merely passes."""
    assert accepted is is_accepted(fake_judgement(OLD, kind=kind, by=by, passed=passed))


def test_wear_counts_judgements_by_this_eval_set(tmp_path: Path) -> None:
    """Those of iterations that were measured on another eval set wore that one out."""
    data = {"eval": {"rows": N, "sha256": "renewed"}}
    elsewhere = [
        put(log_of(tmp_path / "unused"), fake_judgement(WORSE, kind="regressed")),
        put(log_of(tmp_path / "unused"), fake_judgement("ffffffff", kind="regressed")),
    ]
    case = Case(tmp_path, committed=(replace(OLD, data=data), WORSE), now=elsewhere)
    comparison = case.comparison(replace(CLEAR, data=data))
    comparison.log.append_holdout_use(fake_holdout_use(CLEAR, CLEAR.examples))
    verdict = comparison.verdict(RULE)
    comparison.keep(verdict)
    report = comparison.holdout(verdict)
    assert report is not None
    # The own one, and the one whose iteration is gone: it may have been of this set.
    assert 2 == report.judged
    uses = comparison.log.view.holdout_uses()
    everything = report_of(CLEAR, uses, verdict, None, comparison.log.view.judgements())
    assert everything is not None
    assert 3 == everything.judged
