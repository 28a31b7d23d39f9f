"""Scores have a column, a curve and a figure wherever the other metrics have one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.metrics import own_metrics
from pytest_ftloop.report.explain import explain_figure
from pytest_ftloop.report.phrases import difference_text, distance_text
from pytest_ftloop.report.show import show_iteration
from pytest_ftloop.report.table import as_csv, as_json, as_markdown, as_text, log_rows
from pytest_ftloop.report.text import example_lines, headline, iterations_table
from tests.fakes import fake_example
from tests.report.fakes_report import fake_result

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


@pytest.fixture
def result() -> LoopResult:
    """A loop whose scorer gives `score.fields`, and whose best iteration is chosen by it."""
    made = fake_result()
    chain = tuple(
        replace(
            it,
            metrics={**it.metrics, "score.fields": n / 10, "score.fields[negation]": n / 20},
            examples=tuple(
                replace(r, scores={"score.fields": i / 20}) for i, r in enumerate(it.examples)
            ),
        )
        for n, it in enumerate(made.chain, start=1)
    )
    best = next(it for it in chain if it.name == made.best.name)
    return replace(made, chain=chain, best=best, metric="score.fields")


def test_names() -> None:
    """Own metrics are those of the whole set besides the usual ones, of pass@k the largest k."""
    figures = {
        "eval_loss": 1.0, "score.b": 1.0, "score.a[x]": 1.0, "score.a": 1.0, "macro_f1": 1.0,
        "guard.g.score": 1.0, "pass@2": 1.0, "pass@5": 1.0, "pass^2": 1.0, "pass^5": 1.0,
    }  # fmt: skip
    assert ("score.b", "score.a", "macro_f1", "pass@5", "pass^5") == own_metrics([figures])
    assert () == own_metrics([{"eval_loss": 1.0}])


def test_table_of_the_iterations(result: LoopResult) -> None:
    """It has a column of the score, and says by what the best one is chosen."""
    lines = iterations_table(result, 140).splitlines()
    assert "score" in lines[0]
    assert "fields" in lines[1]
    assert "10.0%" in lines[2] or "10.0%" in lines[3]
    assert lines[-1].startswith("*  best by score.fields")
    assert "score.fields" in headline(result, 200)


def test_log_tables(result: LoopResult) -> None:
    """`ftloop log` has the score in each of its formats, after the pass rate."""
    rows = log_rows(result.chain)
    header = as_csv(rows).splitlines()[0].split(",")
    assert header.index("score.fields") == header.index("pass_rate") + 1
    assert [it.metrics["score.fields"] for it in result.chain] == [
        row["score.fields"] for row in json.loads(as_json(rows))
    ]
    assert "score.fields" in as_markdown(rows)
    assert "10.0%" in as_text(rows, 160)


def test_an_iteration_in_full(result: LoopResult) -> None:
    """`ftloop show` has the score and its tags."""
    shown = show_iteration(result.best, {})
    assert 2 <= shown.count("score.fields")


def test_a_failing_assert(result: LoopResult) -> None:
    """It shows the examples with the lowest score."""
    lines = explain_figure(result.score("fields"), ">=", 0.9)
    assert any("score.fields 30.0%, wanted >= 90%: missed by 60.0 points" in li for li in lines)
    place = next(n for n, line in enumerate(lines) if "lowest score.fields" in line)
    assert "e01" in " ".join(lines[place : place + 4])


def test_figures_of_a_result(result: LoopResult) -> None:
    """`score(name)`, its slices and `metrics` give the figures; a wrong name is guessed."""
    assert result.best.metrics["score.fields"] == result.score("fields")
    assert result.best.metrics["score.fields[negation]"] == result.slice("negation").score("fields")
    assert result.score("fields") == result.metrics["score.fields"]
    with pytest.raises(FtloopError, match=r"has no figure 'score\.field'"):
        result.score("field")


@pytest.mark.parametrize(
    ("output", "wrong"),
    [
        ('{"a": 1, "b": [2, 3]}', None),
        ('{"a": 2, "b": [2]}', "wrong     a, b[1]"),
        ('{"a": 1', "wrong     not JSON"),
    ],
)
def test_what_is_wrong_with_json(output: str, wrong: str | None) -> None:
    """A failing example of `json` shows whether it is no JSON, or which fields differ."""
    row = fake_example(expected='{"a": 1, "b": [2, 3]}', output=output, scores={"score.valid": 1.0})
    lines = [line.strip() for line in example_lines(row)]
    assert ([wrong] if wrong else []) == [line for line in lines if line.startswith("wrong")]
    other = replace(row, scores={})
    assert not any("wrong" in line for line in example_lines(other))


def test_differences_are_in_points() -> None:
    """Of a score as of a pass rate."""
    assert "+12.5" == difference_text("score", 0.625, 0.5)
    assert "12.5 points" == distance_text("score.fields[x]", 0.625, 0.5)
