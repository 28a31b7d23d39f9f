"""How single values are said."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.core.records import Adjustment, Decision, Settings
from pytest_ftloop.report.phrases import (
    broken_text,
    decision_text,
    difference_text,
    distance_text,
    duration_text,
    evidence_text,
    figure_text,
    format_change,
    format_changes,
    format_setting,
    format_start,
)
from tests.fakes import fake_iteration
from tests.report.fakes_report import DROPOUT, FASTER, fake_chain


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (2e-4, "2e-4"),
        (1.5e-05, "1.5e-5"),
        (0.001, "1e-3"),
        (0.01, "0.01"),
        (0.05, "0.05"),
        (0.0, "0"),
        (1.0, "1"),
        (2e7, "2e7"),
        (math.nan, "nan"),
        (8, "8"),
        (True, "true"),
        (None, "null"),
        ("all-linear", "all-linear"),
        (["q_proj", "v_proj"], '["q_proj", "v_proj"]'),
        ({"a": 1}, '{"a": 1}'),
        ("a\x1bb", r"a\x1bb"),
    ],
)
def test_format_setting(value: Any, wanted: str) -> None:
    """Learning rates are scientific, the rest as in YAML, text made visible."""
    assert wanted == format_setting(value)


def test_format_change() -> None:
    """A change is named without its group; an unstated setting had its default."""
    assert "learning_rate 2e-4 -> 1e-3" == format_change(FASTER)
    assert "lora_dropout default -> 0.1" == format_change(DROPOUT)


@pytest.mark.parametrize(
    ("lora", "training", "wanted"),
    [
        ({"r": 8}, {"learning_rate": 2e-4, "num_train_epochs": 1}, "start: lr 2e-4, r 8, 1 epoch"),
        ({}, {"num_train_epochs": 1.5}, "start: 1.5 epochs"),
        ({}, {"num_train_epochs": 1.5, "max_steps": 20}, "start: 20 steps"),
        ({}, {"num_train_epochs": 3, "max_steps": -1}, "start: 3 epochs"),
        ({}, {}, "start: default settings"),
    ],
)
def test_format_start(lora: dict[str, Any], training: dict[str, Any], wanted: str) -> None:
    """What an iteration starts with: of the main settings those that are stated."""
    assert wanted == format_start(Settings(lora, training))


def test_format_changes() -> None:
    """An iteration is introduced by all its adjustments, the first by its settings."""
    chain = fake_chain()
    assert [
        "start: lr 2e-4, r 8, 1 epoch",
        "learning_rate 2e-4 -> 1e-3",
        "num_train_epochs 1 -> 3",
        "r 8 -> 16, lora_dropout default -> 0.1",
    ] == [format_changes(iteration, chain) for iteration in chain]


def test_format_changes_names_a_parent_that_is_not_the_one_before() -> None:
    """After a worse iteration the next one may start from an earlier one: that is said."""
    chain = fake_chain()
    fifth = fake_iteration(5, parent=chain[2].id, adjustments=[FASTER])
    assert "learning_rate 2e-4 -> 1e-3 (from 3)" == format_changes(fifth, (*chain, fifth))
    assert "same settings" == format_changes(replace(fifth, adjustments=()))


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("pass_rate", 0.7312, "73.1%"),
        ("pass_rate[negation]", 0.5, "50.0%"),
        ("eval_loss", 1.23456, "1.2346"),
        ("perplexity", 1e260, "1e+260"),
        ("eval_loss", math.inf, "inf"),
        ("eval_loss", math.nan, "nan"),
        ("eval_loss", None, "-"),
    ],
)
def test_figure_text(name: str, value: float | None, wanted: str) -> None:
    """A missing figure is a dash; a diverged one is not written out in full."""
    assert wanted == figure_text(name, value)


@pytest.mark.parametrize(
    ("name", "new", "old", "wanted"),
    [
        ("pass_rate", 0.75, 0.7, "+5.0"),
        ("eval_loss", 1.2, 1.5, "-0.3000"),
        ("eval_loss", 1.2, 1.20000001, "+0.0000"),
        ("eval_loss", math.nan, 1.0, "-"),
        ("eval_loss", 1.0, None, "-"),
        ("perplexity", 1e200, 1.0, "+1e+200"),
    ],
)
def test_difference_text(name: str, new: float, old: float | None, wanted: str) -> None:
    """Points for a rate, four decimals otherwise, always signed."""
    assert wanted == difference_text(name, new, old)


@pytest.mark.parametrize(
    ("name", "one", "other", "wanted"),
    [
        ("pass_rate", 0.7312, 0.9, "16.9 points"),
        ("pass_rate", 0.89999, 0.9, "less than 0.1 points"),
        ("eval_loss", 3.5, 3.4, "0.1000"),
        ("eval_loss", 3.40001, 3.4, "less than 0.0001"),
    ],
)
def test_distance_text(name: str, one: float, other: float, wanted: str) -> None:
    """A small distance is not rounded to nothing."""
    assert wanted == distance_text(name, one, other)


@pytest.mark.parametrize(
    ("decision", "wanted"),
    [
        (Decision("adjust", "", "why"), "adjust"),
        (Decision("stop", "gates", "why"), "stop: thresholds hold"),
        (Decision("stop", "exhausted", "why"), "stop: nothing left to try"),
        (Decision("stop", "else\n", "why"), r"stop: else\n"),
        (Decision("stop", "", ""), "stop"),
    ],
)
def test_decision_text(decision: Decision, wanted: str) -> None:
    """A decision in two or three words."""
    assert wanted == decision_text(decision)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0.04, "0.0 s"),
        (42.34, "42.3 s"),
        (59.99, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3720, "1 h 02 min"),
        (math.nan, "-"),
    ],
)
def test_duration_text(seconds: float, wanted: str) -> None:
    """Seconds, minutes or hours, whichever reads best."""
    assert wanted == duration_text(seconds)


def test_evidence_text() -> None:
    """Numbers with four digits, text made visible."""
    evidence = {"eval_lowest": 1.23456, "steps": 66, "word": "not\n"}
    assert r"eval_lowest 1.235, steps 66, word not\n" == evidence_text(evidence)


def test_format_change_of_a_setting_without_group() -> None:
    """A setting that has no group is named whole."""
    assert "seed 1 -> 2" == format_change(Adjustment("seed", 1, 2, "noise"))


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ((3, 5), "3 of 5 examples that passed now fail"),
        ((1, 1), "1 of 1 example that passed now fails"),
        ((3, 5, 3, "a b"), '3 of 5 examples that passed now fail; all of them answer "a b"'),
        ((4, 4, 3, ""), '4 of 4 examples that passed now fail; 3 of them answer ""'),
    ],
)
def test_broken_text(known: tuple[Any, ...], said: str) -> None:
    """How many, of how many, and what they have in common, in quotes."""
    assert said == broken_text(*known)


def test_evidence_that_is_a_text_of_an_example_is_in_quotes() -> None:
    """An output may be `wrong`, or empty; our own words stand without quotes."""
    evidence = {"expected": "yes", "output": "", "slice": "wrong"}
    assert 'expected "yes", output "", slice wrong' == evidence_text(evidence)
