"""Baseline and candidate to a verdict: what is compared, what it says, what fails."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.gate.compare import Side, compare, power_text
from pytest_ftloop.gate.statistic import holm_adjusted
from pytest_ftloop.report.diff import to_json
from tests.fakes import fake_measured, fake_seed_run, fake_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import ExampleResult, Iteration, SeedRun
    from pytest_ftloop.core.runs import Measured
    from pytest_ftloop.gate.verdict import Verdict

N = 200
RULE = Regression()
LOSS_ONLY = Regression(metrics=("eval_loss",))
GAP = Regression(metrics=("overfit_gap",))
ELSEWHERE = {"device": "cuda", "torch": "2.13.0"}


def losses(mean: float = 1.0, noise: int = 0, n: int = N) -> list[float]:
    """Losses whose examples differ widely, and by `noise` in how they differ between runs."""
    shared, own = random.Random(0), random.Random(noise)
    return [mean * (shared.uniform(0.5, 1.5) + 0.02 * own.gauss(0, 1)) for _ in range(n)]


def run_of(number: int, mean: float = 1.0, failing: Sequence[int] = (), **fields: Any) -> Iteration:
    return fake_measured(number, fake_table(losses(mean, number), failing), **fields)


def judged(
    old: Iteration,
    new: Iteration,
    rule: Regression = RULE,
    *,
    seed_runs: Sequence[SeedRun] = (),
    others: Sequence[Iteration] = (),
    anchor: Iteration | None = None,
) -> Verdict:
    """The verdict as `Comparison` asks for it."""
    iterations = [old, new, *others]

    def side(iteration: Iteration) -> Side:
        return Side(iteration, runs_of(iteration, iterations, seed_runs))

    groups = groups_of(iterations, seed_runs)
    return compare(side(new), side(old), side(anchor) if anchor else None, groups, rule)


def calibrated(iteration: Iteration, mean: float = 1.0, seeds: int = 5) -> list[SeedRun]:
    """Runs of the same settings with other seeds, alike but for a little noise."""
    rows = [fake_table(losses(mean, 100 + seed)) for seed in range(1, seeds)]
    return [fake_seed_run(iteration, 42 + seed, row) for seed, row in enumerate(rows, start=1)]


def kinds(verdict: Verdict) -> dict[str, str]:
    return {change.metric: change.kind for change in verdict.changes}


# what the verdict is


def test_same_figures() -> None:
    """Nothing changed: unchanged, and it states the smallest regression that would be detected."""
    old = run_of(1)
    quiet = [fake_seed_run(old, seed) for seed in range(43, 47)]
    verdict = judged(old, fake_measured(2, old.examples), seed_runs=quiet)
    assert ("unchanged", True) == (verdict.kind, verdict.ok)
    for change in verdict.changes:
        assert pytest.approx(change.baseline, abs=1e-12) == change.candidate
        assert pytest.approx(0.0, abs=1e-12) == change.test.change
    assert "200 examples, 1 seed against 5: a regression of " in verdict.because


def test_large_drop() -> None:
    """A loss 20% higher on every example regresses on one seed, though no seed noise is known."""
    verdict = judged(run_of(1), run_of(2, 1.25))
    assert ("regressed", False) == (verdict.kind, verdict.ok)
    assert "regressed" == kinds(verdict)["eval_loss"]
    assert verdict.because.startswith("eval_loss ")
    assert "pass_rate" not in verdict.because


def test_gain() -> None:
    """Much lower everywhere: improved, and said why."""
    verdict = judged(run_of(1), run_of(2, 0.75))
    assert ("improved", True) == (verdict.kind, verdict.ok)


def test_one_worse_and_one_better() -> None:
    """A regression is not bought off by a gain elsewhere."""
    verdict = judged(run_of(1), run_of(2, 0.7, range(100)))
    assert {"eval_loss": "improved", "pass_rate": "regressed"} == kinds(verdict)
    assert ("regressed", False) == (verdict.kind, verdict.ok)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("percent", range(0, 12, 2))
def test_verdict_follows_p(percent: int, turned: bool) -> None:
    """Regressed and improved are said at Holm's p of alpha or less, and never above it."""
    old, new = run_of(1), run_of(2, 1 + percent / 100)
    old, new = (new, old) if turned else (old, new)
    verdict = judged(old, new, seed_runs=[*calibrated(old), *calibrated(new, 1 + percent / 100)])
    adjusted = holm_adjusted([change.test.p_worse for change in verdict.changes])
    better = holm_adjusted([change.test.p_better for change in verdict.changes])
    for change, p_worse, p_better in zip(verdict.changes, adjusted, better, strict=True):
        assert (p_worse if change.test.change > 0 else p_better) == change.p
        assert (change.kind == "improved") == (p_better <= RULE.alpha)
        proven = p_worse <= RULE.alpha and change.test.change >= 0.01 * change.baseline
        assert (change.kind == "regressed") == proven


