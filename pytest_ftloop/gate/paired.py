"""The runs of both sides, on the examples that all of them share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from pytest_ftloop.core.metrics import depends_on_scoring
from pytest_ftloop.core.noise import Replicates, replicates
from pytest_ftloop.core.records import ExampleResult
from pytest_ftloop.core.runs import (
    RUN_METRICS,
    ExampleMetric,
    Measured,
    distinct,
    example_metric,
    is_figure,
)
from pytest_ftloop.core.sampled import share_of
from pytest_ftloop.core.set_metrics import SetMetric, definition
from pytest_ftloop.gate.alike import scorer_of

Groups = Sequence[Sequence[Measured]]
"""Runs that differ only in their seed, group by group: what the log knows of the seed noise."""


@dataclass(frozen=True)
class PairedRuns:
    """The baseline's runs (`old`) and the candidate's (`new`), on their common examples.

    `measured` are those of which the model sees the same on both sides, so that their losses are
    comparable; `ids` are those of them of which the scorer, too, reads the same. `groups` are the
    log's groups of runs that differ only in their seed.
    """

    old: Sequence[Measured]
    new: Sequence[Measured]
    groups: Groups
    ids: Sequence[str]
    measured: Sequence[str]

    def common(self, name: str) -> Sequence[str]:
        """The examples that a metric is compared on."""
        return self.measured if is_measured(name) else self.ids

    @property
    def run_df(self) -> int:
        """Degrees of freedom of the seed noise of whole runs."""
        return sum(len(group) - 1 for group in distinct(self.groups))

    @property
    def same_scoring(self) -> bool:
        """Whether both sides were scored in the same way, whatever metrics of the set they have."""
        return scorer_of(self.old[0]) == scorer_of(self.new[0])

    def defined_alike(self, name: str) -> bool:
        """Whether a metric of the set has one definition on both sides, over outputs made alike."""
        ours, theirs = (definition(run.scoring, name) for run in (self.new[0], self.old[0]))
        return self.same_scoring and ours is not None and ours == theirs

    def figures(self, name: str, metric: SetMetric, ids: Sequence[str]) -> list[list[float]]:
        """A metric of the set for each run of the groups, on the given examples.

        As for `replicates`, a group counts if it has at least half of them.
        """
        found = []
        ours = definition(self.new[0].scoring, name)
        alike = [
            [
                run
                for run in group
                if scorer_of(run) == scorer_of(self.new[0])
                and definition(run.scoring, name) == ours
            ]
            for group in self.groups
        ]
        for runs in distinct(alike):
            everywhere = set(ids).intersection(*(self._tables[id(run)] for run in runs))
            shared = [i for i in ids if i in everywhere]
            if len(runs) > 1 and 2 * len(shared) >= len(ids):
                found.append([metric.of(self.rows(run, shared)) for run in runs])
        return found

    @cached_property
    def same_tokens(self) -> bool:
        """Whether each example has as many tokens on both sides, as with the same tokenizer."""
        runs = (*self.old, *self.new)
        rows = [self.rows(run, self.measured) for run in runs]
        return len({tuple(row.tokens for row in table) for table in rows}) == 1

    @property
    def loss_level(self) -> float:
        """The baseline's eval loss: the unit of a relative change. 0 if it is not finite."""
        level = self.old[0].metrics.get("eval_loss", 0.0)
        return level if is_figure(level) else 0.0

    def rows(self, run: Measured, ids: Sequence[str] | None = None) -> list[ExampleResult]:
        """A run's rows of the given examples, in their order; by default of those scored alike."""
        table = self._tables[id(run)]
        return [table[id_] for id_ in (self.ids if ids is None else ids)]

    def has_tokens(self, name: str, ids: Sequence[str]) -> bool:
        """Whether the examples have the tokens that a metric is a mean over."""
        return (
            depends_on_scoring(name) or sum(row.tokens for row in self.rows(self.new[0], ids)) > 0
        )

    def flips(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Ids of the fixed examples and of the broken ones.

        An example counts if most seeds of each side agree with the flip, and so does each side's
        first run, because reports show that run's output.
        """
        if not self.same_scoring:
            return (), ()
        before, after = self._pass_shares(self.old), self._pass_shares(self.new)
        first, now = self._pass_shares(self.old[:1]), self._pass_shares(self.new[:1])
        rows = list(zip(self.ids, before, after, first, now, strict=True))
        fixed = tuple(i for i, old, new, was, is_ in rows if old < 0.5 < new and was < is_)
        broken = tuple(i for i, old, new, was, is_ in rows if new < 0.5 < old and is_ < was)
        return fixed, broken

    def replicates(self, metric: ExampleMetric, ids: Sequence[str]) -> list[Replicates]:
        """The groups' replicates of a metric, on the given examples.

        A group of an older eval set may lack some of them. It counts if it has at least half.
        """
        found = []
        alike = [[r for r in group if self._is_scored_alike(r, metric)] for group in self.groups]
        for runs in distinct(alike):
            tables = [self._tables[id(run)] for run in runs]
            everywhere = set(ids).intersection(*tables)
            shared = [i for i in ids if i in everywhere]
            if len(runs) > 1 and 2 * len(shared) >= len(ids):
                values = [metric.values([table[i] for i in shared]) for table in tables]
                if all(all(map(is_figure, run_values)) for run_values in values):
                    found.append(replicates(values))
        return found

    @cached_property
    def _tables(self) -> Mapping[int, Mapping[str, ExampleResult]]:
        """Each run's rows by example. Runs are not hashable, so the keys are their identities."""
        runs = (*self.old, *self.new, *chain.from_iterable(self.groups))
        return {id(run): {row.id: row for row in run.examples} for run in runs}

    def _is_scored_alike(self, run: Measured, metric: ExampleMetric) -> bool:
        return not depends_on_scoring(metric.name) or scorer_of(run) == scorer_of(self.new[0])

    def _pass_shares(self, runs: Sequence[Measured]) -> list[float]:
        """The share of the runs' outputs that pass, per example."""
        tables = [[share_of(row) for row in self.rows(run)] for run in runs]
        return [sum(passed) / len(passed) for passed in zip(*tables, strict=True)]


def is_measured(name: str) -> bool:
    """Whether a metric depends only on what the model sees of an example: a loss, an accuracy."""
    is_known = name in RUN_METRICS or example_metric(name) is not None
    return is_known and not depends_on_scoring(name)


def seed_means(runs: Sequence[Sequence[float]]) -> list[float]:
    """Each example's mean over the seeds: (k, n) -> (n,)."""
    return [math.fsum(values) / len(values) for values in zip(*runs, strict=True)]
