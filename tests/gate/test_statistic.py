"""The gate's statistic: the formulas of docs/comparison.md, beside a count in numpy."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.noise import Prior, Replicates, SeedNoise, pool, replicates
from pytest_ftloop.core.runs import Differences, differences
from pytest_ftloop.gate.statistic import (
    PairedTest,
    corrected,
    examples_to_decide,
    holm_adjusted,
    paired_test,
    prior_for,
    run_level_test,
    seeds_to_decide,
)
from pytest_ftloop.gate.student_t import survival

QUIET = SeedNoise(0.0, 0.0, 0)
PRIOR = Prior(0.01, 2.0)
WORSE = Differences(n=200, mean=0.03, variance=0.06)
A_GROUP = Replicates(k=2, n=200, run_variance=3e-4, interaction=0.03)

losses = st.floats(-100, 100).map(lambda value: round(value, 4))
samples = st.lists(losses, min_size=2, max_size=30)
tables = st.tuples(st.integers(2, 5), st.integers(2, 8)).flatmap(
    lambda shape: st.lists(
        st.lists(losses, min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    )
)
noises = st.builds(SeedNoise, st.floats(-1e-3, 1e-2), st.floats(0, 1), st.integers(1, 40))


def a_test(
    values: Differences = WORSE,
    seeds: tuple[int, int] = (1, 1),
    noise: SeedNoise = QUIET,
    prior: Prior = PRIOR,
) -> PairedTest:
    return paired_test(values, *seeds, noise, prior, alpha=0.01)


@given(samples)
def test_differences_are_numpys(values: list[float]) -> None:
    """Mean and variance are what numpy computes."""
    np = pytest.importorskip("numpy")
    found = differences(values)
    assert len(values) == found.n
    assert pytest.approx(np.mean(values), abs=1e-9) == found.mean
    assert pytest.approx(np.var(values, ddof=1), abs=1e-9) == found.variance


def test_one_difference_has_no_variance() -> None:
    """A single example has a mean, and a variance that is not a number."""
    found = differences([0.5])
    assert (1, 0.5) == (found.n, found.mean)
    assert math.isnan(found.variance)


@given(tables)
def test_replicates_are_the_two_way_table(runs: list[list[float]]) -> None:
    """Run variance and interaction are those of an analysis of variance by least squares."""
    np = pytest.importorskip("numpy")
    found, (k, n) = replicates(runs), (len(runs), len(runs[0]))
    design = np.hstack([np.repeat(np.eye(k), n, axis=0), np.tile(np.eye(n), (k, 1))])
    values = np.ravel(runs)
    residuals = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    expected = float(residuals @ residuals) / ((k - 1) * (n - 1))
    assert pytest.approx(expected, abs=1e-6) == found.interaction
    assert pytest.approx(np.var(np.mean(runs, axis=1), ddof=1), abs=1e-9) == found.run_variance


def test_replicates_of_one_example_have_no_interaction() -> None:
    """With one example all that differs between runs counts as seed noise."""
    assert Replicates(2, 1, 0.5, 0.0) == replicates([[1.0], [2.0]])


def test_a_single_run_says_nothing() -> None:
    """A group of one run adds no degrees of freedom."""
    assert Replicates(1, 2, 0.0, 0.0) == replicates([[1.0, 2.0]])
    assert pool([A_GROUP]) == pool([A_GROUP, replicates([[1.0, 2.0]])])


def test_runs_of_different_length_are_refused() -> None:
    """An A/A group is compared on common examples only."""
    with pytest.raises(ValueError, match=r"same examples, found \[2, 1\]"):
        replicates([[1.0, 2.0], [1.0]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_is_refused(bad: float) -> None:
    """NaN and infinity are judged before any statistic, which refuses them."""
    calls = (
        lambda: differences([0.0, bad]),
        lambda: replicates([[0.0, 1.0], [bad, 1.0]]),
        lambda: run_level_test([bad], [1.0], [], PRIOR, 0.01),
        lambda: a_test(Differences(5, bad, 1.0)),
        lambda: a_test(Differences(5, 0.0, math.nan)),
        lambda: a_test(noise=SeedNoise(bad, 0.0, 3)),
    )
    for call in calls:
        with pytest.raises(ValueError, match="finite"):
            call()


def test_nothing_at_all_is_refused() -> None:
    """No examples, no runs, no seeds, no prior or no alpha: each is an error."""
    calls = (
        lambda: differences([]),
        lambda: replicates([]),
        lambda: replicates([[], []]),
        lambda: a_test(Differences(0, 0.0, 0.0)),
        lambda: a_test(seeds=(0, 1)),
        lambda: a_test(prior=Prior(0.01, 0.0)),
        lambda: paired_test(Differences(5, 0, 1), 1, 1, QUIET, PRIOR, 0.0),
    )
    for call in calls:
        with pytest.raises(ValueError, match="wanted"):
            call()


def test_pool_weights_groups_by_their_degrees() -> None:
    """A group of three runs counts twice a pair; the interaction leaves the run variance."""
    triple = Replicates(k=3, n=100, run_variance=1e-4, interaction=0.06)
    found = pool([A_GROUP, triple])
    assert 3 == found.df
    assert pytest.approx((0.03 + 2 * 0.06) / 3) == found.interaction
    expected = (3e-4 - 0.03 / 200 + 2 * (1e-4 - 0.06 / 100)) / 3
    assert pytest.approx(expected) == found.variance
    assert found.variance < 0


def test_no_groups_are_no_noise() -> None:
    """Without replicates there is nothing to pool."""
    assert QUIET == pool([])


def test_priors() -> None:
    """One percent or one point; twice that, and believed more, until four degrees of freedom."""
    assert Prior(0.04, 4.0) == prior_for("loss", 2.0, 0)
    assert Prior(0.04, 4.0) == prior_for("loss", 2.0, 3)
    assert Prior(0.02, 2.0) == prior_for("loss", 2.0, 4)
    assert Prior(0.02, 4.0) == prior_for("rate", 0.7, 3)
    assert Prior(0.01, 2.0) == prior_for("rate", 0.7, 8)


def brute_force(
    baseline: Sequence[Sequence[float]],
    candidate: Sequence[Sequence[float]],
    groups: Sequence[Sequence[Sequence[float]]],
    prior: Prior,
) -> tuple[float, float, float, float]:
    """Change, SE, df and p, written down a second time in numpy and scipy."""
    np = pytest.importorskip("numpy")
    special = pytest.importorskip("scipy.special")
    d = np.mean(candidate, axis=0) - np.mean(baseline, axis=0)
    n, c = d.size, 1 / len(baseline) + 1 / len(candidate)
    nu, tau2, ms = 0, 0.0, 0.0
    for group in groups:
        x = np.asarray(group)
        k = len(x)
        e = x - x.mean(0, keepdims=True) - x.mean(1, keepdims=True) + x.mean()
        ms_int = (e**2).sum() / ((k - 1) * (x.shape[1] - 1))
        tau2 += (k - 1) * (x.mean(1).var(ddof=1) - ms_int / x.shape[1])
        ms += (k - 1) * ms_int
        nu += k - 1
    tau2, ms = (tau2 / nu, ms / nu) if nu else (0.0, 0.0)
    shrunk = (prior.df * prior.tau**2 + nu * max(tau2, 0)) / (prior.df + nu)
    sampling = d.var(ddof=1) / n
    se = math.sqrt(sampling + c * shrunk)
    v = shrunk + nu / (prior.df + nu) * ms / n
    df = se**4 / (sampling**2 / (n - 1) + min(c * v, se**2) ** 2 / (prior.df + nu))
    return d.mean(), se, df, special.stdtr(df, -d.mean() / se)


@pytest.mark.parametrize("pairs", [0, 1, 8])
@pytest.mark.parametrize(("k_b", "k_c"), [(1, 1), (1, 3), (3, 3)])
def test_paired_test_is_the_formula(pairs: int, k_b: int, k_c: int) -> None:
    """Change, SE, df and p are those of docs/comparison.md, from raw losses to the verdict."""
    np = pytest.importorskip("numpy")
    rng = np.random.default_rng(100 * pairs + 10 * k_b + k_c)

    def runs(k: int, n: int = 40) -> list[list[float]]:
        return (1 + rng.normal(0, 0.02, (k, 1)) + rng.normal(0, 0.2, (k, n))).tolist()

    baseline, candidate, log = runs(k_b), runs(k_c), [runs(2, 30) for _ in range(pairs)]
    groups = [*log, *(side for side in (baseline, candidate) if len(side) > 1)]
    noise = pool(map(replicates, groups))
    prior = prior_for("loss", 1.0, noise.df)
    values = np.mean(candidate, axis=0) - np.mean(baseline, axis=0)
    found = paired_test(differences(values.tolist()), k_b, k_c, noise, prior, 0.01)
    expected = brute_force(baseline, candidate, groups, prior)
    assert pytest.approx(expected) == (found.change, found.se, found.df, found.p_worse)
    assert (40, k_b, k_c) == (found.n, found.k_baseline, found.k_candidate)


@given(losses, st.floats(0, 10), st.integers(1, 500), noises)
def test_the_two_sides_share_one(mean: float, variance: float, n: int, noise: SeedNoise) -> None:
    """Worse and better add to one, swap with the sign, and the bounds lie around the change."""
    found = a_test(Differences(n, mean, variance), noise=noise)
    mirrored = a_test(Differences(n, -mean, variance), noise=noise)
    assert pytest.approx(1.0) == found.p_worse + found.p_better
    assert found.p_worse == mirrored.p_better
    assert found.lower <= found.change <= found.upper
    assert -found.upper == mirrored.lower
    assert found.detectable >= 0


@given(losses, st.floats(1e-6, 10), noises, st.sampled_from([2.0**-30, 0.25, 8.0, 2.0**40]))
def test_the_unit_does_not_matter(
    mean: float, variance: float, noise: SeedNoise, unit: float
) -> None:
    """Losses in another unit give the same p, and bounds in that unit."""
    found = a_test(Differences(50, mean, variance), noise=noise)
    scaled = a_test(
        Differences(50, mean * unit, variance * unit**2),
        noise=SeedNoise(noise.variance * unit**2, noise.interaction * unit**2, noise.df),
        prior=Prior(PRIOR.tau * unit, PRIOR.df),
    )
    assert pytest.approx(found.p_worse, rel=1e-6) == scaled.p_worse
    assert pytest.approx(found.upper * unit) == scaled.upper
    assert pytest.approx(found.tau * unit) == scaled.tau


@given(st.floats(0, 10), st.integers(2, 500), noises, st.integers(1, 9), st.integers(1, 9))
def test_more_evidence_never_widens_se(
    variance: float, n: int, noise: SeedNoise, k: int, more: int
) -> None:
    """Neither more seeds on a side nor more examples make the standard error larger."""
    values = Differences(n, 0.0, variance)
    se = a_test(values, (k, 1), noise).se
    assert a_test(values, (k + more, 1), noise).se <= se
    assert a_test(values, (k, 1 + more), noise).se <= se
    assert a_test(Differences(n + more, 0.0, variance), (k, 1), noise).se <= se


@given(st.floats(-1e-3, 1e-2), st.floats(0, 1e-2), st.integers(1, 40))
def test_tau_lies_between_estimate_and_prior(variance: float, extra: float, df: int) -> None:
    """The seed noise is shrunk: never outside prior and estimate, and it grows with the latter."""
    found = a_test(noise=SeedNoise(variance, 0.0, df))
    ends = sorted([PRIOR.tau, math.sqrt(max(variance, 0.0))])
    assert ends[0] * (1 - 1e-12) <= found.tau <= ends[1] * (1 + 1e-12)
    assert found.tau <= a_test(noise=SeedNoise(variance + extra, 0.0, df)).tau


def test_without_seed_noise_it_is_the_paired_t_test() -> None:
    """No seed noise and no prior: scipy's paired t-test."""
    stats = pytest.importorskip("scipy.stats")
    values = [0.1, 0.3, -0.2, 0.4, 0.05, 0.2]
    found = a_test(differences(values), prior=Prior(0.0, 2.0))
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue
    assert pytest.approx(expected) == found.p_worse
    assert pytest.approx(5) == found.df


