"""`ftloop show` says everything that a record says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.records import Cost
from pytest_ftloop.report.escape import columns_of
from pytest_ftloop.report.show import show_iteration, sparkline
from tests.fakes import fake_iteration
from tests.report.fakes_report import fake_result
from tests.report.hostile import hostile_results

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


def shown(width: int = 100, **options: bool) -> list[str]:
    result = fake_result()
    return show_iteration(result.best, result.examples, width, **options).splitlines()


def test_show_has_every_section() -> None:
    """From settings to cost, in the order of the loop."""
    heads = [line.split(":")[0].split(" ")[0] for line in shown() if line and line[0] != " "]
    assert [
        "iteration",
        "settings",
        "data",
        "metric",
        "tag",
        "curves",
        "findings",
        "failing",
        "decision",
        "next",
        "environment",
        "cost",
    ] == heads


def test_settings_say_what_was_adjusted() -> None:
    """A setting that this iteration changed says from what and why."""
    assert [
        "  lora.r 8",
        "  lora.lora_alpha 16",
        "  training.learning_rate 1e-3",
        "  training.num_train_epochs 3  (adjusted from 1: the run ended while still improving)",
        "  scoring: scorer exact",
    ] == shown()[5:10]


def test_data_shortens_hashes() -> None:
    """Rows and the start of the hash identify a data set."""
    assert "  train: rows 400, sha256 aaaaaaaaaaaa" in shown()


def test_metrics_of_best_and_last_point_and_untrained_model() -> None:
    """Three columns, and a table by tag."""
    rows = [line.split() for line in shown()]
    assert ["pass_rate", "75.0%", "75.0%", "0.0%"] in rows
    assert ["negation", "10", "-", "60.0%", "-", "-"] in rows


def test_all_failing_examples() -> None:
    """`ftloop show` is where the rest of the failing examples is seen."""
    assert 5 == sum("per token" in line for line in shown())
    assert not any("more: ftloop show" in line for line in shown())


def test_cost_names_device_memory_where_there_is_a_device() -> None:
    """On CPU there is none to name."""
    iteration = fake_iteration(cost=Cost(3.0, 1, 20, 812.3))
    wanted = "cost: 3.0 s, 1 step, 20 tokens, 812 MiB on the device"
    assert wanted == show_iteration(iteration, {}).splitlines()[-1]


def test_ascii_curves() -> None:
    """Without Unicode everything is ASCII."""
    assert "\n".join(shown(unicode=False)).isascii()
    assert not "\n".join(shown()).isascii()


@pytest.mark.parametrize(
    ("values", "size", "wanted"),
    [
        ([8, 4, 2, 1], 4, "@=._"),
        ([1.0, 1.0], 4, "++"),
        ([1.0, math.nan, 2.0], 3, "_!@"),
        ([3, 3, 2, 2, 1, 1], 3, "@+_"),
        ([math.inf], 3, "!"),
        ([], 3, ""),
        ([1e308, -1e308], 2, "@_"),
    ],
)
def test_sparkline(values: list[float], size: int, wanted: str) -> None:
    """Bars between the lowest and the highest value; a mark for what is not finite."""
    assert wanted == sparkline(values, size, "_.-=+*#@")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile_results(), st.integers(20, 140))
def test_show_survives_hostile_text(result: LoopResult, width: int) -> None:
    """Every line is printable and within the width."""
    lines = show_iteration(result.best, result.examples, width).split("\n")
    assert all(line.isprintable() for line in lines)
    assert all(columns_of(line) <= width for line in lines)