def test_holm_over_the_metrics() -> None:
    """A p below alpha alone is not enough where two metrics are judged together."""
    old = run_of(1)
    noise = calibrated(old)
    means = (1 + step / 1000 for step in range(100))
    for mean in means:
        new = run_of(2, mean)
        alone = judged(old, new, LOSS_ONLY, seed_runs=noise)
        both = judged(old, new, seed_runs=noise)
        assert alone.changes[0].test == both.changes[0].test
        if alone.kind == "regressed":
            assert "regressed" != both.kind
            assert pytest.approx(min(1.0, 2 * alone.changes[0].p)) == both.changes[0].p
            return
    pytest.fail("no mean regresses")


def test_sure_but_small_drop() -> None:
    """A drop below min_regression never fails, however sure it is."""
    old, new = run_of(1), fake_measured(2, fake_table([1.009 * x for x in losses(1.0, 1)]))
    quiet = [fake_seed_run(old, seed) for seed in range(43, 60)]
    quiet += [fake_seed_run(new, seed) for seed in range(43, 60)]
    change = judged(old, new, LOSS_ONLY, seed_runs=quiet).changes[0]
    assert change.p < 0.01
    assert "unchanged" == change.kind
    strict = replace(LOSS_ONLY, min_regression=0.005)
    assert "regressed" == judged(old, new, strict, seed_runs=quiet).kind


def test_inconclusive_says_what_decides() -> None:
    """Nothing is proven, yet more than max_regression is possible: it says how to settle it."""
    verdict = judged(run_of(1), run_of(2, 1.02))
    assert ("inconclusive", True) == (verdict.kind, verdict.ok)
    assert "no regression is proven, but it could be worse by up to 0." in verdict.because
    assert "more than max_regression (5%) allows" in verdict.because
    assert verdict.because.endswith(" would decide")
    lenient = replace(RULE, max_regression=0.5)
    assert "unchanged" == judged(run_of(1), run_of(2, 1.02), lenient).kind


@pytest.mark.parametrize("kind", ["inconclusive", "not comparable"])
def test_strictness(kind: str) -> None:
    """fail_on makes a verdict fail that passes otherwise, and no other one."""
    environment = {} if kind == "inconclusive" else {"environment": ELSEWHERE}
    old, new = run_of(1), run_of(2, 1.02, **environment)
    assert (kind, True) == (judged(old, new).kind, judged(old, new).ok)
    for fail_on in ("inconclusive", "not comparable"):
        verdict = judged(old, new, replace(RULE, fail_on=(fail_on,)))
        assert (kind, kind != fail_on) == (verdict.kind, verdict.ok)


def test_one_example() -> None:
    """Nothing is ever proven by a single example, and nothing is infinite in what is said."""
    old, new = fake_measured(1, fake_table([1.0])), fake_measured(2, fake_table([9.0], [0]))
    verdict = judged(old, new)
    assert ("inconclusive", True) == (verdict.kind, verdict.ok)
    assert "no number of seeds would decide" in verdict.because


