"""Train examples that stay improbable while the rest is learned look mislabelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_ftloop.core.records import Example, TrainedExample
from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.diagnose.dynamics import confidences, findings
from tests.fakes import fake_metrics, fake_training

LEARNED = (3.0, 0.4, 0.1, 0.05)
WRONG = (3.0, 2.5, 2.4, 1.5)


def evidence(*courses: Sequence[float]) -> Evidence:
    trained = tuple(TrainedExample(f"t{n:03d}", tuple(c)) for n, c in enumerate(courses))
    metrics = fake_metrics()
    return Evidence.of(fake_training(trained=trained), metrics, metrics, 5.0)


def test_examples_that_are_never_learned_are_doubted() -> None:
    """Low confidence while the median is high; the least confident is named first."""
    worst = (3.0, 3.0, 3.0, 3.0)
    (finding,) = findings(evidence(WRONG, *[LEARNED] * 60, worst, WRONG))
    assert ("mislabelled", "warning", False) == (finding.kind, finding.severity, finding.tunable)
    assert "t061, t000, t062" == finding.evidence["ids"]
    assert (3, 63) == (finding.evidence["doubted"], finding.evidence["examples"])
    assert finding.evidence["median_confidence"] == pytest.approx(0.842, abs=0.001)
    assert finding.evidence["highest_confidence"] == pytest.approx(0.132, abs=0.001)


def test_a_model_that_has_not_learned_doubts_nobody() -> None:
    """Where the median is low, a low confidence says nothing; so where many are low."""
    assert () == findings(evidence(*[(3.0, 0.9, 0.8, 0.7)] * 60, *[WRONG] * 3))
    assert () == findings(evidence(*[LEARNED] * 60, *[WRONG] * 20))


def test_what_the_last_pass_learned_may_only_be_hard() -> None:
    """Low confidence with a high variability: a wrong label learned by heart, or a hard example."""
    late = (5.0, 4.0, 3.0, 2.0, 0.05)
    (finding,) = findings(evidence(*[LEARNED] * 100, *[late] * 6))
    assert "6 of 106 train examples look mislabelled or hard (the last pass learned 6): " in (
        finding.message
    )
    assert finding.remedy.endswith("If a label is right, the example is hard: keep it.")
    assert 6 == finding.evidence["learned_last"]
    assert finding.evidence["variability"] == pytest.approx(0.385, abs=0.001)
    assert finding.evidence["median_variability"] == pytest.approx(0.123, abs=0.001)


def test_what_stays_low_looks_mislabelled() -> None:
    """Low confidence and a low variability: nobody learned these."""
    (finding,) = findings(evidence(*[LEARNED] * 60, *[WRONG] * 3))
    assert "3 of 63 train examples look mislabelled: " in finding.message
    assert "Check the labels of these train examples: correct the wrong ones, or drop them." == (
        finding.remedy
    )
    assert 0 == finding.evidence["learned_last"]
    assert finding.evidence["variability"] == pytest.approx(0.065, abs=0.001)


def test_long_ids_are_cut() -> None:
    """An id that is a whole text is not repeated to its end."""
    e = evidence(*[LEARNED] * 60, *[WRONG] * 3)
    trained = tuple(replace(x, id=x.id + "x" * 15_000) for x in e.trained)
    (finding,) = findings(replace(e, trained=trained))
    assert len(finding.message) < 400


def test_one_or_two_are_hard_ones() -> None:
    """Fewer than three are not named."""
    assert () == findings(evidence(*[LEARNED] * 60, *[WRONG] * 2))


def test_one_in_a_hundred_is_a_hard_one() -> None:
    """Messages that people wrote have a few hard ones; three are named among 200, not among 201."""
    assert findings(evidence(*[LEARNED] * 197, *[WRONG] * 3))
    assert () == findings(evidence(*[LEARNED] * 198, *[WRONG] * 3))


def test_a_label_that_is_learned_late_is_not_doubted() -> None:
    """Most examples of one label stay low while the others are learned: the label is late."""
    e = evidence(*[LEARNED] * 90, *[WRONG] * 8, *[LEARNED] * 2)
    for label, expected in (("late", 0), ("left", 1)):
        train = tuple(
            Example(
                x.id, x.id, {}, prompt="p", expected=label if n >= 90 else ("left", "right")[n % 2]
            )
            for n, x in enumerate(e.trained)
        )
        assert expected == len(findings(replace(e, train=train)))


def test_hard_examples_shade_into_the_rest() -> None:
    """Where many lie just above the doubted ones, all of them are hard, not wrong."""
    between = (3.0, 0.8, 0.6, 0.5)
    assert findings(evidence(*[LEARNED] * 60, *[WRONG] * 4, *[between] * 8))
    assert () == findings(evidence(*[LEARNED] * 60, *[WRONG] * 4, *[between] * 9))


def test_what_is_learned_late_is_not_doubted() -> None:
    """A loss that is high at first and then low is a hard example that was learned."""
    assert () == findings(evidence(*[LEARNED] * 60, *[(3.0, 2.0, 0.1, 0.05, 0.02)] * 5))


def test_too_few_passes_or_examples_say_nothing() -> None:
    """Two epochs, a score of examples, or none at all."""
    assert () == findings(evidence(*[LEARNED[:2]] * 60, *[WRONG[:2]] * 3))
    assert () == findings(evidence(*[LEARNED] * 10, *[WRONG] * 3))
    assert () == findings(evidence())


def test_losses_that_are_not_finite_are_left_out() -> None:
    """An example with a NaN has no confidence."""
    e = evidence(*[LEARNED] * 60, (1.0, math.nan, 1.0))
    assert "t060" not in confidences(e)
    assert 60 == len(confidences(e))


def test_no_more_than_ten_ids() -> None:
    """The count tells the rest."""
    (finding,) = findings(evidence(*[LEARNED] * 100, *[WRONG] * 12))
    assert 12 == finding.evidence["doubted"]
    assert 10 == len(str(finding.evidence["ids"]).split(", "))


def test_wrong_labels_come_before_the_curve_that_they_spoil() -> None:
    """Where the eval loss rises too, it is the labels that are named first."""
    trained = evidence(*[LEARNED] * 60, *[WRONG] * 3).trained
    falling = [0.1 + 5 * math.exp(-n / 12) for n in range(100)]
    training = fake_training(falling, (0.9, 0.3, 0.4, 0.5), trained=trained)
    metrics = fake_metrics(0.3, 0.2)
    found = diagnose(Evidence.of(training, metrics, metrics, 5.0))
    assert ["mislabelled", "overfitting"] == [finding.kind for finding in found]
