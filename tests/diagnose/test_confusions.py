"""Labels that are answered with one other are named, the most frequent first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_ftloop.core.records import ExampleResult, Finding
from pytest_ftloop.diagnose import Evidence
from pytest_ftloop.diagnose.confusions import findings
from tests.fakes import fake_example, fake_metrics, fake_training


def found(*answers: tuple[str, str, int]) -> tuple[Finding, ...]:
    """What is said of (expected, output, how often)."""
    rows: list[ExampleResult] = []
    for expected, output, count in answers:
        rows += [
            fake_example(
                f"e{len(rows) + n:03d}", output == expected, expected=expected, output=output
            )
            for n in range(count)
        ]
    of = Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0)
    return findings(replace(of, results=tuple(rows)))


def test_a_confusion_has_its_counts_and_ids() -> None:
    """What is expected, what is said, how often, of how many, and where."""
    (finding,) = found(
        ("card lost", "card stolen", 7), ("card lost", "card lost", 2), ("other", "other", 9)
    )
    assert (
        "'card lost' is answered with 'card stolen' in 7 of 9 examples: e000, e001, e002."
        == finding.message
    )
    assert "info" == finding.severity
    assert {
        "expected": "card lost",
        "output": "card stolen",
        "count": 7,
        "examples": 9,
        "ids": "e000, e001, e002",
    } == finding.evidence


def test_few_errors_are_no_confusion() -> None:
    """Four times, or a tenth of the label's examples, is not worth a word."""
    assert () == found(("a", "b", 4), ("a", "a", 2), ("b", "b", 9))
    assert () == found(("a", "b", 6), ("a", "a", 54), ("b", "b", 9))


def test_at_most_three_the_most_frequent_first() -> None:
    """Of five confusions three; equally frequent ones by their names."""
    pairs = [("a", "b", 6), ("b", "c", 8), ("c", "d", 6), ("d", "e", 5), ("e", "a", 6)]
    confused = [(f.evidence["expected"], f.evidence["output"]) for f in found(*pairs)]
    assert [("b", "c"), ("a", "b"), ("c", "d")] == confused


def test_texts_of_all_kinds_are_no_labels() -> None:
    """Where expected texts or outputs are many, nothing is confused with anything."""
    assert () == found(*((f"text {n}", "nothing", 1) for n in range(60)))
    spread = [("a", f"said {n}", 1) for n in range(120)]
    assert () == found(("a", "b", 30), ("b", "b", 30), *spread)


def test_without_outputs_nothing_is_confused() -> None:
    """A scorer that generates nothing has no outputs; an empty answer is not one either."""
    assert () == found(("a", "", 9), ("b", "", 9))


@pytest.mark.parametrize(
    ("expected", "output"),
    [
        ("pos", "POS"),
        ("card lost", "card  lost."),
        ("card_lost", "card lost"),
        ("pos", '"pos"'),
        ("pos", "**Pos**!"),
    ],
)
def test_an_answer_in_another_form_is_no_other_label(expected: str, output: str) -> None:
    """What differs in case, white space or punctuation alone is told so."""
    (finding,) = found((expected, output, 9), ("b", "b", 9))
    assert "differ only in case, white space or punctuation" in finding.remedy
    assert f"'{expected}' is answered" in finding.message


@pytest.mark.parametrize(
    ("expected", "output"), [("1", "-1"), ("5", ".5"), ("1.5", "15"), ("c", "c++"), ("!", "?")]
)
def test_a_sign_that_means_something_is_another_label(expected: str, output: str) -> None:
    """A minus, a decimal point, or punctuation that is all of the answer."""
    (finding,) = found((expected, output, 9), ("b", "b", 9))
    assert finding.remedy.startswith(
        f"Add train examples that distinguish '{expected}' from '{output}'"
    )


def test_long_answers_are_cut() -> None:
    """A label of a page's length takes one short line."""
    (finding,) = found(("a", "word " * 99, 9), ("b", "b", 9))
    assert len(finding.message) < 120
