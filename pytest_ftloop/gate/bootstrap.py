"""The sampling variance of a change in a metric of the whole set, by a paired bootstrap.

Both sides are computed anew on the same resampled examples (Efron & Tibshirani 1993, chapter 6; of
BLEU: Koehn 2004), so what makes an example hard for both cancels. The variance then takes the
place of that of a mean difference in the gate's test (`statistic`), which adds the seed noise. A
percentile interval could not: it knows only what was resampled, and the seeds were not.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from pytest_ftloop.core.runs import mean_of, variance_of

REPLICATES = 1000
"""Resamples of the examples. The standard error that B of them give is itself off by a share of
1/sqrt(2 B): 2.2%, which moves a p-value of 1.0% between 0.9% and 1.1%. Efron & Tibshirani (1993)
say that 200 suffice for a standard error."""

Parts = Sequence[Sequence[Any]]
"""What a metric needs of each example, one run's; shape (n,), each a list of parts."""

Figure = Callable[[Sequence[Any]], float]


def seed_from(contents: Sequence[str]) -> int:
    """The seed of the resampling: the same examples are resampled alike, on every machine."""
    return int.from_bytes(hashlib.sha256("\n".join(contents).encode()).digest()[:8], "big")


def resampled_figure(run: Parts, figure: Figure, drawn: Sequence[int]) -> float:
    """The figure of one run on these examples."""
    return figure([part for index in drawn for part in run[index]])


def change_variance(old: Sequence[Parts], new: Sequence[Parts], figure: Figure, seed: int) -> float:
    """The variance over resampled examples of the change in a figure, each side's mean over runs.

    `old` and `new` hold the parts of each run's examples, in one order: (k, n).
    """
    rng, n = random.Random(seed), len(new[0])
    examples = range(n)
    changes = []
    for _ in range(REPLICATES):
        drawn = rng.choices(examples, k=n)
        before, after = (
            mean_of([resampled_figure(run, figure, drawn) for run in s]) for s in (old, new)
        )
        changes.append(after - before)
    return variance_of(changes)