def test_many_degrees_detect_three_standard_errors() -> None:
    """With many degrees of freedom the detectable drop goes to 3.17 SE at alpha 1%."""
    found = a_test(Differences(10**7, 0.0, 1.0), prior=Prior(0.0, 2.0))
    assert pytest.approx(3.168, abs=1e-3) == found.detectable / found.se


def test_one_example_proves_nothing() -> None:
    """However large, the change of a single example is never significant."""
    found = a_test(differences([50.0]))
    assert (0.5, 0.5) == (found.p_worse, found.p_better)
    assert (-math.inf, math.inf) == (found.lower, found.upper)
    assert math.inf == found.detectable


def test_equal_differences_keep_the_seed_noise() -> None:
    """Examples that all moved alike leave the seed noise, with its few degrees of freedom."""
    found = a_test(Differences(20, 0.02, 0.0))
    assert pytest.approx(0.01 * math.sqrt(2)) == found.se
    assert pytest.approx(2) == found.df


def test_alike_on_every_example_is_not_in_doubt() -> None:
    """A log of noisy examples does not blow up the bounds of two models that answer alike."""
    found = a_test(Differences(20, 0.0, 0.0), noise=SeedNoise(0.0, 0.1, 8))
    assert pytest.approx(10) == found.df
    assert found.upper < 0.02