def test_fixed_and_broken_examples() -> None:
    """An example flips by most seeds of both sides, and by the runs whose outputs are shown."""
    old, new = run_of(1, failing=[0, 1, 2]), run_of(2, failing=[2, 3])
    verdict = judged(old, new)
    assert (("e000", "e001"), ("e003",)) == (verdict.fixed, verdict.broken)
    rows = fake_table(losses(1.0, 2), [0, 2, 4])
    more = [fake_seed_run(new, seed, rows) for seed in (43, 44)]
    verdict = judged(old, new, seed_runs=more)
    assert (("e001",), ()) == (verdict.fixed, verdict.broken)  # the shown run passes e004


def test_seeds_are_averaged_for_each_example() -> None:
    """Each side's figure is the mean over its seeds, the test's n the examples."""
    old, new = run_of(1), run_of(2, 1.0)
    rows = [fake_table(losses(mean, 7)) for mean in (1.2, 1.4)]
    more = [fake_seed_run(new, 43 + n, row) for n, row in enumerate(rows)]
    change = judged(old, new, LOSS_ONLY, seed_runs=more).changes[0]
    means = [token_mean_loss(run.examples) for run in (new, *more)]
    assert pytest.approx(sum(means) / 3) == change.candidate
    assert pytest.approx(token_mean_loss(old.examples)) == change.baseline
    assert (1, 3, N) == (change.test.k_baseline, change.test.k_candidate, change.test.n)
    assert 2 == change.test.nu


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 60)), min_size=1, max_size=20))
def test_figures_are_the_exact_token_means(pairs: list[tuple[float, int]]) -> None:
    """The compared loss of the whole set is what the record and a plain script say."""
    rows = [
        replace(row, loss=loss, tokens=tokens)
        for row, (loss, tokens) in zip(fake_table([1.0] * len(pairs)), pairs, strict=True)
    ]
    old = fake_measured(1, rows)
    rule = replace(LOSS_ONLY, max_regression=0.99)
    change = judged(old, fake_measured(2, rows[::-1]), rule).changes[0]
    assert pytest.approx(token_mean_loss(rows), abs=1e-12) == change.baseline == change.candidate


# the eval set changed


def test_common_part_of_a_changed_eval_set() -> None:
    """Only examples with the same id and content count, and it is said how many those are."""
    old = fake_measured(1, fake_table(losses(1.0, 1, 100)))
    kept = fake_table(losses(1.0, 1, 100))[10:]
    changed = replace(kept[0], content="another", loss=400.0)
    new = fake_measured(2, (changed, *kept[1:], *fake_table([400.0] * 20, start=500)))
    verdict = judged(old, new, seed_runs=calibrated_on(old))
    assert "unchanged" == verdict.kind
    assert (89, 110) == (verdict.common, verdict.total)
    note = "eval set changed: 89 of 110 examples compared (1 changed, 20 new, 10 gone)"
    assert note in verdict.notes


def calibrated_on(iteration: Iteration) -> list[SeedRun]:
    return [fake_seed_run(iteration, seed) for seed in range(43, 48)]


def test_nothing_in_common() -> None:
    """Another eval set altogether: not comparable, with the share of nothing."""
    new = fake_measured(2, fake_table(losses(), start=500))
    verdict = judged(run_of(1), new)
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert "no example is in common with the baseline" == verdict.because
    assert (0, N) == (verdict.common, verdict.total)


