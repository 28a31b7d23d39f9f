"""Metrics of the whole set in a loop: in its record and gates, and when they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import LogError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.writing import tag_of
from tests.loop.loop_cases import config, run

if TYPE_CHECKING:
    from pathlib import Path


def test_figures_are_in_the_record_and_gates_hold_by_them(tmp_path: Path) -> None:
    """A metric of the set is recorded, by tag too, and a threshold is checked against it."""
    of_set = {"metrics": ["accuracy", "mcc"], "gates": {"accuracy": ">= 0.5", "mcc[x]": ">= -1"}}
    result, _ = run(config(tmp_path, **of_set))
    # The fake backend writes "an output" for every example.
    assert (0.0, 0.0) == (result.best.metrics["accuracy"], result.best.metrics["accuracy[x]"])
    assert [False, True] == [gate.passed for gate in result.gates]
    assert {"accuracy": "accuracy", "mcc": "mcc"} == result.best.scoring["metrics"]


def test_a_loop_without_metrics_has_the_fingerprint_it_had(tmp_path: Path) -> None:
    """An empty `metrics` leaves a log up to date."""
    run(config(tmp_path))
    assert () == run(config(tmp_path, metrics=[]))[0].trained


def test_an_edited_function_makes_the_log_out_of_date(tmp_path: Path) -> None:
    """The source of a user's function is part of the identity of the figures."""
    file = tmp_path / "own_metric.py"
    file.write_text("def f(outputs, expected, rows):\n    return 1\n")
    first, _ = run(config(tmp_path, metrics={"mine": "own_metric:f"}))
    assert 1.0 == first.best.metrics["mine"]
    again, _ = run(config(tmp_path, metrics={"mine": "own_metric:f"}))
    assert () == again.trained
    file.write_text("def f(outputs, expected, rows):\n    return 2\n")
    edited, _ = run(config(tmp_path, metrics={"mine": "own_metric:f"}))
    assert edited.best.fingerprint != first.best.fingerprint


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({"m": "accuracy"}, "it says m 0.9, its table of examples 0.0"),
        ({"m": "constant_metric:f"}, "it says m 0.9, but its outputs give 0.000000"),
    ],
)
def test_an_edited_figure_is_found(tmp_path: Path, metrics: dict[str, str], found: str) -> None:
    """A record whose metric of the set is not that of its outputs is damaged."""
    (tmp_path / "constant_metric.py").write_text("def f(outputs, expected, rows): return 0\n")
    result, _ = run(config(tmp_path, metrics=metrics, iterations=1))
    record, table = ImprovementLog(result.log_folder).files(result.best)
    text = record.read_text().replace("  m: 0.0\n", "  m: 0.9\n")
    stem = f"{record.stem[:-5]}-{tag_of(text)}"
    record.unlink()
    (record.parent / f"{stem}.yaml").write_text(text)
    table.rename(table.parent / f"{stem}.examples.csv")
    with pytest.raises(LogError) as caught:
        run(config(tmp_path, metrics=metrics, iterations=1))
    assert found in str(caught.value)