@pytest.mark.parametrize(("change", "p"), [(1e-9, 0.0), (0.0, 1.0), (-1e-9, 1.0)])
def test_without_any_noise_every_change_is_sure(change: float, p: float) -> None:
    """A standard error of 0 decides by the sign, and equal results are equal for certain."""
    found = a_test(Differences(20, change, 0.0), prior=Prior(0.0, 2.0))
    assert (p, 0.0, change) == (found.p_worse, found.se, found.upper)


def test_run_level_is_a_t_test_on_run_means() -> None:
    """With a prior worth almost nothing: scipy's two-sample t-test of equal variances."""
    stats = pytest.importorskip("scipy.stats")
    baseline, candidate = [1.0, 1.2, 0.9], [1.5, 1.4, 1.8, 1.6]
    found = run_level_test(baseline, candidate, [baseline, candidate], Prior(0.0, 1e-9), 0.01)
    expected = stats.ttest_ind(candidate, baseline, alternative="greater")
    assert pytest.approx(expected.pvalue) == found.p_worse
    assert (0, 3, 4, 5) == (found.n, found.k_baseline, found.k_candidate, found.nu)


def test_run_level_without_replicates_is_the_prior() -> None:
    """One run a side and no log: the prior's deviation and degrees of freedom."""
    found = run_level_test([1.0], [1.03], [], Prior(0.02, 4.0), 0.01)
    assert pytest.approx((0.02 * math.sqrt(2), 4.0)) == (found.se, found.df)
    assert pytest.approx(0.03) == found.change