@pytest.mark.parametrize("candidate_lacks_it", [True, False])
def test_example_lost_of_the_same_eval_set(candidate_lacks_it: bool) -> None:
    """The hash of the eval set is the same, but a table has another example: incomplete."""
    data = {"eval": {"rows": 3, "sha256": "same"}}
    one = fake_measured(1, fake_table([1.0] * 3), data=data)
    other = fake_measured(2, fake_table([1.0] * 3, start=1), data=data)
    verdict = judged(one, other) if candidate_lacks_it else judged(other, one)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    lost = "e000" if candidate_lacks_it else "e003"
    because = f"the eval set is the same, but example {lost} is not in both logs"
    assert because == verdict.because


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"loss": math.nan}, "the loss of 1 of 200 examples is not finite (e007)"),
        ({"loss": math.inf}, "the loss of 1 of 200 examples is not finite (e007)"),
        ({"passed": None}, "1 of 200 examples were not scored (e007)"),
        (None, "its table has 199 of 200 examples"),
    ],
    ids=str,
)
def test_broken_run(change: dict[str, Any] | None, why: str) -> None:
    """Of the candidate, any seed of it, a hole is a failure; of the baseline nothing is proven."""
    whole, rows = run_of(1), list(fake_table(losses()))
    rows[7:8] = [replace(rows[7], **change)] if change else []
    data = {"eval": {"rows": N, "sha256": "x"}}
    broken = fake_measured(2, rows, data=data)
    verdict = judged(whole, broken)
    assert ("incomplete", False, f"{broken.name}: {why}") == (
        verdict.kind,
        verdict.ok,
        verdict.because,
    )
    new = fake_measured(3, fake_table(losses()), data=data)
    verdict = judged(whole, new, seed_runs=[fake_seed_run(new, 43, rows)])
    assert ("incomplete", f"{new.id} with seed 43: {why}") == (verdict.kind, verdict.because)
    verdict = judged(broken, whole)
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert f"the baseline {broken.name}: {why}" == verdict.because


# what is measured otherwise


def test_scoring_changed() -> None:
    """The pass rate is left out, with the flips, and said so; the loss is compared."""
    verdict = judged(run_of(1), run_of(2, 1.25, range(50), scoring={"scorer": "contains"}))
    assert ["eval_loss"] == [change.metric for change in verdict.changes]
    assert "pass_rate is not compared: scoring changed" in verdict.notes
    assert ((), ()) == (verdict.fixed, verdict.broken)
    assert "regressed" == verdict.kind


def test_tokens_changed() -> None:
    """Another tokenizer: losses by token are not comparable, nor is the gap; passing is."""
    rows = fake_table(losses(5.0), range(80), tokens=7)
    rule = replace(RULE, metrics=("eval_loss", "token_accuracy", "overfit_gap", "pass_rate"))
    verdict = judged(run_of(1), fake_measured(2, rows), rule)
    assert {"pass_rate": "regressed"} == kinds(verdict)
    assert () == verdict.runs
    for name in ("eval_loss", "token_accuracy", "overfit_gap"):
        assert f"{name} is not compared: the tokens of the examples changed" in verdict.notes


def test_nothing_left_to_compare() -> None:
    """Where every metric is left out it is not comparable, and says why of each."""
    rows = fake_table(losses(5.0), tokens=7)
    verdict = judged(run_of(1), fake_measured(2, rows, scoring={"scorer": "contains"}))
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert "the examples changed; pass_rate is not compared: scoring changed" in verdict.because


def test_environment_changed() -> None:
    """Other hardware: not comparable, whatever the figures, and said what changed."""
    verdict = judged(run_of(1), run_of(2, 9.0, environment=ELSEWHERE))
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert "environment changed (device cpu -> cuda)" == verdict.because
    label = {"device": "cpu", "torch": "2.13.0+cpu", "threads": "64"}
    assert "regressed" == judged(run_of(1), run_of(2, 9.0, environment=label)).kind


def test_baseline_trained_in_the_candidates_environment() -> None:
    """A run of the baseline's settings there takes its place; runs elsewhere count on no side."""
    old, new = run_of(1), run_of(2, 1.0, environment=ELSEWHERE)
    there = fake_seed_run(old, 42, role="baseline", environment=ELSEWHERE)
    elsewhere = fake_seed_run(new, 43, fake_table([9.0] * N), environment=old.environment)
    verdict = judged(old, new, LOSS_ONLY, seed_runs=[there, elsewhere])
    assert "not comparable" != verdict.kind
    assert (1, 1) == (verdict.changes[0].test.k_baseline, verdict.changes[0].test.k_candidate)


