"""`ftloop log` in four formats."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.report.escape import columns_of
from pytest_ftloop.report.table import (
    FIELDS,
    Table,
    as_csv,
    as_json,
    as_markdown,
    as_text,
    format_tables,
    log_rows,
)
from tests.fakes import fake_iteration, fake_metrics
from tests.report.fakes_report import fake_chain
from tests.report.hostile import hostile_results
from tests.report.markdown_rows import rows_of

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


def test_log_rows() -> None:
    """One row an iteration, figures as numbers."""
    third = log_rows(fake_chain())[2]
    assert {
        "loop": "sentiment",
        "number": 3,
        "id": "ab12cd33",
        "parent": "ab12cd32",
        "change": "num_train_epochs 1 -> 3",
        "train_loss": 1.1,
        "eval_loss": 1.29,
        "pass_rate": 0.75,
        "failing": 5,
        "findings": "overfitting",
        "decision": "adjust",
        "seconds": 12.5,
    } == {key: value for key, value in third.items() if key != "overfit_gap"}
    assert tuple(third) == FIELDS


def test_rows_lack_what_the_record_lacks() -> None:
    """A figure that was not recorded is None."""
    assert log_rows([fake_iteration(metrics={"eval_loss": 1.0})])[0]["pass_rate"] is None


def test_as_text() -> None:
    """The loop is named only where there are several."""
    lines = as_text(log_rows(fake_chain()), 160).splitlines()
    assert "2  ab12cd32  ab12cd31  learning_rate 2e-4 -> 1e-3" == lines[3][:49]
    other = fake_iteration(1, loop="summaries")
    assert "summaries" in as_text(log_rows([*fake_chain(), other]))


def test_as_markdown() -> None:
    """A table that reads well raw as well."""
    table = as_markdown(log_rows(fake_chain()[:2]))
    rows = rows_of(table)
    assert ["number", "id", "parent", "change"] == rows[0][:4]
    assert [True, False, False, False, True] == [rule.endswith("-:") for rule in rows[1][:5]]
    wanted = ["2", "ab12cd32", "ab12cd31", "learning_rate 2e-4 -> 1e-3", "1.5000", "1.6000"]
    assert wanted == rows[3][:6]
    assert 1 == len({len(line) for line in table.splitlines()})


def test_as_json_is_valid_json() -> None:
    """NaN is null: JSON has no other word for it."""
    rows = log_rows([fake_iteration(metrics=fake_metrics(math.nan, 1.0))])
    assert (None, 1.0) == (
        json.loads(as_json(rows))[0]["eval_loss"],
        json.loads(as_json(rows))[0]["train_loss"],
    )


def test_as_csv_reads_back() -> None:
    """The header, and a row an iteration; NaN is said."""
    rows = log_rows([fake_iteration(metrics=fake_metrics(math.nan, 1.0))])
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [("nan", "1.0", "")] == [(r["eval_loss"], r["train_loss"], r["parent"]) for r in read]


def test_csv_holds_no_formula() -> None:
    """Text that a spreadsheet would run is defused; negative numbers stay numbers."""
    iteration = replace(fake_iteration(metrics=fake_metrics(1.0, 1.5)), loop="=cmd()")
    row = next(csv.DictReader(io.StringIO(as_csv(log_rows([iteration])))))
    assert ("'=cmd()", "-0.5") == (row["loop"], row["overfit_gap"])


def test_no_iterations() -> None:
    """An empty log is said to be empty, and is an empty list or table for programs."""
    empty = [Table("topic", "improvement_log/topic", [])]
    said = "topic: no iterations in improvement_log/topic yet; pytest --ftloop trains the first\n"
    assert said == format_tables(empty, "text")
    assert said == format_tables(empty, "markdown")
    assert "[]\n" == format_tables(empty, "json")
    assert ",".join(FIELDS) + "\n" == format_tables(empty, "csv")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile_results(), st.integers(20, 140))
def test_hostile_text(result: LoopResult, width: int) -> None:
    """Text fits and is printable, Markdown keeps its cells, JSON and CSV read back."""
    rows = log_rows(result.chain)
    text, markdown = as_text(rows, width).split("\n"), as_markdown(rows).split("\n")
    assert all(line.isprintable() and columns_of(line) <= width for line in text)
    assert all(line.isprintable() for line in markdown)
    assert 1 == len({line.count("|") for line in markdown})
    assert len(rows) == len(json.loads(as_json(rows)))
    assert len(rows) == len(list(csv.DictReader(io.StringIO(as_csv(rows), newline=""))))
