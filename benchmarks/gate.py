"""What the gate's statistic finds, and how often it cries wolf: the gate's bounds by simulation.

    python benchmarks/gate.py [--trials 3000] [--quick] [--markdown FILE]

Every decision is made by pytest_ftloop.gate.statistic; numpy only draws the losses and reduces
them to sufficient statistics. Exits 1 when a bound is missed by more than three standard errors of
a binomial share with that bound and this number of trials.

The loss: per example log-normal with mean 1 and sd 0.7; a run adds a shift common to all examples
(the seed noise) and an interaction of seed and example, sd 0.15, in proportion to the example's
loss; a regression multiplies the candidate's losses. The pass rate: logits of the examples
N(1.7, 3^2), so that 69% pass; a run adds a shift to every logit (a seed noise in points, to first
order) and passes each example with its probability anew, so that 20% of the examples flip between
two runs; a regression lowers every logit.

A failure: p <= 1% and a change of at least 1% of the loss (1 point). Seeds are written baseline +
candidate; after a comma, those that decide when the first comparison has p <= 20%. Runs: the mean
number of the candidate's runs from 1+1 (the baseline's may be in the log already).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pytest_ftloop.core.noise import Prior, Replicates, SeedNoise, pool
from pytest_ftloop.core.runs import Differences
from pytest_ftloop.gate.statistic import PairedTest, paired_test, prior_for
from pytest_ftloop.report.markdown import markdown_table

Array = NDArray[Any]
Metric = Literal["loss", "rate"]

SEED = 20240601
ALPHA = 0.01
WORTH_IT = 0.01
"""The least change that fails, as a share of the loss, or of the examples."""
UNSURE = 0.20
"""Escalation: above this p one seed is enough."""
SIZES = (20, 50, 200, 1000, 2000)
NOISES = (0.0, 0.005, 0.01, 0.02, 0.04)
LOSS_EFFECTS = (0.02, 0.05, 0.10, 0.20)
RATE_EFFECTS = (0.03, 0.05, 0.10)
LOGS = ("none", "2 pairs", "4 pairs", "8 pairs", "16 pairs", "5 seeds")
WAYS = {
    "1+1": ((1, 1), (1, 1)),
    "3+3": ((3, 3), (3, 3)),
    "1+1, then 1+3": ((1, 1), (1, 3)),
    "1+1, then 3+3": ((1, 1), (3, 3)),
    "3+1, then 3+3": ((3, 1), (3, 3)),
}
"""Seeds of baseline and candidate: of the first comparison, and of that which decides in doubt."""
SIDE, PAIRS, RATE_PAIRS, CALIBRATION = 3, 16, 8, 5
ROWS = 400_000
"""Examples drawn at a time, over trials."""

MORE_LOGS = ((50, "none"), (200, "none"), (1000, "none"), (200, "5 seeds"), (1000, "5 seeds"))
"""Sizes and logs whose power is shown beside that with 8 pairs."""

BOUNDS = {
    "8 pairs": {0.0: 0.015, 0.005: 0.015, 0.01: 0.015, 0.02: 0.025, 0.04: 0.035},
    "none": {0.0: 0.01, 0.005: 0.01, 0.01: 0.01, 0.02: 0.01, 0.04: 0.05},
}
"""False alarms with one seed a side at any n, by log and seed noise."""

POWER_BOUNDS = {0.0: 0.995, 0.01: 0.675, 0.02: 0.245}
"""+5% loss found with one seed a side, n = 1,000 and 8 pairs: 100 / 68 / 25%, before rounding."""
UNITS: dict[Metric, str] = {"loss": "% of the loss", "rate": "points"}


def main() -> int:
    """Simulate, print the tables, and say whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="300 trials a cell")
    parser.add_argument("--markdown", type=Path, help="write the tables between its marks")
    chosen = parser.parse_args()
    trials = 300 if chosen.quick else chosen.trials
    started = time.process_time()
    bounds = Bounds(trials)
    lines = list(report(trials, bounds))
    seconds = time.process_time() - started
    lines += [
        "",
        f"{trials} trials a cell, random seed {SEED} (cells of one n share their draws), "
        f"{seconds:.0f} s of one core.",
        *bounds.lines(),
    ]
    print("\n".join(lines))
    if chosen.markdown:
        write_between_marks(chosen.markdown, lines)
    return 1 if bounds.missed else 0