probabilities = st.lists(st.floats(0, 1), max_size=12)


@given(probabilities)
def test_holm_adjusts_by_rank(p_values: list[float]) -> None:
    """Adjusted values keep the order, never fall, and lie between p and Bonferroni's."""
    adjusted = holm_adjusted(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p)
        assert all(q <= other for r, other in zip(p_values, adjusted, strict=True) if p < r)


def rejected_at(alpha: float, p_values: list[float]) -> tuple[bool, ...]:
    return tuple(p <= alpha for p in holm_adjusted(p_values))


@given(probabilities, st.floats(0.001, 0.2))
def test_holm_steps_down(p_values: list[float], alpha: float) -> None:
    """Rejected: in rising order, until the first p above alpha / (hypotheses left)."""
    left, expected = len(p_values), set()
    for index in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        if p_values[index] * left > alpha:
            break
        expected.add(index)
        left -= 1
    assert expected == {i for i, rejected in enumerate(rejected_at(alpha, p_values)) if rejected}


def test_holm_by_hand() -> None:
    """The textbook's four p-values."""
    assert pytest.approx((0.03, 0.06, 0.06, 0.02)) == holm_adjusted([0.01, 0.04, 0.03, 0.005])
    assert (True, False, False, True) == rejected_at(0.05, [0.01, 0.04, 0.03, 0.005])
    assert () == holm_adjusted([])


def test_holm_refuses_what_is_no_probability() -> None:
    """A NaN among p-values is an error, not a rejection."""
    with pytest.raises(ValueError, match="p-values from 0 to 1"):
        holm_adjusted([0.1, math.nan])


def of_change(change: float, noise: SeedNoise = QUIET, n: int = 200, **more: Any) -> PairedTest:
    """A test whose examples' standard error is 0.02, and whose assumed seed noise is 0.02."""
    found = Differences(n, change, 0.02**2 * n)
    prior = prior_for("loss", 1.0, noise.df)
    return paired_test(found, 1, 1, noise, prior, 0.01, **more)


@pytest.mark.parametrize(
    ("change", "untrained", "seed_variance"),
    # Of a baseline with a seed both sides' noise is in the change; twice the noise, four times it.
    [(0.12, False, 2 * 0.04**2), (0.16, False, 2 * 0.04**2), (0.11, True, 0.04**2)],
)
@pytest.mark.parametrize("count", [3, 6, 12])
def test_many_tests_hold_if_the_noise_is_twice_what_is_assumed(
    change: float, untrained: bool, seed_variance: float, count: int
) -> None:
    """Then all together may give five times as many false alarms as the level, and no more."""
    tests = [of_change(change, untrained=untrained), *[of_change(0.0)] * (count - 1)]
    worse, better = corrected(tests)
    if_noisier = survival(change / math.sqrt(0.02**2 + seed_variance), 199)
    assert pytest.approx(max(count * tests[0].p_worse, count * if_noisier / 5)) == worse[0]
    assert worse[0] > count * tests[0].p_worse
    assert 1.0 == better[0] == worse[1]
    mirrored = [of_change(-change, untrained=untrained), *tests[1:]]
    assert worse[0] == pytest.approx(corrected(mirrored)[1][0])