# A/A groups


def nu(verdict: Verdict, metric: str = "eval_loss") -> int:
    change = verdict.change(metric)
    assert change is not None
    return change.test.nu


def test_groups_on_half_of_the_examples() -> None:
    """An A/A group tells of the seed noise when it has at least half of the common examples."""
    old, new = run_of(1), run_of(2)
    for start, wanted in ((100, 1), (101, 0)):
        other = fake_measured(3, fake_table(losses(), start=start))
        group = [fake_seed_run(other, 43, fake_table(losses(1.0, 9), start=start))]
        verdict = judged(old, new, others=[other], seed_runs=group)
        assert wanted == nu(verdict)


def test_groups_of_another_scoring() -> None:
    """They tell of the noise of the loss, not of that of the pass rate."""
    old, new = run_of(1), run_of(2)
    other = run_of(3, scoring={"scorer": "contains"})
    verdict = judged(old, new, others=[other], seed_runs=calibrated(other))
    assert (4, 0) == (nu(verdict), nu(verdict, "pass_rate"))


def test_broken_groups_tell_nothing() -> None:
    """A seed of other settings that diverged does not stop the comparison."""
    old, new, other = run_of(1), run_of(2), run_of(3)
    rows = (replace(other.examples[0], loss=math.nan), *other.examples[1:])
    verdict = judged(old, new, others=[other], seed_runs=[fake_seed_run(other, 43, rows)])
    assert "incomplete" != verdict.kind
    assert 0 == nu(verdict)


def test_unknown_seed_noise_is_said() -> None:
    """Until replicates tell, the verdict names what it supposes and what sharpens it."""
    old, new = run_of(1), run_of(2)
    (note,) = judged(old, new).notes
    assert "ftloop calibrate measures it" in note
    assert () == judged(old, new, seed_runs=calibrated(old)).notes


# figures of whole runs


def with_figure(iteration: Iteration, **figures: float) -> Iteration:
    return replace(iteration, metrics=dict(iteration.metrics) | figures)


def test_gap_decides_where_it_is_asked_for() -> None:
    """A gap that widened far regresses; otherwise it is told beside the deciding metrics."""
    old, new = run_of(1), with_figure(run_of(2), overfit_gap=0.9)
    assert "regressed" == judged(old, new, GAP, seed_runs=calibrated(old)).kind
    verdict = judged(old, new, seed_runs=calibrated(old))
    assert {"overfit_gap": "regressed", "train_loss": "unchanged"} == {
        change.metric: change.kind for change in verdict.runs
    }
    assert ("unchanged", True) == (verdict.kind, verdict.ok)


def test_gap_whose_noise_is_unknown() -> None:
    """Until the seed noise is measured a gap proves nothing, and it says what measures it."""
    verdict = judged(run_of(1), with_figure(run_of(2), overfit_gap=0.9), GAP)
    assert ("not comparable", ()) == (verdict.kind, verdict.changes)
    assert "its seed noise is not measured yet (run ftloop calibrate)" in verdict.because


def test_power_without_examples() -> None:
    """Of figures of whole runs the number of examples says nothing."""
    old = run_of(1)
    verdict = judged(old, run_of(2), GAP, seed_runs=calibrated(old))
    assert power_text(verdict.changes).startswith("1 seed against 5: a regression of ")


@pytest.mark.parametrize("value", [math.nan, None])
def test_missing_gap(value: float | None) -> None:
    """A missing or NaN figure that decides fails the candidate; the baseline's is left out."""
    whole, lacking = run_of(1), run_of(2)
    figures = {n: v for n, v in lacking.metrics.items() if n != "overfit_gap"}
    lacking = replace(lacking, metrics=figures | ({} if value is None else {"overfit_gap": value}))
    verdict = judged(whole, lacking, GAP)
    assert ("incomplete", False) == (verdict.kind, verdict.ok)
    assert f"{lacking.name}: it has no figure overfit_gap" == verdict.because
    verdict = judged(lacking, whole, replace(GAP, metrics=("overfit_gap", "eval_loss")))
    assert ["eval_loss"] == [change.metric for change in verdict.changes]
    assert "overfit_gap is not compared: the baseline lacks overfit_gap" in verdict.notes