def report(trials: int, bounds: Bounds) -> Iterator[str]:
    """All tables, as lines of Markdown."""
    losses = {n: LossDraws.of(n, trials) for n in SIZES}
    yield from false_alarms(losses, "8 pairs", bounds)
    yield from false_alarms(losses, "none", bounds)
    yield from log_sizes(losses[200])
    yield from power(losses, LOSS_EFFECTS, MORE_LOGS, bounds)
    del losses  # both would hold too much memory
    rates = {n: RateDraws.of(n, trials) for n in SIZES}
    yield from false_alarms(rates, "8 pairs", bounds)
    yield from false_alarms(rates, "none", bounds)
    yield from power(rates, RATE_EFFECTS, (), bounds)


class Draws(Protocol):
    """Simulated runs of one eval set size, as sufficient statistics."""

    @property
    def n(self) -> int: ...
    @property
    def metric(self) -> Metric: ...

    def comparison(self, noise: float, effect: float) -> Comparison:
        """The runs to compare; `effect` of the candidate, as a share of the loss or of all."""

    def log(self, noise: float, kept: str) -> list[list[Replicates]]:
        """The A/A groups each trial's log holds."""


Sizes = Mapping[int, Draws]


@dataclass(frozen=True)
class Comparison:
    """Three baseline runs, then three candidate runs, on n common examples; higher is worse."""

    n: int
    means: Array  # (T, 6)
    covariances: Array  # (T, 6, 6) over examples

    def differences(self, k_baseline: int, k_candidate: int) -> tuple[Array, Array]:
        """Mean and variance of the examples' differences, each (T,)."""
        weights = np.zeros(2 * SIDE)
        weights[:k_baseline] = -1 / k_baseline
        weights[SIDE : SIDE + k_candidate] = 1 / k_candidate
        return self.means @ weights, np.einsum("i,tij,j->t", weights, self.covariances, weights)

    def replicates(self, first: int, k: int) -> list[list[Replicates]]:
        """The runs from `first`, as an A/A group of each trial; none for a single run."""
        if k == 1:
            return [[] for _ in self.means]
        side = slice(first, first + k)
        return [
            [group]
            for group in groups(self.n, self.means[:, side], self.covariances[:, side, side])
        ]


def groups(n: int, means: Array, covariances: Array) -> list[Replicates]:
    """An A/A group a trial, from its runs' means (T, k) and covariances (T, k, k)."""
    k = means.shape[1]
    within = np.einsum("tii->t", covariances) - covariances.sum((1, 2)) / k
    return [
        Replicates(k, n, v, ms)
        for v, ms in zip(means.var(1, ddof=1).tolist(), (within / (k - 1)).tolist(), strict=True)
    ]


def pair_groups(n: int, means: Array, variances: Array) -> list[list[Replicates]]:
    """A trial's A/A pairs, from the mean and variance of each pair's differences, both (T, P)."""
    return [
        [Replicates(2, n, m * m / 2, v / 2) for m, v in zip(*pairs, strict=True)]
        for pairs in zip(means.tolist(), variances.tolist(), strict=True)
    ]


def moments(values: Array) -> tuple[Array, Array]:
    """Means (T, k) and covariances (T, k, k) over the examples of values (T, k, n)."""
    means = values.mean(2, dtype=np.float64)
    centred = values - means[:, :, None]
    return means, centred @ centred.transpose(0, 2, 1) / (values.shape[2] - 1)


