"""The paired test that knows both noises: of the examples, and of the training seed.

Pure Python on sufficient statistics, so that the gate and its simulation (benchmarks/gate.py) call
the same formulas. Everywhere higher is worse: a loss, or 1 - pass. A variance without another word
has the divisor n - 1.

The seed noise comes from core.noise. The decomposition of the variance into examples, seeds and
their interaction: Bouthillier et al. 2021, "Accounting for variance in machine learning
benchmarks"; paired differences over examples: Miller 2024, "Adding error bars to evals". The
degrees of freedom of a sum of variances: Satterthwaite 1946; a variance shrunk to a prior: Smyth
2004 (limma).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_ftloop.core.noise import Prior, SeedNoise, noise_of, shrunk
from pytest_ftloop.core.runs import Differences, mean_of, require_finite
from pytest_ftloop.gate.student_t import quantile, survival

CONFIDENCE = 0.95
"""Of the one-sided bounds of a change."""

POWER = 0.8
"""Of the smallest detectable drop."""

CALIBRATED_DF = 4
"""From this many degrees of freedom of the seed noise its prior is the narrow one."""

NOISIER, ALARMS_IF_NOISIER = 2.0, 5.0
"""While the seed noise is assumed, a seed noise of twice that may give five times as many false
alarms as `alpha`: 5% of 1%. One comparison keeps to that by its wide prior (benchmarks/gate.py)."""

SURE_TESTS = 2
"""So many tests together keep to it as well, with Holm's correction alone: 5 to 6%."""

MOST_SEEDS = 100

MOST_EXAMPLES = 1_000_000


@dataclass(frozen=True)
class PairedTest:
    """A change (mean difference candidate - baseline; above 0 is worse) beside its uncertainty.

    `se` and `df` are those of its t-test, `tau` the assumed seed noise (shrunk to the prior, as a
    standard deviation of run means), `nu` the degrees of freedom of the replicates behind `tau`,
    `alpha` the level at which a change is detectable. `n` counts the common examples (0 for a
    figure of whole runs), `k_baseline` and `k_candidate` the seeds. `untrained` is whether the
    baseline was not trained, and so has no seed noise.
    """

    change: float
    se: float
    df: float
    tau: float
    nu: int
    alpha: float
    n: int
    k_baseline: int
    k_candidate: int
    untrained: bool = False

    @property
    def p_worse(self) -> float:
        """Probability of so large a rise, or a larger one, when nothing changed."""
        return 1.0 if self._is_equal else survival(self._t, self.df)

    @property
    def p_better(self) -> float:
        """Probability of so deep a fall, or a deeper one, when nothing changed."""
        return 1.0 if self._is_equal else survival(-self._t, self.df)

    @property
    def upper(self) -> float:
        """One-sided upper 95% bound of the change."""
        return self.change + quantile(CONFIDENCE, self.df) * self.se

    @property
    def lower(self) -> float:
        """One-sided lower 95% bound of the change."""
        return self.change - quantile(CONFIDENCE, self.df) * self.se

    @property
    def detectable(self) -> float:
        """The smallest true change found at `alpha` with power 80%.

        (t of 1 - alpha + t of 0.8) SE: for many degrees of freedom and alpha = 1%, 3.17 SE.
        """
        return (quantile(1 - self.alpha, self.df) + quantile(POWER, self.df)) * self.se

    @property
    def _is_equal(self) -> bool:
        """Whether both sides are equal, and could not have differed by chance."""
        return self.se == 0 and self.change == 0

    @property
    def _t(self) -> float:
        if self.se > 0:
            return self.change / self.se
        return math.copysign(math.inf, self.change) if self.change else 0.0


def prior_for(metric: Literal["loss", "rate"], level: float, nu: int) -> Prior:
    """The prior of a metric whose baseline stands at `level`: 1% of a loss, 1 point of a rate.

    Twice as wide, and worth 4 replicates instead of 2, until `nu` reaches 4: without calibration
    the gate must not take an unusual seed for a regression.
    """
    unit = 0.01 * abs(level) if metric == "loss" else 0.01
    return Prior(unit, 2.0) if nu >= CALIBRATED_DF else Prior(2 * unit, 4.0)


