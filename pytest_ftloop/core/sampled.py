"""Several sampled outputs of an example: the share that passes, pass@k and pass^k.

pass@k is the probability that at least one of k outputs passes, pass^k that all of them do. Both
are estimated without bias from n outputs of which c pass (pass@k: Chen et al. 2021, "Evaluating
large language models trained on code"; pass^k: Yao et al. 2024, "tau-bench").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import comb
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.core.records import ExampleResult

SHARE = "pass@1"
"""The entry of an example's scores that holds the share of its sampled outputs that pass."""

_NAME = re.compile(r"pass([@^])([1-9]\d{0,4})")

SCORE = "score"
"""The metric of a scorer that gives one number; those of named ones are `score.<name>`."""

_STEPS = (2, 3, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100)
"""The k of which figures are recorded, below the number of samples: the usual ones. Of all k up to
100 a record would be illegible."""


def recorded_ks(samples: int) -> tuple[int, ...]:
    """The k of pass@k and pass^k that are recorded; pass@1 and pass^1 are the pass rate."""
    return (*(k for k in _STEPS if k < samples), samples) if samples > 1 else ()


def is_sampled_metric(name: str) -> bool:
    """Whether a metric (without its tag) is pass@k or pass^k."""
    return _NAME.fullmatch(name) is not None


def k_of(name: str) -> int:
    """The k of pass@k or pass^k."""
    match = _NAME.fullmatch(name)
    assert match is not None, name
    return int(match[2])


def share_of(row: ExampleResult) -> float:
    """The share of an example's outputs that pass: of a single one 0 or 1."""
    return row.scores.get(SHARE, 1.0 if row.passed else 0.0)


def estimate(row: ExampleResult, name: str) -> float:
    """pass@k or pass^k of one example; 0 where it has fewer than k outputs."""
    n, k = max(len(row.outputs), 1), k_of(name)
    if k > n:
        return 0.0
    passed = round(share_of(row) * n)
    if name.startswith("pass@"):
        return 1 - comb(n - passed, k) / comb(n, k)
    return comb(passed, k) / comb(n, k)


def score_of(row: ExampleResult, name: str) -> float:
    """An example's score by its metric; where it was only a yes or a no, `score` is 1 or 0.

    A scorer of numbers may give 1 and 0 alone, which are a yes and a no. 0 for any other score that
    the example lacks.
    """
    return share_of(row) if _is_yes_or_no(row, name) else row.scores.get(name, 0.0)


def has_score(row: ExampleResult, name: str) -> bool:
    """Whether an example has the score of this metric."""
    return name in row.scores or _is_yes_or_no(row, name)


def _is_yes_or_no(row: ExampleResult, name: str) -> bool:
    return name == SCORE and row.passed is not None and not own_scores(row)


def own_scores(row: ExampleResult) -> Mapping[str, float]:
    """The scores that the scorer gave, without the share that passes."""
    return {name: value for name, value in row.scores.items() if name != SHARE}
