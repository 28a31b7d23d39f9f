"""What the gate's statistic finds, and how often it cries wolf: the gate's bounds by simulation.

    python benchmarks/gate.py [--trials 3000]

Every decision is made by pytest_ftloop.gate.statistic; numpy only draws the runs (gate_draws.py
describes them) and reduces them to sufficient statistics. Exits 1 when a bound is missed by more
than three standard errors of a binomial share with that bound and this number of trials.

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

import numpy as np
from gate_base import forgetting_alarms, lift_alarms
from gate_draws import (
    NOISES,
    RATE_EFFECTS,
    SEED,
    SIDE,
    Array,
    Comparison,
    Draws,
    LossDraws,
    Metric,
    RateDraws,
)
from gate_scores import NOISES as SCORE_NOISES
from gate_scores import RESAMPLES, SetDraws, ShareDraws, bootstrap_agrees

from pytest_ftloop.core.noise import Prior, Replicates, SeedNoise, noise_of, pool
from pytest_ftloop.core.runs import Differences
from pytest_ftloop.gate.comparison import IN_DOUBT
from pytest_ftloop.gate.statistic import PairedTest, paired_test, prior_for
from pytest_ftloop.report.markdown import markdown_table

ALPHA = 0.01
WORTH_IT = 0.01
"""The least change that fails, as a share of the loss, or of the examples."""
SIZES = (20, 50, 200, 1000, 2000)
LOSS_EFFECTS = (0.02, 0.05, 0.10, 0.20)
LOGS = ("none", "2 pairs", "4 pairs", "8 pairs", "16 pairs", "5 seeds")
WAYS = {
    "1+1": ((1, 1), (1, 1)),
    "3+3": ((3, 3), (3, 3)),
    "1+1, then 1+3": ((1, 1), (1, 3)),
    "1+1, then 3+3": ((1, 1), (3, 3)),
    "3+1, then 3+3": ((3, 1), (3, 3)),
}
"""Seeds of baseline and candidate: of the first comparison, and of that which decides in doubt."""

MORE_LOGS = ((50, "none"), (200, "none"), (1000, "none"), (200, "5 seeds"), (1000, "5 seeds"))
"""Sizes and logs whose power is shown beside that with 8 pairs."""

BOUNDS = {
    "8 pairs": {0.0: 0.015, 0.005: 0.015, 0.01: 0.015, 0.02: 0.025, 0.04: 0.035},
    "none": {0.0: 0.01, 0.005: 0.01, 0.01: 0.01, 0.02: 0.01, 0.04: 0.05},
}
"""False alarms with one seed per side at any n, by log and seed noise."""

GUARDS = (1, 3, 6)
"""Guards whose false alarms are simulated; each is compared with the base and the baseline."""

SCORE_SIZES = (20, 200, 1000)
SET_SIZES = (50, 200)

POWER_BOUNDS = {0.0: 0.995, 0.01: 0.675, 0.02: 0.245}
"""+5% loss found with one seed per side, n = 1,000 and 8 pairs: 100 / 68 / 25% after rounding."""
UNITS: dict[Metric, str] = {"loss": "% of the loss", "rate": "points"}

Sizes = Mapping[int, Draws]


def main() -> int:
    """Simulate, print the tables, and whether the bounds hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3000, help="per cell (default: 3000)")
    trials = parser.parse_args().trials
    started = time.process_time()
    bounds = Bounds(trials)
    for line in report(trials, bounds):
        print(line, flush=True)
    seconds = time.process_time() - started
    print(
        f"\n{trials} trials per cell, random seed {SEED} (cells of one n share their draws), "
        f"{seconds:.0f} s of one core."
    )
    print("\n".join(bounds.lines()))
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
    del rates
    yield from false_alarms_of_scores(trials, bounds)
    yield from false_alarms_of_the_set(trials, bounds)
    yield from false_alarms_of_the_base(trials, bounds)


@dataclass(frozen=True)
class Outcome:
    """The gate's verdicts on all trials."""

    failed: dict[str, float]
    """Share of failing trials by the way of choosing seeds, as in WAYS."""
    runs: float
    """Mean number of the candidate's runs, where doubt about 1+1 calls for 3."""


def decide(draws: Draws, noise: float, effect: float, kept: str) -> Outcome:
    """The gate's verdicts on every trial, by each way of choosing seeds."""
    comparison, log = draws.comparison(noise, effect), draws.log(noise, kept)
    seeds = {k for steps in WAYS.values() for k in steps}
    judged = {k: verdicts(draws, comparison, log, *k) for k in seeds}
    doubtful = {k: p_values <= IN_DOUBT for k, (p_values, _) in judged.items()}
    # A failure is doubtful too, so a way of one step needs no exception.
    failed = {
        way: float((doubtful[first] & judged[last][1]).mean())
        for way, (first, last) in WAYS.items()
    }
    return Outcome(failed, 1 + (SIDE - 1) * float(doubtful[1, 1].mean()))