def chunks(trials: int, n: int) -> Iterator[int]:
    """Numbers of trials to draw at a time, so that memory stays small."""
    size = max(1, ROWS // n)
    while trials > 0:
        yield min(size, trials)
        trials -= size


@dataclass(frozen=True)
class LossDraws:
    """Runs without any shift, and standard normal shifts for any seed noise. Loss scale 1."""

    n: int
    means: Array  # (T, 6)
    covariances: Array  # (T, 6, 6)
    calibration: tuple[Array, Array]  # means (T, 5), covariances (T, 5, 5)
    pairs: tuple[Array, Array]  # of the differences: means (T, 16), variances (T, 16)
    shifts: Array  # (T, 6 + 5 + 16)
    metric: Metric = "loss"

    SPREAD, INTERACTION = math.sqrt(math.log(1 + 0.7**2)), 0.15

    @classmethod
    def of(cls, n: int, trials: int) -> LossDraws:
        """Draw all runs of all trials."""
        rng = np.random.default_rng([SEED, 0, n])
        parts = [cls._chunk(rng, size, n) for size in chunks(trials, n)]
        of_runs, covariances, of_pairs, variances = map(np.concatenate, zip(*parts, strict=True))
        ours, theirs = slice(2 * SIDE), slice(2 * SIDE, None)
        return cls(
            n,
            of_runs[:, ours],
            covariances[:, ours, ours],
            (of_runs[:, theirs], covariances[:, theirs, theirs]),
            (of_pairs, variances),
            rng.standard_normal((trials, 2 * SIDE + CALIBRATION + PAIRS)),
        )

    @classmethod
    def _chunk(cls, rng: np.random.Generator, size: int, n: int) -> tuple[Array, ...]:
        normal = rng.standard_normal((size, 1, n))
        levels = np.exp(cls.SPREAD * normal - cls.SPREAD**2 / 2)
        interaction = levels * (cls.INTERACTION / math.exp(cls.SPREAD**2 / 2))
        runs = rng.standard_normal((size, 2 * SIDE + CALIBRATION, n)) * interaction + levels
        # The difference of two normals is one normal.
        pairs = rng.standard_normal((size, PAIRS, n)) * (math.sqrt(2) * interaction)
        return *moments(runs), pairs.mean(2), pairs.var(2, ddof=1)

    def comparison(self, noise: float, effect: float) -> Comparison:
        factors = np.repeat([1.0, 1.0 + effect], SIDE)
        means = (self.means + noise * self.shifts[:, : 2 * SIDE]) * factors
        return Comparison(self.n, means, self.covariances * factors * factors[:, None])

    def log(self, noise: float, kept: str) -> list[list[Replicates]]:
        shifts = noise * self.shifts[:, 2 * SIDE :]
        if kept == "5 seeds":
            means, covariances = self.calibration
            return [
                [group] for group in groups(self.n, means + shifts[:, :CALIBRATION], covariances)
            ]
        count = pairs_in(kept)
        means, variances = (of_pairs[:, :count] for of_pairs in self.pairs)
        apart = math.sqrt(2) * shifts[:, CALIBRATION : CALIBRATION + count]
        return pair_groups(self.n, means + apart, variances)


@dataclass(frozen=True)
class RateDraws:
    """Failures (1 - pass) by seed noise and effect: a shift of logits can't be added later."""

    n: int
    comparisons: dict[tuple[float, float], Comparison]
    pairs: dict[float, tuple[Array, Array]]
    metric: Metric = "rate"

    CENTRE, SPREAD = 1.7, 3.0

    @classmethod
    def of(cls, n: int, trials: int) -> RateDraws:
        """Draw all runs of all trials."""
        rng = np.random.default_rng([SEED, 1, n])
        parts = [cls._chunk(rng, size, n) for size in chunks(trials, n)]
        joined = {
            key: tuple(map(np.concatenate, zip(*(part[key] for part in parts), strict=True)))
            for key in parts[0]
        }
        comparisons = {key: Comparison(n, *joined[key]) for key in joined if isinstance(key, tuple)}
        pairs = {noise: (joined[noise][0], joined[noise][1]) for noise in NOISES}
        return cls(n, comparisons, pairs)

    @classmethod
    def _chunk(cls, rng: np.random.Generator, size: int, n: int) -> dict[Any, tuple[Array, ...]]:
        runs = 2 * SIDE + 2 * RATE_PAIRS
        logits = rng.standard_normal((size, 1, n), np.float32) * cls.SPREAD + cls.CENTRE
        uniform = rng.random((size, runs, n), np.float32).clip(1e-7, 1 - 1e-7)
        # Passed with probability sigmoid(logit): where the logit is above logistic noise.
        margins = logits - np.log(uniform / (1 - uniform))
        shifts = rng.standard_normal((size, runs, 1), np.float32) / slope()
        out: dict[Any, tuple[Array, ...]] = {}
        for noise in NOISES:
            failed = margins[:, 2 * SIDE :] < noise * shifts[:, 2 * SIDE :]
            apart = failed[:, ::2].astype(np.int8) - failed[:, 1::2]
            means = apart.mean(2)
            flips = np.count_nonzero(apart, axis=2)
            out[noise] = means, (flips - n * means**2) / (n - 1)
            for effect in (0.0, *RATE_EFFECTS):
                fall = np.repeat([0.0, logit_fall(effect)], SIDE)[:, None]
                ours = margins[:, : 2 * SIDE] < noise * shifts[:, : 2 * SIDE] + fall
                out[noise, effect] = moments(ours.astype(np.float32))
        return out

    def comparison(self, noise: float, effect: float) -> Comparison:
        return self.comparisons[noise, effect]

    def log(self, noise: float, kept: str) -> list[list[Replicates]]:
        means, variances = (of_pairs[:, : pairs_in(kept)] for of_pairs in self.pairs[noise])
        return pair_groups(self.n, means, variances)


def pairs_in(kept: str) -> int:
    return 0 if kept == "none" else int(kept.split()[0])


@cache
def population() -> Array:
    """Logits of the examples, at evenly spaced ranks."""
    normal = NormalDist(RateDraws.CENTRE, RateDraws.SPREAD)
    return np.array([normal.inv_cdf((i + 0.5) / 4000) for i in range(4000)])


def pass_rate(fall: float) -> float:
    return float(np.mean(1 / (1 + np.exp(fall - population()))))


@cache
def slope() -> float:
    """Pass rate lost per logit, at first."""
    return (pass_rate(0) - pass_rate(1e-4)) / 1e-4


@cache
def logit_fall(drop: float) -> float:
    """The fall of every logit that lowers the pass rate by `drop`."""
    low, high = 0.0, 5.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if pass_rate(0) - pass_rate(middle) < drop else (low, middle)
    return low


@dataclass(frozen=True)
class Outcome:
    """What the gate said of all trials."""

    failed: dict[str, float]
    """Share of trials by the way of choosing seeds, as in WAYS."""
    runs: float
    """The candidate's, on average, where doubt over 1+1 calls for 3."""


def decide(draws: Draws, noise: float, effect: float, kept: str) -> Outcome:
    """The gate's verdict on every trial, each way of choosing seeds."""
    comparison, log = draws.comparison(noise, effect), draws.log(noise, kept)
    seeds = {k for steps in WAYS.values() for k in steps}
    judged = {k: verdicts(draws, comparison, log, *k) for k in seeds}
    doubtful = {k: p_values <= UNSURE for k, (p_values, _) in judged.items()}
    # A failure is doubtful too, so a way of one step needs no exception.
    failed = {
        way: float((doubtful[first] & judged[last][1]).mean())
        for way, (first, last) in WAYS.items()
    }
    return Outcome(failed, 1 + (SIDE - 1) * float(doubtful[1, 1].mean()))


def verdicts(
    draws: Draws, comparison: Comparison, log: list[list[Replicates]], k_b: int, k_c: int
) -> tuple[Array, Array]:
    """p and whether it fails, (T,) each, with these seeds of baseline and candidate."""
    levels = comparison.means[:, :k_b].mean(1)
    own = zip(comparison.replicates(0, k_b), comparison.replicates(SIDE, k_c), strict=True)
    columns = (levels, *comparison.differences(k_b, k_c))
    out = []
    for known, sides, level, mean, variance in zip(
        log, own, *(column.tolist() for column in columns), strict=True
    ):
        noise = pool([*known, *sides[0], *sides[1]])
        prior = prior_for(draws.metric, level, noise.df)
        test = paired_test(Differences(draws.n, mean, variance), k_b, k_c, noise, prior, ALPHA)
        p, least = test.p_worse, WORTH_IT * (level if draws.metric == "loss" else 1.0)
        out.append((p, p <= ALPHA and mean >= least))
    p_values, failed = zip(*out, strict=True)
    return np.array(p_values), np.array(failed)


def tolerance(draws: Draws, comparison: Comparison) -> float:
    """Fails when the loss rose by more than 2%, or the pass rate fell by more than 2 points."""
    change, _ = comparison.differences(1, 1)
    return float((change > 0.02 * (comparison.means[:, 0] if draws.metric == "loss" else 1)).mean())


def paired_t(draws: Draws, comparison: Comparison) -> float:
    """The paired t-test over examples at 1%: ours without any seed noise."""
    quiet, sure = SeedNoise(0.0, 0.0, 0), Prior(0.0, 1.0)

    def test(mean: float, variance: float) -> PairedTest:
        return paired_test(Differences(draws.n, mean, variance), 1, 1, quiet, sure, ALPHA)

    columns = (column.tolist() for column in comparison.differences(1, 1))
    found = [test(*row).p_worse <= ALPHA for row in zip(*columns, strict=True)]
    return float(np.mean(found))


def unpaired_z(draws: Draws, comparison: Comparison) -> float:
    """Two independent samples of examples, at 1%."""
    change, _ = comparison.differences(1, 1)
    variances = comparison.covariances[:, 0, 0] + comparison.covariances[:, SIDE, SIDE]
    return float((change > 2.326 * np.sqrt(variances / draws.n)).mean())


def mcnemar(draws: Draws, comparison: Comparison) -> float:
    """The exact one-sided McNemar test at 1%; for pass and fail only."""
    change, variance = comparison.differences(1, 1)
    net = np.rint(change * draws.n).astype(int)
    flips = np.rint(variance * (draws.n - 1) + draws.n * change**2).astype(int)
    counts = zip(flips.tolist(), net.tolist(), strict=True)
    found = [(m + d) // 2 >= fewest_failing(m) for m, d in counts]
    return float(np.mean(found))


@cache
def fewest_failing(flips: int) -> int:
    """The least k with P(Binomial(flips, 1/2) >= k) <= 1%; flips + 1 where there is none."""
    tail, count = 0, flips + 1
    while count and (tail + math.comb(flips, count - 1)) * 100 <= 2**flips:
        count -= 1
        tail += math.comb(flips, count)
    return count


RIVALS: dict[Metric, dict[str, Callable[[Draws, Comparison], float]]] = {
    "loss": {"2% tolerance": tolerance, "paired t": paired_t, "unpaired z": unpaired_z},
    "rate": {
        "2 points tolerance": tolerance,
        "paired t": paired_t,
        "McNemar": mcnemar,
        "unpaired z": unpaired_z,
    },
}


class Bounds:
    """The bounds checked so far, and those missed beyond the simulation's own error."""

    def __init__(self, trials: int) -> None:
        self.trials, self.checked, self.missed = trials, 0, list[str]()

    def at_most(self, share: float, bound: float, cell: str) -> None:
        """Remember a share that is larger than the bound and its error."""
        self._check(share > bound + self._error(bound), share, bound, cell)

    def at_least(self, share: float, bound: float, cell: str) -> None:
        """Remember a share that is smaller than the bound and its error."""
        self._check(share < bound - self._error(bound), share, bound, cell)

    def _error(self, bound: float) -> float:
        return 3 * math.sqrt(bound * (1 - bound) / self.trials)

    def _check(self, missed: bool, share: float, bound: float, cell: str) -> None:
        self.checked += 1
        if missed:
            self.missed.append(f"{cell}: {percent(share)}%, bound {percent(bound)}%")

    def lines(self) -> list[str]:
        """The outcome, for people."""
        how = "allowing three standard errors of a binomial share at the bound"
        if not self.missed:
            return [f"All {self.checked} bounds hold, {how}."]
        missed = (f"- {line}" for line in self.missed)
        return [f"{len(self.missed)} of {self.checked} bounds missed, {how}:", "", *missed]


def false_alarms(sizes: Sizes, kept: str, bounds: Bounds) -> Iterator[str]:
    """Nothing changed, by seed noise and n: the bounds' table."""
    metric = sizes[SIZES[0]].metric
    yield from heading(f"False alarms, {metric}, in %: nominal 1%, A/A log: {kept}")
    heads = ["n", f"seed noise, {UNITS[metric]}", "bound", *WAYS, "runs", *RIVALS[metric]]
    rows: list[Sequence[object]] = []
    for noise, bound in BOUNDS[kept].items():
        for n, draws in sizes.items():
            outcome, comparison = decide(draws, noise, 0.0, kept), draws.comparison(noise, 0.0)
            cell = f"False alarms, {metric}, n = {n}, seed noise {percent(noise)}%, log: {kept}"
            bounds.at_most(outcome.failed["1+1"], bound, cell)
            figures = [percent(noise), percent(bound), *map(percent, outcome.failed.values())]
            rivals = [percent(rival(draws, comparison)) for rival in RIVALS[metric].values()]
            rows.append([n, *figures, f"{outcome.runs:.2f}", *rivals])
    yield from table(heads, rows)


def log_sizes(draws: LossDraws) -> Iterator[str]:
    """Nothing changed, by what the log knows of the seed noise."""
    yield from heading(f"False alarms, loss, in %, by the A/A log: n = {draws.n}")
    rows: list[Sequence[object]] = []
    for kept in LOGS:
        for noise in NOISES:
            outcome = decide(draws, noise, 0.0, kept)
            shares = map(percent, outcome.failed.values())
            rows.append([kept, percent(noise), *shares, f"{outcome.runs:.2f}"])
    yield from table(["log", f"seed noise, {UNITS['loss']}", *WAYS, "runs"], rows)


def power(
    sizes: Sizes, effects: tuple[float, ...], more: tuple[tuple[int, str], ...], bounds: Bounds
) -> Iterator[str]:
    """Real regressions, all effects in one field."""
    metric = sizes[SIZES[0]].metric
    shown = " / ".join(f"{'+' if metric == 'loss' else '-'}{percent(effect)}" for effect in effects)
    yield from heading(f"Regressions found, {metric}, in %, of {shown} {UNITS[metric]}")
    heads = ["n", f"seed noise, {UNITS[metric]}", "log", *WAYS, "runs", *RIVALS[metric]]
    rows: list[Sequence[object]] = []
    for n, kept in [*((n, "8 pairs") for n in sizes), *more]:
        for noise in NOISES:
            draws = sizes[n]
            each = {effect: decide(draws, noise, effect, kept) for effect in effects}
            compared = [draws.comparison(noise, effect) for effect in effects]
            if (metric, n, kept) == ("loss", 1000, "8 pairs") and noise in POWER_BOUNDS:
                cell = f"+5% loss found, n = {n}, seed noise {percent(noise)}%"
                bounds.at_least(each[0.05].failed["1+1"], POWER_BOUNDS[noise], cell)
            found = [whole(outcome.failed[way] for outcome in each.values()) for way in WAYS]
            runs = " / ".join(f"{outcome.runs:.1f}" for outcome in each.values())
            rivals = [whole(rival(draws, c) for c in compared) for rival in RIVALS[metric].values()]
            rows.append([n, percent(noise), kept, *found, runs, *rivals])
    yield from table(heads, rows)


def heading(text: str) -> tuple[str, ...]:
    return "", f"**{text}**", ""


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table of our own words."""
    texts = (map(str, row) for row in rows)
    return markdown_table(headers, [[*row] for row in texts], escape=str, compact=True).splitlines()


def percent(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".")


def whole(shares: Iterable[float]) -> str:
    return " / ".join(f"{100 * share:.0f}" for share in shares)


def write_between_marks(file: Path, lines: list[str]) -> None:
    """Replace what stands between the two marks; everything else stays."""
    first, last = "<!-- gate simulation -->", "<!-- end gate simulation -->"
    before, found, rest = file.read_text("utf-8").partition(first)
    _, found_last, after = rest.partition(last)
    if not found or not found_last:
        sys.exit(f"{file}: wanted the marks {first} and {last}")
    body = "\n".join(lines).strip()
    file.write_text(f"{before}{first}\n{body}\n{last}{after}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
