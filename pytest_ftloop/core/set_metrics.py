"""Metrics of the whole eval set, such as macro-F1, from the outputs that a table holds.

They are no means over examples, so the gate compares them by resampling the examples. Of all of
them higher is better. The labels are the texts themselves, without surrounding white space; where
an example has several outputs, each counts as a row.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.core.records import ExampleResult

Pair = tuple[str, str]
"""The expected label of a row, and the label that the model wrote."""

KEY = "metrics"
"""Where a record's scoring holds the definitions of these metrics, by the user's name."""

ONLY_READ = frozenset({KEY, "judge_check"})
"""The keys of a record's scoring that change no example's result: what is computed of the results,
and what the judge's agreement is measured on."""


@dataclass(frozen=True)
class SetMetric:
    """A metric of a set: `parts` gives what it needs of one example, `figure` computes it from all.

    The gate resamples examples a thousand times, so whatever can be computed once an example
    belongs in `parts`. `by_tag` is whether it is also computed of the examples with each tag.
    `unread` names a user's function that is not imported: nothing can be computed by it.
    """

    parts: Callable[[ExampleResult], Sequence[Any]]
    figure: Callable[[Sequence[Any]], float]
    by_tag: bool = True
    unread: str = ""

    def of(self, rows: Iterable[ExampleResult]) -> float:
        """The figure of these examples; NaN if there are none."""
        parts = [part for row in rows for part in self.parts(row)]
        return self.figure(parts) if parts else math.nan


def outputs_of(row: ExampleResult) -> tuple[str, ...]:
    """All outputs of an example: the sampled ones, or the only one."""
    return row.outputs or (row.output,)


def pairs_of(row: ExampleResult) -> list[Pair]:
    """The expected and the written label of each output."""
    return [(row.expected.strip(), output.strip()) for output in outputs_of(row)]


@dataclass(frozen=True)
class Confusion:
    """How often each label was expected, written, and both.

    `classes` are the expected labels. An output that is none of them is wrong, but no class of its
    own: a model that writes one stray sentence has not added a class.
    """

    total: int
    expected: Counter[str]
    written: Counter[str]
    right: Counter[str]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Confusion:
        """Count the pairs."""
        counts = Counter(pairs)
        expected, written, right = Counter[str](), Counter[str](), Counter[str]()
        for (wanted, found), count in counts.items():
            expected[wanted] += count
            written[found] += count
            if wanted == found:
                right[wanted] += count
        return cls(len(pairs), expected, written, right)


def accuracy(pairs: Sequence[Pair]) -> float:
    """Share of the outputs that are the expected label."""
    return sum(wanted == found for wanted, found in pairs) / len(pairs)


def balanced_accuracy(pairs: Sequence[Pair]) -> float:
    """Mean recall over the classes."""
    found = Confusion.of(pairs)
    return _mean(found.right[label] / count for label, count in found.expected.items())


def macro_f1(pairs: Sequence[Pair]) -> float:
    """Mean F1 over the classes."""
    found = Confusion.of(pairs)
    return _mean(
        2 * found.right[label] / (count + found.written[label])
        for label, count in found.expected.items()
    )


def micro_f1(pairs: Sequence[Pair]) -> float:
    """F1 over all outputs; outputs that are no class lower the recall only."""
    found = Confusion.of(pairs)
    written = sum(found.written[label] for label in found.expected)
    return 2 * found.right.total() / (found.total + written)


def mcc(pairs: Sequence[Pair]) -> float:
    """Matthews' correlation of expected and written labels (Gorodkin 2004), -1 to 1.

    0 where either side is constant, as in scikit-learn. An output that is no class is one label
    more.
    """
    found = Confusion.of(pairs)
    n, right = found.total, found.right.total()
    labels = {*found.expected, *found.written}
    both = sum(found.expected[label] * found.written[label] for label in labels)
    spread = (n * n - sum(c * c for c in found.expected.values())) * (
        n * n - sum(c * c for c in found.written.values())
    )
    return (right * n - both) / math.sqrt(spread) if spread else 0.0


OF_LABELS: Mapping[str, Callable[[Sequence[Pair]], float]] = {
    metric.__name__: metric for metric in (accuracy, balanced_accuracy, macro_f1, micro_f1, mcc)
}
"""The metrics of labels, by name. scikit-learn gives the same figures (`labels`: the expected)."""

OF_TEXTS = ("bleu", "chrf")
"""The metrics of texts, by name, 0 to 100. They need sacrebleu."""

BUILT_IN = (*OF_LABELS, *OF_TEXTS)


def of_labels(name: str) -> SetMetric:
    """A metric of `OF_LABELS`."""
    return SetMetric(pairs_of, OF_LABELS[name])


def recomputable(scoring: Mapping[str, Any]) -> dict[str, SetMetric]:
    """The metrics of a record's scoring that its table alone gives."""
    stated = scoring.get(KEY, {})
    return {
        name: of_labels(kind)
        for name, kind in stated.items()
        if isinstance(kind, str) and kind in OF_LABELS
    }


def unit_of(level: float) -> float:
    """The unit in which a change is judged: the figure itself if it is above 1, else 1.

    So 0.01 of it is a point of a share, or 1% of a BLEU of 30.
    """
    return max(1.0, abs(level))


def definition(scoring: Mapping[str, Any], name: str) -> Any:
    """How a record's scoring defines a metric of the set; None if it has none of this name."""
    return scoring.get(KEY, {}).get(name)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
