"""Scores have a column, a curve and a figure wherever the other metrics have one."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.metrics import own_metrics
from pytest_ftloop.gate.difference import Difference, difference
from pytest_ftloop.gate.holdout import report_of as report_of_holdout
from pytest_ftloop.gate.verdict import Verdict
from pytest_ftloop.report.as_json.items import diff_item
from pytest_ftloop.report.card import Facts, model_card
from pytest_ftloop.report.diff import as_markdown as as_markdown_of_diff
from pytest_ftloop.report.diff import as_text as as_text_of_diff
from pytest_ftloop.report.diff import to_json
from pytest_ftloop.report.explain import explain_figure
from pytest_ftloop.report.phrases import difference_text, distance_text
from pytest_ftloop.report.properties import loop_properties
from pytest_ftloop.report.pull_request import LoopOutcome
from pytest_ftloop.report.show import show_iteration
from pytest_ftloop.report.table import as_csv, as_json, as_markdown, as_text, log_rows
from pytest_ftloop.report.text import example_lines, headline, iterations_table
from pytest_ftloop.report.verdict import holdout_lines
from tests.fakes import fake_example, fake_holdout_use
from tests.report.fakes_report import fake_result
from tests.report.html_cases import Page
from tests.report.pull_request_cases import text_of

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


OWN = {"score.fields": (0.3, "30.0%"), "macro_f1": (0.4321, "0.4321")}
"""Metrics of a loop's own, named scores and of the whole set: figure, and how people read it."""


def with_own(made: LoopResult) -> LoopResult:
    """The result with the same figures of its own in each iteration."""
    own = {name: figure for name, (figure, _) in OWN.items()}
    chain = tuple(replace(it, metrics={**it.metrics, **own}) for it in made.chain)
    best = next(it for it in chain if it.name == made.best.name)
    return replace(made, chain=chain, best=best)


def comment(result: LoopResult) -> str:
    return text_of(LoopOutcome(result.loop, result.source, result))


def page(result: LoopResult) -> str:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    from pytest_ftloop.report.html.gather import of_result
    from pytest_ftloop.report.html.page import render

    return Page(render([of_result(result)])).text


def holdout(result: LoopResult) -> str:
    use = fake_holdout_use(result.best, result.best.examples)
    use = replace(use, metrics={name: figure for name, (figure, _) in OWN.items()})
    verdict = Verdict("improved", ok=True, because="", candidate=result.best.name)
    found = report_of_holdout(result.best, [use], verdict, None, [])
    assert found is not None
    return "\n".join(holdout_lines(found))


def card(result: LoopResult) -> str:
    use = fake_holdout_use(result.best, result.best.examples)
    use = replace(use, metrics={name: figure for name, (figure, _) in OWN.items()})
    text = model_card(replace(result.best, metrics={}), Facts("a base", holdout=use))
    return text.partition("On the holdout")[2]


def changed(result: LoopResult) -> Difference:
    old, new = result.chain[0], result.best
    verdict = Verdict("unchanged", ok=True, because="", candidate=new.name)
    return difference(old, new, verdict, {})


PLAIN = {
    "junit": lambda result: str(loop_properties(result)),
    "log as json": lambda result: as_json(log_rows(result.chain)),
    "log as csv": lambda result: as_csv(log_rows(result.chain)),
    "diff as json": lambda result: to_json(diff_item(changed(result), "x", 0)),
}
READ = {
    "headline": lambda result: headline(result, 400),
    "table": lambda result: iterations_table(result, 400),
    "log": lambda result: as_text(log_rows(result.chain), 400),
    "log as markdown": lambda result: as_markdown(log_rows(result.chain)),
    "show": lambda result: show_iteration(result.best, {}),
    "diff": lambda result: as_text_of_diff(changed(result)),
    "diff as markdown": lambda result: as_markdown_of_diff(changed(result)),
    "comment": comment,
    "page": page,
    "holdout": holdout,
    "card": card,
    "card, eval set": lambda result: model_card(result.best, Facts("a base")),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("output", [*PLAIN, *READ])
def test_each_output_has_the_loops_own_figures(output: str, name: str) -> None:
    """Whatever shows the pass rate shows the scores and the metrics of the set, by name."""
    figure, shown = OWN[name]
    text = {**PLAIN, **READ}[output](with_own(fake_result()))
    # In a table the name's parts are on two lines.
    assert all(part in text.replace("\\_", "_") for part in re.split(r"[._]", name))
    assert (str(figure) if output in PLAIN else shown) in text


UNSCORED = {**PLAIN, **READ}
for _known in ("junit", "diff as json", "diff", "diff as markdown", "holdout", "card"):
    del UNSCORED[_known]


@pytest.mark.parametrize("output", UNSCORED)
def test_an_unscored_pass_rate_is_called_so(output: str) -> None:
    """Of an iteration that is still to be scored each output says so: null in JSON, never `nan`."""
    made = fake_result()
    chain = tuple(replace(it, metrics={**it.metrics, "pass_rate": math.nan}) for it in made.chain)
    result = replace(made, chain=chain, best=chain[-1])
    text = UNSCORED[output](result)
    if output == "log as json":
        assert [None] * len(chain) == [row["pass_rate"] for row in json.loads(text)]
    elif output != "log as csv":
        assert "unscored" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


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
