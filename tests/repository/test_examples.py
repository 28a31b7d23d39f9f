"""The examples' logs are up to date, and their READMEs have the logged figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.docs.pages import tables

EXTRACTION = Path(__file__).parents[2] / "examples" / "extraction"
FIELDS = ("item", "count", "day", "name")


@pytest.fixture(scope="module")
def chain() -> tuple[Iteration, ...]:
    """The logged iterations; a log that is out of date raises."""
    return Loop(read_loop_file(EXTRACTION / "orders.ftloop.yaml"), Options(replay=True)).run().chain


def test_scores_rise_where_nothing_passes(chain: tuple[Iteration, ...]) -> None:
    """The pass rate is 0 throughout; validity and field score never fall."""
    assert {0.0} == {iteration.metrics["pass_rate"] for iteration in chain}
    for score in ("score.valid", "score.fields"):
        course = [iteration.metrics[score] for iteration in chain]
        assert sorted(course) == course
        assert course[0] == 0.0
    assert 3 == len(chain)


def test_readme_has_the_logged_figures(chain: tuple[Iteration, ...]) -> None:
    """The table in the example's README is that of the committed log."""
    (shown,) = tables((EXTRACTION / "README.md").read_text(encoding="utf-8"))
    logged = [
        [
            str(iteration.number),
            f"{iteration.metrics['eval_loss']:.2f}",
            *(
                f"{100 * iteration.metrics[name]:.0f}%"
                for name in ("pass_rate", "score.valid", "score.fields")
            ),
        ]
        for iteration in chain
    ]
    assert logged == [[number, *figures] for number, _, *figures in shown]


def test_rows_are_what_they_say() -> None:
    """Each answer has the four fields, its words are in the order, no name is in both sets."""
    names = {}
    for role, count in (("train", 60), ("eval", 24)):
        lines = (EXTRACTION / "data" / f"{role}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        answers = [json.loads(row["completion"]) for row in rows]
        assert count == len(rows)
        for row, answer in zip(rows, answers, strict=True):
            assert FIELDS == tuple(answer)
            assert answer["item"].removesuffix("s") in row["prompt"]
            assert answer["day"] in row["prompt"]
            assert answer["name"].lower() in row["prompt"]
        names[role] = {answer["name"] for answer in answers}
    assert set() == names["train"] & names["eval"]


# chat

CHAT = EXTRACTION.parent / "chat"


def test_chat_has_the_logged_figures() -> None:
    """The log is up to date with rows and template, the table is that of it, the gate holds."""
    result = Loop(read_loop_file(CHAT / "desk.ftloop.yaml"), Options(replay=True)).run()
    (shown,) = tables((CHAT / "README.md").read_text(encoding="utf-8"))
    assert [[number, *figures] for number, _, *figures in shown] == [
        [
            str(iteration.number),
            f"{iteration.metrics['eval_loss']:.2f}",
            f"{100 * iteration.metrics['pass_rate']:.0f}%",
        ]
        for iteration in result.chain
    ]
    assert [True] == [gate.passed for gate in result.gates]


def test_chat_rows_end_with_the_answer() -> None:
    """Each row is a conversation that ends with the team; no question is in both sets."""
    questions = {}
    for role, count in (("train", 144), ("eval", 18)):
        lines = (CHAT / "data" / f"{role}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert count == len(rows)
        for row in rows:
            roles = [message["role"] for message in row["messages"]]
            turns = ["user", "assistant"] * (2 if row["tags"] else 1)
            assert ["system", *turns] == roles
            assert row["messages"][-1]["content"] in ("billing", "delivery", "returns")
        questions[role] = {row["messages"][-2]["content"] for row in rows}
    assert set() == questions["train"] & questions["eval"]
