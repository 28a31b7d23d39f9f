"""Compare an eval set's results in the log with those of the model that was exported from it.

Records in, records out: nothing is loaded, generated or scored here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_ftloop.core.records import ExampleResult


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from the log.

    `flips` is a share of the examples, 0 to 1, and as far as the mean of a score may move; `loss`
    the largest difference of an example's mean loss, in nats per token.
    """

    flips: float
    loss: float


EXACT = Tolerance(0.0, 1e-3)
"""Nothing is rounded to fewer bits. Merging adds the same numbers in another order, which moved no
loss by more than 0.000002 nats per token on the embedded model."""

ROUNDED = Tolerance(0.05, 0.1)
"""Weights or sums with fewer bits than fp32, or another device. In bf16 one of 24 answers flipped
and losses moved by up to 0.034 nats per token (SmolLM2-135M), 0.012 on the embedded model."""

ROUNDING = 1e-9
"""What adding up scores may move their mean by."""

MOST_CHANGED = 0.5
"""Share of changed outputs up to which rounding may be the cause. It guards tasks in which hardly
any example passed, so that hardly any can flip."""


@dataclass(frozen=True)
class Flip:
    """One example that passed in the log and does not now, or the other way round."""

    id: str
    expected: str
    before: str
    after: str
    passed: bool
    """Whether it passes now."""


@dataclass(frozen=True)
class LossChange:
    """The mean loss of one example in the log and now, in nats per token."""

    id: str
    before: float
    after: float

    @property
    def size(self) -> float:
        """The absolute difference; infinite if only one of the two is a finite number."""
        if math.isfinite(self.before) and math.isfinite(self.after):
            return abs(self.after - self.before)
        return 0.0 if math.isfinite(self.before) == math.isfinite(self.after) else math.inf


@dataclass(frozen=True)
class Comparison:
    """What differs between the log and the exported model.

    Of `examples`, `changed` have another output, and `retokenised` another number of labelled
    tokens. `scores` has the means in the log and now by metric, empty if the scorer gives none.
    `worst` is the largest change of a loss; None if losses were not measured.
    """

    examples: int
    flips: tuple[Flip, ...]
    changed: int
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    retokenised: int = 0
    worst: LossChange | None = None

    def problems(self, tolerance: Tolerance) -> tuple[str, ...]:
        """What is beyond the tolerance, one phrase each; empty if the export is as logged."""
        found = []
        if len(self.flips) > tolerance.flips * self.examples:
            found.append(
                f"{len(self.flips)} of {self.examples} examples flipped "
                f"(tolerance {100 * tolerance.flips:g}%)"
            )
        found += [
            f"{name} is {after:.4f}, in the log {before:.4f} (tolerance {tolerance.flips:g})"
            for name, (before, after) in self.scores.items()
            if not abs(after - before) <= tolerance.flips + ROUNDING
        ]
        if self.changed > MOST_CHANGED * self.examples:
            found.append(
                f"{self.changed} of {self.examples} outputs differ, more than rounding explains"
            )
        if self.retokenised:
            found.append(
                f"{self.retokenised} of {self.examples} examples have another number of tokens: "
                "the tokenizer or the chat template is another one"
            )
        if self.worst is not None and self.worst.size > tolerance.loss:
            found.append(
                f"the loss of {self.worst.id} is {self.worst.after:.4f}, in the log "
                f"{self.worst.before:.4f} nats per token (tolerance {tolerance.loss:g})"
            )
        return tuple(found)


def compare(
    before: Sequence[ExampleResult], after: Sequence[ExampleResult], *, losses: bool = True
) -> Comparison:
    """Compare the results of the same examples in the same order.

    Without `losses` only outputs and passes are compared: an endpoint has no losses.
    """
    pairs = list(zip(before, after, strict=True))
    flips = tuple(
        Flip(b.id, b.expected, b.output, a.output, bool(a.passed))
        for b, a in pairs
        if bool(b.passed) != bool(a.passed)
    )
    changed = sum(b.output != a.output for b, a in pairs)
    scores = _means(before, after)
    if not losses:
        return Comparison(len(pairs), flips, changed, scores)
    changes = [LossChange(b.id, b.mean_loss, a.mean_loss) for b, a in pairs]
    return Comparison(
        len(pairs),
        flips,
        changed,
        scores,
        retokenised=sum(b.tokens != a.tokens for b, a in pairs),
        worst=max(changes, key=lambda change: change.size, default=None),
    )


def _means(
    before: Sequence[ExampleResult], after: Sequence[ExampleResult]
) -> dict[str, tuple[float, float]]:
    """The mean of each score before and after; a score that an example lacks is 0."""
    names = dict.fromkeys(name for row in (*before, *after) for name in row.scores)

    def mean(rows: Sequence[ExampleResult], name: str) -> float:
        return math.fsum(row.scores.get(name, 0.0) for row in rows) / len(rows)

    return {name: (mean(before, name), mean(after, name)) for name in names}