def test_gap_of_a_changed_eval_set() -> None:
    """It is a figure of all examples, so a new hard one would look like overfitting."""
    old = run_of(1)
    rows = (*fake_table(losses(1.0, 1)), *fake_table([50.0], start=500))
    new = with_figure(fake_measured(2, rows), overfit_gap=0.9)
    rule = replace(RULE, metrics=("eval_loss", "overfit_gap"))
    verdict = judged(old, new, rule, seed_runs=calibrated(old))
    assert ["eval_loss"] == [change.metric for change in verdict.changes]
    assert (
        "overfit_gap is not compared: it is a figure of the whole eval set, which changed"
        in verdict.notes
    )
    assert ["train_loss"] == [change.metric for change in verdict.runs]


# tags

HALVES = {"odd": range(1, N, 2), "even": range(0, N, 2), "one": [0], "all": range(N)}


def tagged(number: int, worse: float = 1.0, failing: Sequence[int] = ()) -> Iteration:
    """The odd examples' loss is `worse` times what it was."""
    values = [x * (worse if n % 2 else 1) for n, x in enumerate(losses(1.0, 1))]
    return fake_measured(number, fake_table(values, failing, tags=HALVES))


def test_tags_are_told_and_do_not_fail() -> None:
    """A tag that got worse is told at Holm's 5% over all tags; the verdict is of the whole set."""
    old, new = tagged(1), tagged(2, failing=range(1, 17, 2))
    quiet = [fake_seed_run(old, seed) for seed in range(43, 60)]
    strict = replace(RULE, alpha=1e-9, max_regression=0.9)
    verdict = judged(old, new, strict, seed_runs=quiet)
    assert ("unchanged", True) == (verdict.kind, verdict.ok)
    told = {change.metric: change.kind for change in verdict.tags}
    assert "regressed" == told["pass_rate[odd]"]
    assert "unchanged" == told["pass_rate[even]"]
    worse = holm_adjusted([change.test.p_worse for change in verdict.tags])
    change = verdict.change("pass_rate[odd]")
    assert change is not None
    assert worse[[c.metric for c in verdict.tags].index("pass_rate[odd]")] == change.p <= 0.05
    assert {"eval_loss[odd]", "eval_loss[even]", "pass_rate[odd]", "pass_rate[even]"} == set(told)


def test_gate_of_one_tag() -> None:
    """regression[tag] judges the examples with the tag and no others."""
    old, new = tagged(1), tagged(2, 1.5)
    odd = judged(old, new, Regression("regression[odd]"))
    even = judged(old, new, Regression("regression[even]"))
    assert ("regressed", False) == (odd.kind, odd.ok)
    assert even.kind in {"unchanged", "inconclusive"}
    assert {"eval_loss[odd]", "pass_rate[odd]"} == set(kinds(odd))
    assert (100, N, (), ()) == (odd.common, odd.total, odd.tags, odd.runs)
    change = odd.changes[0]
    assert pytest.approx(old.metrics["eval_loss[odd]"], abs=1e-6) == change.baseline
    assert pytest.approx(new.metrics["eval_loss[odd]"], abs=1e-6) == change.candidate


def test_gap_of_one_tag() -> None:
    """The gap that decides for a tag is the tag's."""
    rule = Regression("regression[odd]", metrics=("overfit_gap",))
    old, new = (with_figure(tagged(n), **{"overfit_gap[odd]": 0.1}) for n in (1, 2))
    known = [
        replace(run, metrics={**run.metrics, "overfit_gap[odd]": 0.1}) for run in calibrated(old)
    ]
    worse = with_figure(new, **{"overfit_gap[odd]": 0.9})
    assert "regressed" == judged(old, worse, rule, seed_runs=known).kind
    assert "unchanged" == judged(old, with_figure(new, overfit_gap=0.9), rule, seed_runs=known).kind
    assert "incomplete" == judged(old, tagged(2), rule, seed_runs=known).kind


