"""Sets of labels: what eval asks for and train lacks, or has too seldom."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pytest_ftloop.config.gates import parse_gate
from pytest_ftloop.diagnose.labels import is_number
from tests.diagnose.fakes_data import EVAL, TRAIN, edited, found


@pytest.mark.parametrize(
    ("count", "gate", "severity"),
    [
        (1, "80%", None),
        (15, "80%", "warning"),
        (15, "90%", "error"),
        (20, "50%", "error"),
    ],
)
def test_labels_that_train_lacks(count: int, gate: str, severity: str | None) -> None:
    """Labels of eval alone; an error from a fifth on, or where a gate is out of reach."""
    rate = parse_gate("pass_rate", f">= {gate}")
    finding = found(TRAIN, edited(EVAL, count, completion=" refund"), rate).get("unseen-labels")
    assert severity == (finding.severity if finding else None)
    if finding:
        assert f"{count} of 100 eval examples expect 1 label" in finding.message
        assert finding.message.endswith("'refund'.")


def test_label_in_another_case() -> None:
    """A label that train writes in another case is shown as train writes it."""
    upper = found(TRAIN, edited(EVAL, 100, completion=str.upper))["unseen-labels"]
    assert "error" == upper.severity
    assert "(train writes '" in upper.message


@pytest.mark.parametrize("form", [" {}", " ${}", " {} %", " {}:30", " -{}", " {},000.00 EUR"])
def test_numbers_are_no_labels(form: str) -> None:
    """A number not seen in train can be computed, however it is written."""
    counts = [{**row, "completion": form.format(n % 20)} for n, row in enumerate(TRAIN)]
    more = [{**row, "completion": form.format(n % 60)} for n, row in enumerate(EVAL)]
    assert "unseen-labels" not in found(counts, more)


def test_numbers_among_labels() -> None:
    """Numbers are left out one by one: a word that train lacks is still found among them."""
    words = ["1", "2", "3", "unknown"]
    train = [{**row, "completion": f" {words[n % 4]}"} for n, row in enumerate(TRAIN)]
    numbers = [{**row, "completion": f" {5 + n % 25}"} for n, row in enumerate(EVAL)]
    assert "unseen-labels" not in found(train, numbers)
    finding = found(train, edited(numbers, 5, completion=" none"))["unseen-labels"]
    assert finding.message.startswith("5 of 100 eval examples expect 1 label that")


@pytest.mark.parametrize(
    "number",
    [
        *("7", "-3.5", "+2", "\u22123", "1,250.00", "1 250", "1.250,00 \u20ac", "$137", "US$ 5"),
        *("EUR 20", "20 EUR", "40%", "40 %", "12:30", "12:30 pm", "2024-05-01", "3/4", "1e-5"),
        *("5 kg", "21 \u00b0C", "3rd", "~10", "(12)", "#4", "\u0663"),
    ],
)
def test_what_is_a_number(number: str) -> None:
    """Signs, currency, shares, times, separators and short units make a number no label."""
    assert is_number(number)


@pytest.mark.parametrize(
    "text", ["", "none", "B2", "T5-base", "5 apples", "level 3", "2 h 30 min", "-", "$", "1" * 61]
)
def test_what_is_no_number(text: str) -> None:
    """A text that only has a number in it, or is too long to be one, is none."""
    assert not is_number(text)


def test_free_text_is_no_label() -> None:
    """An answer not seen can be written."""
    told = [{**row, "completion": f" {row['prompt'][:20]}"} for row in TRAIN]
    assert "unseen-labels" not in found(told, EVAL)


def opened(rows_: list[dict[str, Any]], share: float, word: str = "") -> list[dict[str, Any]]:
    """The rows, of which a share has an answer of its own in place of a label."""
    chance = random.Random(len(rows_))
    return [
        {**row, "completion": f" {word or 'name'} {row['id']}"}
        if chance.random() < share
        else {**row, "completion": f" {chance.choice(['yes', 'no'])}"}
        for row in rows_
    ]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.09, 0.15, 0.19])
def test_open_answers_among_labels(share: float) -> None:
    """Where both sets have as many open answers, those of eval are nothing to be told."""
    rate = parse_gate("pass_rate", ">= 85%")
    assert "unseen-labels" not in found(opened(TRAIN, share), opened(EVAL, share), rate)


def test_more_open_answers_than_train_has() -> None:
    """Open answers that are commoner in eval are a warning, whatever the gates; labels an error."""
    train, rate = opened(TRAIN, 0.05), parse_gate("pass_rate", ">= 99%")
    assert "warning" == found(train, opened(EVAL, 0.3), rate)["unseen-labels"].severity
    some = edited(opened(EVAL, 0.0), 15, completion=" maybe")
    assert "warning" == found(train, some, rate)["unseen-labels"].severity
    most = edited(opened(EVAL, 0.0), 25, completion=" maybe")
    assert "error" == found(train, most, rate)["unseen-labels"].severity


def test_answers_found_in_their_prompts() -> None:
    """Where answers are copied from prompts, other ones can be too."""

    def cities(rows_: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
        return [
            {**row, "prompt": f"a flight to {name}\n{row['prompt']}", "completion": f" {name}"}
            for row, name in zip(rows_, names * len(rows_), strict=False)
        ]

    train = cities(TRAIN, ["Paris", "Oslo", "Rome", "Lima"])
    assert "unseen-labels" not in found(train, cities(EVAL, ["Cairo", "Quito"]))
    other = edited(cities(EVAL, ["Cairo"]), 30, completion=" none")
    assert "30 of 100" in found(train, other)["unseen-labels"].message


def test_label_imbalance() -> None:
    """One label for nearly all rows, or hardly any row for a label that eval asks for."""
    finding = found(edited(TRAIN, 180, completion=" other"), EVAL)["label-imbalance"]
    assert "warning" == finding.severity
    assert finding.message.startswith("The label 'other' has 18")
    rare = [row for row in TRAIN if row["completion"] != " billing"]
    rare.append(next(row for row in TRAIN if row["completion"] == " billing"))
    finding = found(rare, EVAL)["label-imbalance"]
    assert finding.message.startswith(f"The label 'billing' has 1 of {len(rare)} train examples")
