"""Several loops in one table: text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from pytest_ftloop.core.records import Cost
from pytest_ftloop.gate.ranking import Entry, rank
from pytest_ftloop.report.ranking import base_text, format_ranking, notes_of, ranking_rows
from tests.fakes import fake_measured, fake_table
from tests.gate.compare_cases import losses
from tests.report.markdown_rows import rows_of

SIZES = {"small": ("tiny:70875b4b", 40, 10.0), "large": ("hub:org/big@v1", 30, 90.0)}


def entry(name: str, number: int, failing: int, *, seconds: float = 10.0, **fields: Any) -> Entry:
    """A loop of which the first so many of 200 examples fail, and its untrained base of 180."""
    rows = fake_table(losses(1.0, number), range(failing))
    best = fake_measured(number, rows, cost=Cost(seconds, 100, 5_000), **fields)
    base = fake_measured(0, fake_table(losses(4.0, 0), range(180)))
    return Entry(name, best, (best,), base=base, metric="pass_rate")


def loops() -> list[Entry]:
    """Two alike, one far behind."""
    two = [
        entry(name, number, failing, seconds=seconds, model=model)
        for number, (name, (model, failing, seconds)) in enumerate(SIZES.items(), start=1)
    ]
    return [*two, entry("old", 3, 120, model="hub:org/old")]


def test_text() -> None:
    """The best is first; each other one says by how much it is behind, and what is proven."""
    out = format_ranking(rank(loops()), "text", 120)
    lines = out.splitlines()
    assert "3 loops by pass_rate on 200 examples" == lines[0]
    assert ["large", "small", "old"] == [line.split()[0] for line in lines[3:6]]
    assert "best" in lines[3]
    assert "5.0 points, not proven" in lines[4]
    assert "45.0 points, p < 0.0001" in lines[5]
    for said in ("org/big@v1", "10.0%", "85.0%", "1 min 30 s"):
        assert said in lines[3], said
    notes = " ".join(" ".join(lines[6:]).split())
    assert "large is ahead of old beyond noise" in notes
    assert "Not proven: that large is better than small; a difference is found from " in notes
    assert "ftloop calibrate" in notes
    assert "The cheapest that is not proven worse: small, 10.0 s against 1 min 30 s" in notes


@pytest.mark.parametrize("width", [60, 80, 100])
def test_text_fits(width: int) -> None:
    """No line is wider than the terminal, and the figure and the lead stay."""
    out = format_ranking(rank(loops()), "text", width)
    assert all(len(line) <= width for line in out.splitlines())
    assert "85.0%" in out
    assert "45.0 points" in out


def test_one_that_cannot_be_compared_says_why() -> None:
    """A loop that was scored in another way is in the table, with the reason beneath."""
    other = entry("b", 4, 90, scoring={"scorer": "contains"})
    rows = [replace(row, tokens=9) for row in other.best.examples]
    best = fake_measured(4, rows, scoring={"scorer": "contains"})
    found = rank([*loops()[:2], replace(other, best=best, iterations=(best,))])
    lines = format_ranking(found, "text", 120).splitlines()
    assert "not compared" in lines[5]
    assert "  b is not compared: scored in another way." in lines


@pytest.mark.parametrize(("other", "said"), [("x", "eval set"), ("", "environment")])
def test_what_is_apart(other: str, said: str) -> None:
    """A loop of other examples or of another environment is in the table too, and said to be."""
    rows = [replace(row, content=f"{other}{row.content}") for row in fake_table(losses(1.0))]
    device = {"device": "cpu" if other else "cuda", "torch": "2.13.0"}
    best = fake_measured(9, rows, environment=device)
    found = rank([Entry("alone", best, (best,)), *loops()])
    out = format_ranking(found, "text", 120).splitlines()
    more = "; 1 more on another eval set or in another environment"
    assert f"3 loops by pass_rate on 200 examples{more}" == out[0]
    assert out[6].startswith("alone")
    assert f"another {said}" in out[6]
    assert ["alone"] == [row.loop for row in ranking_rows(found) if row.place == "alone"]


def test_nothing_to_compare() -> None:
    """Where no two loops share an eval set, the title says that nothing is compared."""
    rows = [replace(row, content=f"x{row.id}") for row in fake_table(losses(1.0))]
    best = fake_measured(9, rows)
    out = format_ranking(rank([Entry("a", best, (best,)), loops()[0]]), "text", 120)
    assert out.startswith("2 loops, no two of one eval set and environment: not compared\n")
    assert "best" not in out.splitlines()[3].split()


def test_equal_loops() -> None:
    """Two loops whose results are the same are equal: neither is behind."""
    one = loops()[0]
    found = rank([one, replace(one, loop="again")])
    assert ["best", "nothing"] == [row.said for row in ranking_rows(found)]
    assert ["small and again are equal."] == [n for n in notes_of(found) if "seed" not in n]


def test_json_and_csv_read_back() -> None:
    """Programs get the same rows: figures as numbers, missing ones null."""
    found = rank(loops())
    rows = json.loads(format_ranking(found, "json"))
    assert ["large", "small", "old"] == [row["loop"] for row in rows]
    assert ["leads", "tied", "behind"] == [row["place"] for row in rows]
    assert [None, pytest.approx(0.05), pytest.approx(0.45)] == [row["behind"] for row in rows]
    assert (0.1, 0.85, 90.0) == tuple(rows[0][k] for k in ("untrained", "figure", "seconds"))
    read = list(csv.DictReader(io.StringIO(format_ranking(found, "csv"))))
    assert [row["said"] for row in rows] == [row["said"] for row in read]
    assert "" == read[0]["behind"]


def test_markdown_is_inert() -> None:
    """A loop's or a model's name has no effect in Markdown."""
    nasty = entry("a|b<img>", 1, 20, model="hub:<script>")
    out = format_ranking(rank([nasty, *loops()]), "markdown")
    assert "<" not in out.replace("p < ", "")
    assert {len(row) for row in rows_of(out)} == {len(rows_of(out)[0])}
    assert {"loop", "base", "untrained", "pass rate", "behind the best by"} < {*rows_of(out)[0]}


def test_two_of_one_name_are_told_apart() -> None:
    """Two chains of one log have the names of their best iterations."""
    one, other = (replace(loop, loop="x") for loop in loops()[:2])
    assert ["x 002-00000002", "x 001-00000001"] == [
        r.loop for r in ranking_rows(rank([one, other]))
    ]
    first, _, cheapest = notes_of(rank([one, other]))
    assert first.startswith("Not proven: that x 002-00000002 is better than x 001-00000001;")
    assert "not proven worse: x 001-00000001, 10.0 s against" in cheapest


def test_columns_that_say_the_same_are_left_out() -> None:
    """Train rows and settings are columns only where the loops differ in them."""
    same = {"data": {"train": {"rows": 5, "sha256": "ab"}, "eval": {"rows": 200}}}
    alike = [entry(name, 1, 20, **same) for name in "ab"]
    assert "5 rows" not in format_ranking(rank(alike), "text", 150)
    more = {"data": {"train": {"rows": 9, "sha256": "cd"}, "eval": {"rows": 200}}}
    other = [alike[0], entry("b", 1, 20, **more)]
    assert "9 rows" in format_ranking(rank(other), "text", 150)


def test_notes_name_the_base_in_words() -> None:
    """A base's identity is shortened to what people call it."""
    assert "org/big@v1" == base_text("hub:org/big@v1")
    assert "tiny" == base_text("tiny:70875b4b1f95646c")
    assert "folder 3fa9c1d2" == base_text("folder:3fa9c1d2e4b5")
    assert [] == notes_of(rank(loops()[:1]))