def test_tag_that_nothing_common_has() -> None:
    """Where no common example has the tag there is nothing to judge by."""
    verdict = judged(tagged(1), tagged(2), Regression("regression[rare]"))
    assert ("not comparable", True) == (verdict.kind, verdict.ok)
    assert "no example tagged rare is in common with the baseline" == verdict.because


# the anchor


def slid(number: int, percent: float) -> Iteration:
    rows = fake_table([(1 + percent / 100) * x for x in losses(1.0, 1)])
    return fake_measured(number, rows, training={"seed": 42 + number})


def test_slow_slide() -> None:
    """Ten steps of +0.9% each pass every comparison with the last one, not that with the best."""
    best = slid(1, 0)
    quiet = [fake_seed_run(best, seed) for seed in range(43, 60)]
    caught, previous = [], best
    for step in range(2, 12):
        new = slid(step, 0.9 * (step - 1))
        alone = judged(previous, new, LOSS_ONLY, seed_runs=quiet, others=[best])
        assert ("unchanged", True) == (alone.kind, alone.ok)
        verdict = judged(previous, new, LOSS_ONLY, seed_runs=quiet, others=[best], anchor=best)
        if verdict.kind == "regressed":
            caught.append(step)
            assert (False, best.name) == (verdict.ok, verdict.anchor)
            assert verdict.because.startswith(f"against the best ever accepted, {best.name}: ")
            assert "unchanged" == verdict.changes[0].kind
            assert "regressed" == verdict.slide[0].kind
        previous = new
    assert caught, "no slide found"
    assert list(range(caught[0], 12)) == caught


def test_anchor_is_judged_at_half_alpha() -> None:
    """What is just proven at alpha is not yet a slide."""
    best, noise = run_of(1), calibrated(run_of(1))
    for step in range(200):
        new = run_of(2, 1 + step / 1000)
        near = run_of(3, 1 + step / 1000)
        alone = judged(best, new, LOSS_ONLY, seed_runs=noise)
        slide = judged(near, new, LOSS_ONLY, seed_runs=noise, others=[best], anchor=best)
        if alone.kind == "regressed" and alone.changes[0].p > 0.005:
            assert "regressed" != slide.kind
            assert RULE.alpha / 2 == slide.slide[0].test.alpha
        if slide.kind == "regressed":
            assert alone.changes[0].p <= 0.005
            return
    pytest.fail("no slide is found")


def test_anchor_out_of_reach() -> None:
    """An anchor of another environment is not compared, and that is said."""
    best = run_of(1, 0.5, environment=ELSEWHERE)
    verdict = judged(run_of(2), run_of(3), anchor=best)
    assert "regressed" != verdict.kind
    assert (best.name, ()) == (verdict.anchor, verdict.slide)
    note = f"the best ever accepted, {best.name}, is not compared: environment changed "
    assert any(text.startswith(note) for text in verdict.notes)


def test_anchor_of_what_is_not_comparable() -> None:
    """Where the baseline can't be compared with, the anchor is not asked."""
    verdict = judged(run_of(1, environment=ELSEWHERE), run_of(2, 9.0), anchor=run_of(3))
    assert ("not comparable", None) == (verdict.kind, verdict.anchor)


# whatever the log holds

FIGURES = st.tuples(st.floats(0, 2.0**100, width=32), st.booleans())
PLACES = st.lists(
    st.tuples(
        st.sampled_from([4] * 30 + [0, 50]),
        st.sampled_from(["same"] * 8 + ["other"]),
        st.sets(st.sampled_from(["x", "y"])),
    ),
    min_size=1,
    max_size=8,
)


