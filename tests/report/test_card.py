"""The model card: the same shape whatever users, models and data files wrote."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.report.card import Facts, model_card
from tests.fakes import fake_finding, fake_iteration, fake_judgement, fake_metrics
from tests.report.hostile import NASTY, hostile_results
from tests.report.markdown_rows import rows_of

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration

HEADINGS = ["Use", "Evaluation", "Findings", "Data", "Settings", "Origin"]


def parts(card: str) -> tuple[dict[str, Any], list[str]]:
    """The front matter, and the body's lines without the block of code."""
    before, head, body = card.split("---\n", 2)
    assert "" == before
    code = re.findall(r"^```.*?^```\n", body, re.DOTALL | re.MULTILINE)
    assert (1, 2) == (len(code), body.count("```"))
    return yaml.safe_load(head), body.replace(code[0], "").splitlines()


def check_shape(card: str) -> None:
    """Nothing in the card is structure but what we wrote."""
    head, lines = parts(card)
    assert ["library_name", "pipeline_tag", "tags", "model-index"] == [
        name for name in head if name != "base_model"
    ]
    assert "".join(card.split("\n")).isprintable()
    assert HEADINGS == [line[3:] for line in lines if line.startswith("## ")]
    assert 1 == sum(line.startswith("# ") for line in lines)
    for above, line in pairwise(lines):
        assert "<" not in line
        assert not re.search(r"@\w|(?<!&)#\d|://", line)
        if line.startswith("|") and above.startswith("|"):
            assert above.count("|") == line.count("|")
        for active in ("[", "](", "~~", "**_"):
            assert active not in line
    known = re.compile(r"\||- \*\*|#{1,2} |[A-Z]|$")
    assert [] == [line for line in lines if not known.match(line)]


def iteration(**fields: Any) -> Iteration:
    return fake_iteration(2, metrics=fake_metrics(0.5), findings=[fake_finding()], **fields)


def test_shape_of_a_usual_card() -> None:
    """What the other test looks for is there in a card without anything hostile."""
    check_shape(model_card(iteration(), Facts("gpt2, on the hub.", hub_id="gpt2")))


@settings(max_examples=100, deadline=None)
@given(hostile_results(), NASTY, NASTY)
def test_nothing_hostile_gets_through(result: Any, name: str, because: str) -> None:
    """Hostile texts in every field leave front matter, tables and headings as they are."""
    judged = replace(fake_judgement("1"), kind=name, because=because, baseline=because)
    for one in result.chain:
        facts = Facts(f"{name} on the hub.", hub_id=name, judgements=(judged,))
        check_shape(model_card(one, facts))


def test_figures_that_are_not_finite() -> None:
    """The hub refuses NaN and infinity: the index leaves them out, the table shows them."""
    figures = {"eval_loss": float("nan"), "perplexity": float("inf"), "pass_rate": 0.5}
    card = model_card(fake_iteration(1, metrics=figures), Facts("gpt2"))
    head, _ = parts(card)
    (result,) = head["model-index"][0]["results"]
    assert ["pass_rate"] == [metric["name"] for metric in result["metrics"]]
    assert ["eval_loss", "nan"] in [row[:2] for row in rows_of(card)]


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("score", "mean score of the eval examples, 0 to 1"),
        ("score.fields", "mean score of the eval examples, 0 to 1"),
        ("pass@3", "probability that any of 3 outputs passes"),
        ("guard.general.eval_loss", "of the guard general"),
        ("macro_f1", "of the user's own"),
    ],
)
def test_metrics_beyond_the_usual(name: str, meaning: str) -> None:
    """A score, a sampled metric, a guard's and a metric of the set have rows with a meaning."""
    card = model_card(fake_iteration(1, metrics={"eval_loss": 1.0, name: 0.5}), Facts("gpt2"))
    (row,) = [row for row in rows_of(card) if row[0].replace("`", "") == name]
    assert meaning in row[-1]


@given(st.integers(1, 3))
def test_tags_in_the_index(count: int) -> None:
    """Of each tag the hub's index gets eval loss and pass rate; the table has more."""
    tags = [f"t{n}" for n in range(count)]
    figures = {f"{name}[{tag}]": 0.5 for tag in tags for name in ("eval_loss", "perplexity")}
    head, lines = parts(model_card(fake_iteration(1, metrics=figures), Facts("gpt2")))
    (result,) = head["model-index"][0]["results"]
    assert [f"eval_loss[{tag}]" for tag in tags] == [m["name"] for m in result["metrics"]]
    assert count == sum(line.startswith("| t") and "0.5000" in line for line in lines)


def test_backslash_is_doubled_once() -> None:
    """A setting with a backslash reads as it does in the terminal."""
    card = model_card(fake_iteration(1, training={"optim": "a\\b"}), Facts("gpt2"))
    assert ["training.optim", "a&#92;&#92;b", ""] in rows_of(card)
