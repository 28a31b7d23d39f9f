"""The runs of an iteration, which of them are comparable, and the examples they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_ftloop.core.metrics import figure_of, is_score
from pytest_ftloop.core.pairing import paired
from pytest_ftloop.core.records import ExampleResult, Iteration, SeedRun, measured_content
from pytest_ftloop.core.sampled import estimate, is_sampled_metric, score_of, share_of

Measured = Iteration | SeedRun
"""One training of some settings with one seed, with the result of each example."""

Unit = Literal["loss", "rate"]

DECISIVE = ("device", "precision", "torch", "transformers", "trl", "peft")
"""The parts of an environment that can shift figures in one direction: other hardware or code.
Threads, Python and the type of processor only change rounding, which is noise like another seed."""

LARGEST = 1e100
"""Figures above this limit count as infinite: no real loss comes near it, squares may overflow."""


@dataclass(frozen=True)
class ExampleMetric:
    """A metric that is a mean over examples: its unit and each example's contribution.

    A higher contribution is worse. Their mean is the metric's figure, or 1 minus it for a rate: a
    mean over tokens is the mean of each example's sum, divided by the mean number of tokens.
    """

    name: str
    unit: Unit
    value: Callable[[ExampleResult, float], float]

    def values(self, rows: Sequence[ExampleResult]) -> list[float]:
        """The contribution of each example, shape (n,), in the order of the rows.

        NaN for a metric per token if the rows have no tokens.
        """
        mean_tokens = sum([row.tokens for row in rows]) / len(rows) if rows else 0.0
        tokens = mean_tokens or math.nan
        return [self.value(row, tokens) for row in rows]

    def figure(self, badness: float) -> float:
        """The metric's figure for a mean contribution."""
        return badness if self.unit == "loss" else 1 - badness


EXAMPLE_METRICS: Mapping[str, ExampleMetric] = {
    metric.name: metric
    for metric in (
        ExampleMetric("eval_loss", "loss", lambda row, tokens: row.loss / tokens),
        ExampleMetric("pass_rate", "rate", lambda row, _: 1 - share_of(row)),
        ExampleMetric(
            "token_accuracy", "rate", lambda row, tokens: (row.tokens - row.correct) / tokens
        ),
    )
}
"""The metrics that can be compared example by example."""


def example_metric(name: str) -> ExampleMetric | None:
    """The metric of this name, if it is a mean over examples: of them all, or of their scores."""
    if is_sampled_metric(name):
        return ExampleMetric(name, "rate", lambda row, _: 1 - estimate(row, name))
    if is_score(name):
        return ExampleMetric(name, "rate", lambda row, _: 1 - score_of(row, name))
    return EXAMPLE_METRICS.get(name)


RUN_METRICS = ("overfit_gap", "train_loss")
"""Metrics of a whole run, since they depend on train examples, too."""


def runs_of(
    iteration: Iteration, iterations: Iterable[Iteration], seed_runs: Iterable[SeedRun]
) -> tuple[Measured, ...]:
    """All runs of an iteration's settings: itself, other seeds, other environments."""
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


def distinct(groups: Iterable[Sequence[Measured]]) -> tuple[Sequence[Measured], ...]:
    """The groups without those whose trainings a larger one, or an earlier of its size, has all.

    Trainings that were evaluated twice must not count twice as evidence of the seed noise.
    """
    kept: list[Sequence[Measured]] = []
    for group in sorted(groups, key=len, reverse=True):
        if not any(trainings(group) <= trainings(other) for other in kept for trainings in _BY):
            kept.append(group)
    return tuple(kept)


def _by_weights(group: Sequence[Measured]) -> frozenset[object]:
    # A run of an older record equals no other by this.
    return frozenset(run.weights or id(run) for run in group)


def _by_losses(group: Sequence[Measured]) -> frozenset[object]:
    # Of older records, which do not name their weights: two trainings never have equal losses.
    names = ("train_loss", "eval_loss")
    return frozenset((run.seed, *(run.metrics.get(n, id(run)) for n in names)) for run in group)


_BY = (_by_weights, _by_losses)
"""How the trainings of a group are told from others."""


def in_environment(
    runs: Iterable[Measured], environment: Mapping[str, str]
) -> tuple[Measured, ...]:
    """The runs whose environment can't have shifted their figures, compared with this one."""
    wanted = decisive(environment)
    return tuple(run for run in runs if decisive(run.environment) == wanted)


