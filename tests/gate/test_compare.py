"""Baseline and candidate to a verdict: what is compared, what it says, what fails."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.gates import LEAST_ALPHA, MOST_ALPHA, Regression
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.statistic import holm_adjusted
from pytest_ftloop.gate.verdict import TRAINED_ANEW
from tests.fakes import (
    fake_example,
    fake_iteration,
    fake_measured,
    fake_metrics,
    fake_seed_run,
    fake_table,
)

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration, SeedRun
from tests.gate.compare_cases import (
    ELSEWHERE,
    LOSS_ONLY,
    RULE,
    TRAININGS,
    N,
    calibrated,
    judged,
    kinds,
    losses,
    run_of,
    trained_as,
)

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


@pytest.mark.parametrize(("changed", "ok"), TRAININGS)
def test_nothing_in_common(changed: dict[str, Any], ok: bool) -> None:
    """Another eval set altogether passes only where the training is the same."""
    old = run_of(1)
    new = fake_measured(2, fake_table(losses(), start=500), **trained_as(old, 2, **changed))
    verdict = judged(old, new)
    assert ("not comparable", ok) == (verdict.kind, verdict.ok)
    assert "no example is in common with the baseline" == verdict.because
    assert (0, N) == (verdict.common, verdict.total)
    assert (TRAINED_ANEW in verdict.notes) is not ok


@pytest.mark.parametrize(("kept", "kind"), [(1, "not comparable"), (60, "regressed")])
def test_a_few_rows_that_were_kept(kept: int, kind: str) -> None:
    """Where too few examples are in common to show a drop, that is nothing to compare."""
    old = run_of(1)
    new = fake_measured(2, fake_table(losses(1.3), start=N - kept))
    verdict = judged(old, new)
    assert (kind, False) == (verdict.kind, verdict.ok)
    assert (TRAINED_ANEW in verdict.notes) is (kind == "not comparable")
    assert kept == verdict.common


@pytest.mark.parametrize(("had_it", "ok"), [(True, False), (False, True)])
def test_no_example_of_a_tag_in_common(had_it: bool, ok: bool) -> None:
    """A gate on a tag fails where the baseline had examples of it, and passes where it is new."""
    old = fake_measured(1, fake_table(losses(), tags={"x": range(20)} if had_it else {}))
    verdict = judged(old, fake_measured(2, fake_table(losses())), Regression("regression[x]"))
    assert ("not comparable", ok) == (verdict.kind, verdict.ok)
    assert "no example tagged x is in common with the baseline" == verdict.because


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


BOUNDS = (
    Regression(alpha=LEAST_ALPHA, max_regression=1e-300, min_regression=0.0),
    Regression(alpha=math.nextafter(MOST_ALPHA, 0), max_regression=0.5, min_regression=0.5),
)


@pytest.mark.parametrize("rule", BOUNDS, ids=["lowest", "highest"])
@pytest.mark.parametrize("before", [0.0, 1e-320, 1.0, 1e200, 1e307])
@pytest.mark.parametrize("after", [0.0, 1e-320, 1.0, 1e200, 1e307])
def test_extreme_rules_and_losses(rule: Regression, before: float, after: float) -> None:
    """Whatever a gate allows and whatever the losses: a verdict with its text, no exception."""
    for count in (1, 2, 5):
        old, new = (
            fake_iteration(
                number,
                metrics=fake_metrics(loss / 4),
                examples=[
                    fake_example(f"e{n}", loss=loss, passed=n % 2 == 0) for n in range(count)
                ],
            )
            for number, loss in ((1, before), (2, after))
        )
        verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), rule)
        assert verdict.because
        assert json.dumps(verdict.as_record(), allow_nan=True)
