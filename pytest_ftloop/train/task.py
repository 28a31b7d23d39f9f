"""The task of a loop: the examples to train on and the examples, and scorer, to measure by."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import Locate
from pytest_ftloop.core.records import DataSet, Example, Finding
from pytest_ftloop.evaluate.scored import Scorer


@dataclass(frozen=True)
class Task:
    """The data and scoring that every run of a loop shares.

    `train_sample` are the train examples whose loss is measured again in eval mode. `candidates`
    are the texts that the `choice` scorer chooses among, unless an example has its own. `found` is
    called with the findings on a run's rows before its first step.
    """

    train: DataSet
    eval: DataSet
    train_sample: tuple[Example, ...]
    scoring: Scoring
    scorer: Scorer | None = None
    candidates: tuple[str, ...] = ()
    locate: Locate = lambda _: None
    found: Callable[[Sequence[Finding]], None] = lambda _: None


def train_sample(train: DataSet, size: int) -> tuple[Example, ...]:
    """A random sample of `size` train examples, the same in every run, in the set's order."""
    if size >= len(train.examples):
        return train.examples
    chosen = sorted(random.Random(0).sample(range(len(train.examples)), size))
    return tuple(train.examples[i] for i in chosen)