def decisive(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The decisive part of an environment. Build labels (`+cpu`) only repeat the device."""
    return tuple(environment.get(key, "").partition("+")[0] for key in DECISIVE)


def environment_changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """The differences in the decisive part, as `torch 2.12.0 -> 2.13.0`."""
    pairs = zip(DECISIVE, decisive(before), decisive(after), strict=True)
    return tuple(f"{key} {old or '?'} -> {new or '?'}" for key, old, new in pairs if old != new)


def why_incomplete(run: Measured, figures: Iterable[str] = ()) -> str:
    """What is missing in a run's examples or these figures; empty if nothing is."""
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
    missing = [name for name in figures if not is_figure(figure_of(run.metrics, name))]
    return f"it has no figure {missing[0]}" if missing else ""


def has_figure(run: Measured, name: str) -> bool:
    """Whether a run has a figure of this name that is finite."""
    return is_figure(run.metrics.get(name, math.nan))


def is_untrained(run: Measured) -> bool:
    """Whether it is the untrained base, which has no seed noise."""
    return isinstance(run, Iteration) and run.is_untrained


def is_figure(value: float) -> bool:
    """Whether a value can be calculated with: not NaN, and below `LARGEST`."""
    return abs(value) < LARGEST


def named_alike(
    rows: Sequence[ExampleResult], names: Sequence[ExampleResult]
) -> Sequence[ExampleResult]:
    """The rows, each with the id that `names` has for its content: ids are only labels.

    A content that occurs several times is paired in the order of the rows, equal ids first. Rows
    that are left are paired by what the model sees of them: they differ in what scores them. A row
    whose content `names` lacks keeps its id; if that now belongs to another row, it gets marks
    (`a'`).
    """
    if [_labelled(row) for row in rows] == [_labelled(row) for row in names]:
        return rows  # nearly always
    same, old, new = paired(rows, names, _labelled)
    renamed, old, new = paired(old, new, lambda row: row.content)
    scored, old, new = paired(old, new, lambda row: (row.id, measured_content(row.content)))
    measured, alone, _ = paired(old, new, lambda row: measured_content(row.content))
    ids = {id(row): name.id for row, name in (*same, *renamed, *scored, *measured)}
    taken = set(ids.values())
    for row in alone:
        id_ = row.id
        while id_ in taken:
            id_ += "'"
        taken.add(id_)
        ids[id(row)] = id_
    return tuple(row if ids[id(row)] == row.id else replace(row, id=ids[id(row)]) for row in rows)


def _labelled(row: ExampleResult) -> tuple[str, str]:
    return row.id, row.content


def with_names_of(run: Measured, names: Sequence[ExampleResult]) -> Measured:
    """The run with the ids that `names` has for its examples; itself if those are its own."""
    rows = named_alike(run.examples, names)
    return run if rows is run.examples else replace(run, examples=rows)


@dataclass(frozen=True)
class Common:
    """The ids of the examples that all runs share with equal content, and of the others.

    The content of `changed` differs; `only_baseline` and `only_candidate` are missing on the other
    side. `measured` are those of which the model sees the same in all runs: `ids`, and those that
    differ only in their answers or in the columns that a scorer reads.
    """

    ids: tuple[str, ...]
    changed: tuple[str, ...]
    only_baseline: tuple[str, ...]
    only_candidate: tuple[str, ...]
    measured: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether the model sees the same eval set on both sides."""
        lost = self.only_baseline or self.only_candidate or set(self.changed) - set(self.measured)
        return not lost

    @classmethod
    def of(cls, baseline: Sequence[Measured], candidate: Sequence[Measured]) -> Common:
        """Pair the examples of both sides by id and content."""
        contents = [{row.id: row.content for row in run.examples} for run in baseline]
        others = [{row.id: row.content for row in run.examples} for run in candidate]
        old, new = contents[0], others[0]
        shared = [id_ for id_ in sorted(new) if id_ in old]
        found = {id_: {table.get(id_) for table in (*contents, *others)} for id_ in shared}
        same = [id_ for id_ in shared if len(found[id_]) == 1]
        return cls(
            ids=tuple(same),
            changed=tuple(sorted(set(shared) - set(same))),
            only_baseline=tuple(sorted(set(old) - set(new))),
            only_candidate=tuple(sorted(set(new) - set(old))),
            measured=tuple(id_ for id_ in shared if _is_measured_alike(found[id_])),
        )


def _is_measured_alike(contents: set[str | None]) -> bool:
    """Whether the model sees the same of an example in all runs; None: one of them lacks it."""
    return len({content and measured_content(content) for content in contents}) == 1


def rows_of(run: Measured, ids: Sequence[str]) -> list[ExampleResult]:
    """A run's results for these examples, in this order. Raises KeyError for a missing one."""
    by_id = {row.id: row for row in run.examples}
    return [by_id[id_] for id_ in ids]


@dataclass(frozen=True)
class Differences:
    """Mean and variance of the differences candidate - baseline over n common examples.

    The variance of a single example is NaN.
    """

    n: int
    mean: float
    variance: float


def differences(values: Sequence[float]) -> Differences:
    """Mean and variance of differences. Raises ValueError for no value, NaN or infinity."""
    require_finite(values)
    return Differences(len(values), mean_of(values), variance_of(values))


def mean_of(values: Sequence[float]) -> float:
    """The arithmetic mean, summed exactly."""
    return math.fsum(values) / len(values)


def variance_of(values: Sequence[float]) -> float:
    """The variance with divisor n - 1; NaN for a single value."""
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