def paired_test(
    differences: Differences,
    k_baseline: int,
    k_candidate: int,
    noise: SeedNoise,
    prior: Prior,
    alpha: float,
    *,
    untrained: bool = False,
) -> PairedTest:
    """Test the mean difference of examples, each averaged over its side's seeds.

    `noise` holds this comparison's own replicates too. A single example says nothing of how
    examples differ: its standard error is infinite, so nothing is ever proven by it. Without any
    noise (se = 0) every change is sure. An `untrained` baseline has no seed noise. ValueError for
    NaN, no example, no seed, alpha outside ]0, 1[ or a prior worth nothing.
    """
    if differences.n < 1:
        raise ValueError(f"wanted at least one common example, found {differences.n}")
    # A variance of 0 of one example is stated: it can't differ. One that is unknown is NaN.
    is_known = differences.n > 1 or differences.variance == 0
    sampling = differences.variance / differences.n if is_known else math.inf
    seeds = k_baseline, k_candidate
    found = _compare(
        differences.mean, sampling, differences.n, seeds, noise, prior, alpha, untrained=untrained
    )
    return replace(found, untrained=untrained)


def run_level_test(
    baseline: Sequence[float],
    candidate: Sequence[float],
    groups: Sequence[Sequence[float]],
    prior: Prior,
    alpha: float,
) -> PairedTest:
    """Test a figure that only whole runs have, such as the overfit gap: one value a run.

    `groups` are the values of each A/A group, this comparison's own replicates included. ValueError
    as `paired_test`.
    """
    require_finite(baseline)
    require_finite(candidate)
    noise = noise_of(groups)
    change = mean_of(candidate) - mean_of(baseline)
    return _compare(change, 0.0, 0, (len(baseline), len(candidate)), noise, prior, alpha)


