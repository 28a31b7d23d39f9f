"""Comparisons by tag, with the anchor, and whatever else the log holds."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.gate.statistic import holm_adjusted
from pytest_ftloop.gate.verdict import TRAINED_ANEW
from pytest_ftloop.report.diff import to_json
from tests.fakes import fake_measured, fake_seed_run, fake_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import ExampleResult, Iteration
    from pytest_ftloop.core.runs import Measured
from tests.gate.compare_cases import (
    ELSEWHERE,
    LOSS_ONLY,
    RULE,
    N,
    calibrated,
    judged,
    kinds,
    losses,
    measured,
    run_of,
    with_figure,
)

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
    fails = verdict.kind in {"regressed", "incomplete"} or TRAINED_ANEW in verdict.notes
    assert fails is not verdict.ok
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