@st.composite
def measured(draw: Any, number: int) -> tuple[Iteration, list[SeedRun]]:
    """An iteration and its seeds, of any finite figures."""
    places = draw(PLACES)

    def rows() -> list[ExampleResult]:
        figures = draw(st.lists(FIGURES, min_size=len(places), max_size=len(places)))
        return [
            replace(
                fake_table([1.0], [] if passed else [0], start=place)[0],
                loss=loss,
                tokens=tokens,
                correct=min(tokens, 1),
                content=content,
                tags=tuple(sorted(tags)),
            )
            for place, ((loss, passed), (tokens, content, tags)) in enumerate(
                zip(figures, places, strict=True)
            )
        ]

    iteration = fake_measured(number, rows(), seed=number, group=draw(st.sampled_from("abc")))
    gap = st.sampled_from([0.1, -1.0, 0.0, 1e30, -1e-30] * 3 + [math.nan])
    figures = {name: draw(gap) for name in ("overfit_gap", "overfit_gap[x]")}
    iteration = with_figure(iteration, **figures)
    runs = [fake_seed_run(iteration, 50 + n, rows()) for n in range(draw(st.integers(0, 2)))]
    return iteration, runs


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=100)
@given(
    measured(1),
    measured(2),
    measured(3),
    st.sampled_from(["regression", "regression[x]"]),
    st.sets(
        st.sampled_from(["eval_loss", "pass_rate", "token_accuracy", "overfit_gap"]), min_size=1
    ),
)
def test_any_tables(old: Any, new: Any, best: Any, name: str, metrics: set[str]) -> None:
    """Whatever finite figures the tables hold there is a verdict, and JSON of it."""
    seed_runs = [*old[1], *new[1], *best[1]]
    rule = Regression(name, metrics=tuple(sorted(metrics)))
    verdict = judged(old[0], new[0], rule, seed_runs=seed_runs, others=[best[0]], anchor=best[0])
    assert (verdict.kind in {"regressed", "incomplete"}) is not verdict.ok
    assert verdict.because
    for change in (*verdict.changes, *verdict.tags, *verdict.runs, *verdict.slide):
        assert 0 <= change.p <= 1
    json.loads(to_json(verdict.as_record()))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)), min_size=2, max_size=30),
    st.randoms(use_true_random=False),
)
def test_swapped_sides_mirror_the_change(
    pairs: list[tuple[float, float]], chance: random.Random
) -> None:
    """Candidate and baseline exchanged: each change the other way, fixed examples broken."""
    flips = [chance.sample(range(len(pairs)), len(pairs) // 2) for _ in range(2)]
    one, other = (
        fake_measured(n + 1, fake_table([pair[n] for pair in pairs], flips[n])) for n in range(2)
    )
    rule = replace(RULE, max_regression=0.99)
    there, back = judged(one, other, rule), judged(other, one, rule)
    for a, b in zip(there.changes, back.changes, strict=True):
        assert pytest.approx(a.test.change, abs=1e-9) == -b.test.change
        assert (a.metric, a.baseline, a.candidate) == (
            b.metric,
            pytest.approx(b.candidate, abs=1e-9),
            pytest.approx(b.baseline, abs=1e-9),
        )
    assert (there.fixed, there.broken) == (back.broken, back.fixed)


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_order_is_irrelevant(chance: random.Random) -> None:
    """The same runs in another order give the same verdict, to the last digit."""
    old, new, other = run_of(1), run_of(2, 1.03, range(9)), run_of(3, 0.98)
    more = [*calibrated(old, 1.0, 3), *calibrated(new, 1.03, 3), *calibrated(other, 0.98)]
    wanted = judged(old, new, others=[other], seed_runs=more, anchor=other)
    turned = [replace(run, examples=shuffled(run, chance)) for run in more]
    chance.shuffle(turned)
    found = judged(
        old,
        replace(new, examples=shuffled(new, chance)),
        others=[other, old],
        seed_runs=turned,
        anchor=other,
    )
    assert wanted.as_record() == found.as_record()


def shuffled(run: Measured, chance: random.Random) -> tuple[ExampleResult, ...]:
    return tuple(chance.sample(list(run.examples), len(run.examples)))
