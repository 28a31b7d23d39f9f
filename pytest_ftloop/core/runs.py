"""The runs of an iteration, which of them are comparable, and the examples that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_ftloop.core.records import ExampleResult, Iteration, SeedRun

Measured = Iteration | SeedRun
"""One training of some settings with one seed, and what each example showed."""

Unit = Literal["loss", "rate"]

DECISIVE = ("device", "precision", "torch", "transformers", "trl", "peft")
"""What of the environment can shift figures one way: other hardware, other code. Threads, Python
and the kind of processor change rounding only; a run that rounds differently is like another seed,
and the comparison knows that noise."""

LARGEST = 1e100
"""No loss of a training comes near it; beyond, squares would overflow."""


@dataclass(frozen=True)
class ExampleMetric:
    """A metric that each example has: its unit, and an example's contribution, higher = worse.

    The mean over the examples is the metric's own figure (1 - it for a rate): a token mean is a
    mean over examples of what each brings, divided by the mean number of tokens.
    """

    name: str
    unit: Unit
    value: Callable[[ExampleResult, float], float]

    def values(self, rows: Sequence[ExampleResult]) -> list[float]:
        """Each example's value (n,), for rows in the order of the common examples.

        NaN for a metric by token where the rows have no token.
        """
        mean_tokens = sum([row.tokens for row in rows]) / len(rows) if rows else 0.0
        tokens = mean_tokens or math.nan
        return [self.value(row, tokens) for row in rows]

    def figure(self, badness: float) -> float:
        """The metric's own figure of a mean value."""
        return badness if self.unit == "loss" else 1 - badness


EXAMPLE_METRICS: Mapping[str, ExampleMetric] = {
    metric.name: metric
    for metric in (
        ExampleMetric("eval_loss", "loss", lambda row, tokens: row.loss / tokens),
        ExampleMetric("pass_rate", "rate", lambda row, _: 0.0 if row.passed else 1.0),
        ExampleMetric(
            "token_accuracy", "rate", lambda row, tokens: (row.tokens - row.correct) / tokens
        ),
    )
}

RUN_METRICS = ("overfit_gap", "train_loss")
"""Metrics of a whole run: its examples are not those of the eval set alone."""


def runs_of(
    iteration: Iteration, iterations: Iterable[Iteration], seed_runs: Iterable[SeedRun]
) -> tuple[Measured, ...]:
    """Every run of an iteration's settings: itself, other seeds, other environments."""
    found: list[Measured] = [iteration]
    others: list[Measured] = [*iterations, *seed_runs]
    for other in others:
        same = other.group == iteration.group if iteration.group else False
        if same or (isinstance(other, SeedRun) and other.iteration == iteration.id):
            found.append(other)
    kept: dict[tuple[object, ...], Measured] = {}
    for run in found:
        kept.setdefault((run.seed, decisive(run.environment)), run)
    return tuple(kept.values())


def groups_of(
    iterations: Iterable[Iteration], seed_runs: Iterable[SeedRun]
) -> tuple[tuple[Measured, ...], ...]:
    """The A/A groups: runs of equal settings in one environment, with two seeds or more."""
    groups: dict[tuple[object, ...], dict[int, Measured]] = {}
    runs: list[Measured] = [*iterations, *seed_runs]
    for run in runs:
        if run.group:
            key = (run.group, decisive(run.environment))
            groups.setdefault(key, {}).setdefault(run.seed, run)
    return tuple(tuple(group.values()) for group in groups.values() if len(group) > 1)


def in_environment(
    runs: Iterable[Measured], environment: Mapping[str, str]
) -> tuple[Measured, ...]:
    """The runs whose environment can't have shifted a figure against this one."""
    wanted = decisive(environment)
    return tuple(run for run in runs if decisive(run.environment) == wanted)