def holm_adjusted(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values (Holm 1979): each is rejected at every alpha from its value up."""
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"wanted p-values from 0 to 1, found {list(p_values)}")
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = so_far
    return tuple(adjusted)


def corrected(tests: Sequence[PairedTest]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The p-values of tests that decide together: of being worse, and of being better.

    Holm's correction takes the noise as known. It looks the further out in the tail the more tests
    there are, where too small a noise counts most: while the noise is only assumed, each further
    test would be another chance. So more than `SURE_TESTS` must also hold, at `ALARMS_IF_NOISIER`
    times the level, if the seed noise is `NOISIER` times what is assumed.
    """
    sides = []
    for change in (1, -1):
        p_values = holm_adjusted([t.p_worse if change > 0 else t.p_better for t in tests])
        if len(tests) > SURE_TESTS:
            noisier = holm_adjusted([_p_if_noisier(test, change) for test in tests])
            pairs = zip(p_values, noisier, strict=True)
            p_values = tuple(max(p, q / ALARMS_IF_NOISIER) for p, q in pairs)
        sides.append(p_values)
    return sides[0], sides[1]


def _p_if_noisier(test: PairedTest, change: int) -> float:
    """The p-value if the seed noise were larger than assumed; 0 where it is measured, or none.

    The noise is supposed, so that only the examples' part has degrees of freedom.
    """
    if test.nu >= CALIBRATED_DF or not test.tau or test.n < 2 or not math.isfinite(test.se):
        return 0.0
    c = _share_of_seeds(test.k_baseline, test.k_candidate, untrained=test.untrained)
    more = (NOISIER * NOISIER - 1) * c * test.tau * test.tau
    return survival(change * test.change / math.sqrt(test.se * test.se + more), test.n - 1)


def seeds_to_decide(
    test: PairedTest,
    differences: Differences,
    noise: SeedNoise,
    prior: Prior,
    max_regression: float,
) -> int | None:
    """The fewest seeds a side that would clear a truly unchanged model at this n.

    Cleared: the upper 95% bound, at a mean difference of 0, is below `max_regression` (in the
    metric's unit). The first four arguments are those of an inconclusive `paired_test` and its
    result; the answer is above its seeds. Supposed: the seed noise is as large as `test.tau`, known
    the better by the new replicates; and what of the examples' variance is seed x example
    interaction shrinks with the seeds, the rest stays. None above 100 seeds, or for one example.
    """
    now = _share_of_seeds(test.k_baseline, test.k_candidate, untrained=test.untrained)
    lasting = max(differences.variance - now * noise.interaction, 0.0)
    settled = Prior(test.tau, prior.df)
    own = test.k_baseline + test.k_candidate - 2
    for k in range(max(test.k_baseline, test.k_candidate) + 1, MOST_SEEDS + 1):
        then = _share_of_seeds(k, k, untrained=test.untrained)
        variance = min(lasting + then * noise.interaction, differences.variance)
        expected = SeedNoise(test.tau * test.tau, noise.interaction, noise.df - own + 2 * (k - 1))
        unchanged = Differences(differences.n, 0.0, variance)
        cleared = paired_test(
            unchanged, k, k, expected, settled, test.alpha, untrained=test.untrained
        )
        if cleared.upper < max_regression:
            return k
    return None


def examples_to_decide(
    test: PairedTest,
    differences: Differences,
    noise: SeedNoise,
    prior: Prior,
    max_regression: float,
) -> int | None:
    """The fewest examples that would clear a truly unchanged model at these seeds.

    As `seeds_to_decide`, with more examples whose differences vary as much as these. None above a
    million examples, or for one example, whose variance is unknown.
    """

    def clears(n: int) -> bool:
        more = replace(differences, n=n, mean=0.0)
        seeds = test.k_baseline, test.k_candidate
        expected = paired_test(more, *seeds, noise, prior, test.alpha, untrained=test.untrained)
        return expected.upper < max_regression

    if differences.n < 2 or not clears(MOST_EXAMPLES):
        return None
    # The bound falls with the number of examples, so the least one is found by halving.
    return bisect_left(range(MOST_EXAMPLES), True, lo=differences.n + 1, key=clears)


def _compare(
    change: float,
    sampling: float,
    n: int,
    seeds: tuple[int, int],
    noise: SeedNoise,
    prior: Prior,
    alpha: float,
    *,
    untrained: bool = False,
) -> PairedTest:
    """`sampling` is the squared standard error that the examples bring."""
    if not math.isfinite(change) or math.isnan(sampling) or not math.isfinite(noise.variance):
        raise ValueError(f"wanted finite figures, found {change}, {sampling}, {noise.variance}")
    if min(seeds) < 1 or not 0 < alpha < 1 or not 0 < prior.df < math.inf:
        raise ValueError(f"wanted seeds, 0 < alpha < 1, a prior, found {seeds}, {alpha}, {prior}")
    c = _share_of_seeds(*seeds, untrained=untrained)
    total = prior.df + noise.df
    seed_variance = shrunk(noise, prior)
    squared_se = sampling + c * seed_variance
    # tau's estimate came from run means, which vary with the interaction too.
    doubt = seed_variance + (noise.df / total * noise.interaction / n if n else 0.0)
    df = _degrees(squared_se, sampling, n - 1, c * doubt, total)
    return PairedTest(
        change, math.sqrt(squared_se), df, math.sqrt(seed_variance), noise.df, alpha, n, *seeds
    )


def _share_of_seeds(k_baseline: int, k_candidate: int, *, untrained: bool) -> float:
    """The share of the seed variance in that of a change; an untrained baseline adds none."""
    return (0.0 if untrained else 1 / k_baseline) + 1 / k_candidate


def _degrees(
    squared_se: float, sampling: float, sampling_df: int, seed: float, seed_df: float
) -> float:
    """Satterthwaite's degrees of freedom, from shares: fourth powers of a loss may underflow.

    The seeds' share is at most 1. It passes 1 where the log's interaction is larger than these
    examples' differences show (two models alike on every example), and would then leave a small
    fraction of a degree of freedom, and bounds beyond any loss.
    """
    if squared_se == 0:
        return math.inf
    if math.isinf(squared_se):
        return 1.0
    of_examples = (sampling / squared_se) ** 2 / sampling_df if sampling else 0.0
    return 1 / (of_examples + min(1.0, seed / squared_se) ** 2 / seed_df)