def verdicts(
    draws: Draws, comparison: Comparison, log: list[list[Replicates]], k_b: int, k_c: int
) -> tuple[Array, Array]:
    """p and whether the candidate fails, (T,) each, with so many seeds of both sides."""
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
        """Check that a share is at most the bound, allowing its error."""
        self._check(share > bound + self._error(bound), share, bound, cell)

    def at_least(self, share: float, bound: float, cell: str) -> None:
        """Check that a share is at least the bound, allowing its error."""
        self._check(share < bound - self._error(bound), share, bound, cell)

    def _error(self, bound: float) -> float:
        return 3 * math.sqrt(bound * (1 - bound) / self.trials)

    def _check(self, missed: bool, share: float, bound: float, cell: str) -> None:
        self.checked += 1
        if missed:
            self.missed.append(f"{cell}: {percent(share)}%, bound {percent(bound)}%")

    def lines(self) -> list[str]:
        """The outcome in words."""
        how = "allowing three standard errors of a binomial share at the bound"
        if not self.missed:
            return [f"All {self.checked} bounds hold, {how}."]
        missed = (f"- {line}" for line in self.missed)
        return [f"{len(self.missed)} of {self.checked} bounds missed, {how}:", "", *missed]


def false_alarms(sizes: Sizes, kept: str, bounds: Bounds) -> Iterator[str]:
    """Nothing changed, by seed noise and n, with the bounds."""
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


def false_alarms_of_scores(trials: int, bounds: Bounds) -> Iterator[str]:
    """Nothing changed, of what an example scores between 0 and 1."""
    yield from heading("False alarms, sampled passes and scores, in %: nominal 1%")
    rows: list[Sequence[object]] = []
    for kind in ("sampled", "score"):
        for n in SCORE_SIZES:
            draws = ShareDraws.of(kind, n, trials)
            for kept in ("8 pairs", "none") if n == 200 else ("8 pairs",):
                for noise in SCORE_NOISES:
                    comparison, log = draws.comparison(noise, 0.0), draws.log(noise, kept)
                    _, failed = verdicts(draws, comparison, log, 1, 1)
                    share, bound = float(failed.mean()), BOUNDS[kept][noise]
                    cell = f"False alarms, {kind}, n = {n}, seed noise {percent(noise)}%"
                    bounds.at_most(share, bound, f"{cell}, log: {kept}")
                    figures = [percent(noise), kept, percent(bound), percent(share)]
                    rows.append([kind, n, *figures])
    heads = ["metric", "n", f"seed noise, {UNITS['rate']}", "A/A log", "bound", "1+1"]
    yield from table(heads, rows)


def false_alarms_of_the_set(trials: int, bounds: Bounds) -> Iterator[str]:
    """Nothing changed, of macro-F1 by the bootstrap."""
    yield from heading(
        f"False alarms, macro-F1 by the bootstrap, {RESAMPLES} resamples, in %: nominal 1%"
    )
    rows: list[Sequence[object]] = []
    for n in SET_SIZES:
        for noise in SCORE_NOISES:
            share = of_the_set(SetDraws.of(n, trials, noise))
            bound = BOUNDS["8 pairs"][noise]
            cell = f"False alarms, macro-F1, n = {n}, seed noise {percent(noise)}%"
            bounds.at_most(share, bound, cell)
            rows.append([n, percent(noise), percent(bound), percent(share)])
    yield from table(["n", f"seed noise, {UNITS['rate']}", "bound", "1+1"], rows)
    agrees = bootstrap_agrees()
    bounds.at_least(float(agrees), 1.0, "the bootstrap here and the gate's agree")


def false_alarms_of_the_base(trials: int, bounds: Bounds) -> Iterator[str]:
    """A gain of exactly the bound, and guards that are no worse than base and baseline."""
    yield from heading("False alarms, lift and forgetting, in %: nominal 1%")
    rows: list[Sequence[object]] = []
    for kept, of_noise in BOUNDS.items():
        for noise, bound in of_noise.items():
            for n in SCORE_SIZES:
                lift = lift_alarms(n, noise, kept, trials, SEED)
                cell = f"n = {n}, seed noise {percent(noise)}%, log: {kept}"
                bounds.at_most(lift, bound, f"False alarms, lift, {cell}")
                forgetting = dict.fromkeys(GUARDS, "-")
                for guards in forgetting if n == SCORE_SIZES[1] else ():
                    share = forgetting_alarms(n, noise, kept, trials, SEED, guards)
                    bounds.at_most(share, bound, f"False alarms, forgetting ({guards}), {cell}")
                    forgetting[guards] = percent(share)
                figures = [percent(noise), kept, percent(bound), percent(lift)]
                rows.append([n, *figures, *forgetting.values()])
    noise_head = f"seed noise, {UNITS['loss']}"
    heads = ["n", noise_head, "A/A log", "bound", "lift", *(f"{n} guards" for n in GUARDS)]
    yield from table(heads, rows)


def of_the_set(draws: SetDraws) -> float:
    """The share of trials that fail, by the gate's test of a metric of the whole set."""
    failed = 0
    columns = (draws.before, draws.after, draws.variance, draws.pairs)
    for before, after, variance, pairs in zip(*(c.tolist() for c in columns), strict=True):
        found = Differences(draws.n, before - after, max(draws.n * variance, 1 / draws.n))
        noise = noise_of(pairs)
        test = paired_test(found, 1, 1, noise, prior_for("loss", 1.0, noise.df), ALPHA)
        failed += test.p_worse <= ALPHA and test.change >= WORTH_IT
    return failed / len(draws.before)


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
    """Real regressions; a cell has the shares of all effects."""
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


if __name__ == "__main__":
    sys.exit(main())
