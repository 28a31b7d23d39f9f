"""Metrics of the whole set: their definitions, against scikit-learn's figures."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.set_metrics import OF_LABELS, Pair, of_labels
from tests.fakes import fake_example

PAIRS: list[Pair] = [
    *(("a", "a"), ("a", "b"), ("a", "a"), ("b", "b")),
    *(("b", "stray"), ("c", "a"), ("c", "c"), ("c", "c")),
]

SKLEARN = {
    "accuracy": 0.625,
    "balanced_accuracy": 0.611111111111111,
    "macro_f1": 0.6555555555555556,
    "micro_f1": 0.6666666666666666,
    "mcc": 0.47776654295295456,
}
"""What scikit-learn 1.x says of `PAIRS`, with `labels` the expected ones where it takes them."""

labels = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "stray"])), min_size=1
)


@pytest.mark.parametrize("name", OF_LABELS)
def test_figure_is_that_of_scikit_learn(name: str) -> None:
    """Each metric of labels has scikit-learn's figure, a stray output among them."""
    assert math.isclose(SKLEARN[name], OF_LABELS[name](PAIRS))


@given(labels)
def test_macro_f1_is_the_mean_of_each_class_by_its_definition(pairs: list[Pair]) -> None:
    """Macro-F1 is the mean over expected labels of 2TP / (2TP + FP + FN), counted one by one."""
    classes = {wanted for wanted, _ in pairs}

    def f1(label: str) -> float:
        hits = sum(wanted == found == label for wanted, found in pairs)
        misses = sum((wanted == label) != (found == label) for wanted, found in pairs)
        return 2 * hits / (2 * hits + misses)

    assert math.isclose(sum(map(f1, classes)) / len(classes), OF_LABELS["macro_f1"](pairs))


@given(labels)
def test_mcc_is_a_correlation_of_indicators(pairs: list[Pair]) -> None:
    """MCC is the covariance of the two label columns over the root of their variances."""
    both = sorted({label for pair in pairs for label in pair})

    def covariance(one: int, other: int) -> float:
        sums = 0.0
        for label in both:
            x = [float(pair[one] == label) for pair in pairs]
            y = [float(pair[other] == label) for pair in pairs]
            mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
            sums += sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
        return sums

    spread = covariance(0, 0) * covariance(1, 1)
    constant = min(len({p[0] for p in pairs}), len({p[1] for p in pairs})) == 1
    wanted = 0.0 if constant else covariance(0, 1) / math.sqrt(spread)
    assert math.isclose(wanted, OF_LABELS["mcc"](pairs), abs_tol=1e-9)


@given(labels)
def test_perfect_outputs_have_the_best_figure(pairs: list[Pair]) -> None:
    """Outputs that are the expected labels have 1 in each metric, but MCC of a single class."""
    perfect = [(wanted, wanted) for wanted, _ in pairs]
    one_class = len(Counter(perfect)) == 1
    for name, metric in OF_LABELS.items():
        assert math.isclose(0.0 if name == "mcc" and one_class else 1.0, metric(perfect))


def test_sampled_outputs_count_as_rows() -> None:
    """Each sampled output of an example is a row; white space around a label does not count."""
    rows = [
        fake_example("e1", expected="a", output="a", outputs=("a", " a\n", "b")),
        fake_example("e2", expected="b", output="b "),
    ]
    assert 0.75 == of_labels("accuracy").of(rows)


def test_no_example_has_no_figure() -> None:
    """The figure of no example is NaN, not an error."""
    assert math.isnan(of_labels("macro_f1").of([]))