def decisive(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The decisive part of an environment. A build's label (`2.13.0+cpu`) says what device does."""
    return tuple(environment.get(key, "").partition("+")[0] for key in DECISIVE)


def environment_changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """What of the decisive part differs: `torch 2.12.0 -> 2.13.0`."""
    pairs = zip(DECISIVE, decisive(before), decisive(after), strict=True)
    return tuple(f"{key} {old or '?'} -> {new or '?'}" for key, old, new in pairs if old != new)


def why_incomplete(run: Measured, figures: Iterable[str] = ()) -> str:
    """What is missing of a run's examples, or of these figures; empty when nothing is."""
    rows = len(run.examples)
    expected = run.data.get("eval", {}).get("rows", rows)
    if rows != expected:
        return f"its table has {rows} of {expected} examples"
    not_finite = [row.id for row in run.examples if not is_figure(row.loss)]
    if not_finite:
        return f"the loss of {len(not_finite)} of {rows} examples is not finite ({not_finite[0]})"
    unscored = [row.id for row in run.examples if row.passed is None]
    if unscored:
        return f"{len(unscored)} of {rows} examples were not scored ({unscored[0]})"
    missing = [name for name in figures if not has_figure(run, name)]
    return f"it has no figure {missing[0]}" if missing else ""


def has_figure(run: Measured, name: str) -> bool:
    """Whether a run's figure is there and finite."""
    return is_figure(run.metrics.get(name, math.nan))


def is_figure(value: float) -> bool:
    """Whether a value can be reckoned with: no NaN, not infinite, nor as good as that."""
    return abs(value) < LARGEST


@dataclass(frozen=True)
class Common:
    """The examples that all runs share with equal content, by id; and how far they differ.

    `changed` are ids whose content differs, `only_baseline` and `only_candidate` ids that one side
    alone has.
    """

    ids: tuple[str, ...]
    changed: tuple[str, ...]
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]

    @classmethod
    def of(cls, baseline: Sequence[Measured], candidate: Sequence[Measured]) -> Common:
        """Pair the examples of both sides by id and content."""
        contents = [{row.id: row.content for row in run.examples} for run in baseline]
        others = [{row.id: row.content for row in run.examples} for run in candidate]
        old, new = contents[0], others[0]
        shared = [id_ for id_ in sorted(new) if id_ in old]
        same = [
            id_
            for id_ in shared
            if all(table.get(id_) == new[id_] for table in (*contents, *others))
        ]
        return cls(
            ids=tuple(same),
            changed=tuple(sorted(set(shared) - set(same))),
            only_baseline=tuple(sorted(set(old) - set(new))),
            only_candidate=tuple(sorted(set(new) - set(old))),
        )


def rows_of(run: Measured, ids: Sequence[str]) -> list[ExampleResult]:
    """A run's rows of these examples, in this order. KeyError where one is missing."""
    by_id = {row.id: row for row in run.examples}
    return [by_id[id_] for id_ in ids]


@dataclass(frozen=True)
class Differences:
    """The differences candidate - baseline of n common examples: their mean and variance.

    One example has no variance: NaN.
    """

    n: int
    mean: float
    variance: float


def differences(values: Sequence[float]) -> Differences:
    """Mean and variance of the examples' differences. ValueError for none, NaN or infinity."""
    require_finite(values)
    return Differences(len(values), mean_of(values), variance_of(values))


def mean_of(values: Sequence[float]) -> float:
    """The arithmetic mean, summed exactly."""
    return math.fsum(values) / len(values)


def variance_of(values: Sequence[float]) -> float:
    """With divisor n - 1; NaN for one value."""
    if len(values) < 2:
        return math.nan
    mean = mean_of(values)
    return math.fsum((value - mean) * (value - mean) for value in values) / (len(values) - 1)


def require_finite(values: Sequence[float]) -> None:
    """Raise a ValueError for no value, NaN or infinity."""
    if not values:
        raise ValueError("wanted at least one value, found none")
    if not all(map(math.isfinite, values)):
        raise ValueError("wanted finite values, found NaN or infinity")