@pytest.mark.parametrize(
    "tests",
    [
        [of_change(0.16), of_change(0.0)],
        [of_change(0.16)],
        [of_change(0.16, SeedNoise(4e-4, 0.0, 4))] * 6,
        [paired_test(Differences(200, 0.1, 0.08), 1, 1, QUIET, Prior(0.0, 1.0), 0.01)] * 6,
        [run_level_test([1.0], [1.2], [], Prior(0.02, 4.0), 0.01)] * 6,
        [paired_test(Differences(1, 0.1, math.nan), 1, 1, QUIET, Prior(0.02, 4.0), 0.01)] * 6,
        [],
    ],
    ids=["two", "one", "measured", "one training", "whole runs", "one example", "none"],
)
def test_holm_alone_where_there_is_no_such_doubt(tests: list[PairedTest]) -> None:
    """Of two tests, and of any number whose seed noise is measured or absent."""
    worse = holm_adjusted([test.p_worse for test in tests])
    better = holm_adjusted([test.p_better for test in tests])
    assert (worse, better) == corrected(tests)


@pytest.mark.parametrize("count", [2, 4, 12])
def test_false_alarms_of_many_tests_where_the_noise_is_twice_what_is_assumed(count: int) -> None:
    """Simulated: 5% of unchanged families fail, as of one test; 4,000 trials, three errors."""
    draw, failed = random.Random(14), 0
    for _ in range(4000):
        sd = math.sqrt(0.02**2 + 2 * 0.04**2)
        worse, _ = corrected([of_change(draw.gauss(0.0, sd)) for _ in range(count)])
        failed += min(worse) <= 0.01
    assert failed / 4000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


UNSURE = Differences(200, 0.02, 0.06)
KNOWN = SeedNoise(variance=4e-4, interaction=0.03, df=8)


def test_seeds_to_decide_is_the_first_that_does() -> None:
    """That many seeds clear an unchanged model of this noise, one fewer does not."""
    found = a_test(UNSURE, noise=KNOWN)
    assert found.upper > 0.05
    k = seeds_to_decide(found, UNSURE, KNOWN, PRIOR, 0.05)
    assert k == 2
    fewer = seeds_to_decide(found, UNSURE, KNOWN, PRIOR, 0.03)
    assert fewer is not None
    assert fewer > k


def test_examples_to_decide_is_the_first_that_does() -> None:
    """That many examples clear an unchanged model; five percent fewer do not."""
    found = a_test(UNSURE, noise=KNOWN)
    n = examples_to_decide(found, UNSURE, KNOWN, PRIOR, 0.05)
    assert n is not None
    assert a_test(Differences(n, 0.0, 0.06), noise=KNOWN).upper < 0.05
    assert a_test(Differences(int(n / 1.06), 0.0, 0.06), noise=KNOWN).upper > 0.05


def test_what_no_number_decides() -> None:
    """None: no number of examples ends the seed noise, and no seeds end the examples'."""
    found = a_test(UNSURE, noise=KNOWN)
    assert examples_to_decide(found, UNSURE, KNOWN, PRIOR, 0.01) is None
    stubborn = Differences(20, 0.0, 1.0)
    assert seeds_to_decide(a_test(stubborn), stubborn, QUIET, PRIOR, 0.05) is None


def test_one_example_has_no_number() -> None:
    """The variance of a single example is unknown, so no plan can be made from it."""
    single = differences([0.02])
    assert seeds_to_decide(a_test(single), single, KNOWN, PRIOR, 0.05) is None
    assert examples_to_decide(a_test(single), single, KNOWN, PRIOR, 0.05) is None


@given(noises, st.integers(1, 5), st.floats(0.01, 0.3))
def test_plans_ask_for_more_than_there_is(noise: SeedNoise, k: int, limit: float) -> None:
    """A plan always names more seeds, or more examples, than the verdict had."""
    found = a_test(UNSURE, (k, k), noise)
    seeds = seeds_to_decide(found, UNSURE, noise, PRIOR, limit)
    examples = examples_to_decide(found, UNSURE, noise, PRIOR, limit)
    assert seeds is None or seeds > k
    assert examples is None or examples > UNSURE.n
