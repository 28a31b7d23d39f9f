"""A threshold that the change loosened or removed is checked with the figure as it was."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_ftloop.gate.gate_changes import GateChanges
from pytest_ftloop.gate.rule_changes import rule_changes
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.report.gate_changes import (
    by_the_old,
    change_lines,
    change_markdown,
    gate_text,
    gates_word,
    loosened_advice,
    loosened_text,
)
from tests.config.test_guards import read
from tests.fakes import fake_iteration
from tests.report.markdown_rows import rows_of

FIGURES = {"eval_loss": 0.35, "pass_rate": 0.8996, "overfit_gap": float("nan")}
Gates = dict[str, Any]


def changes(before: Gates, after: Gates) -> GateChanges:
    candidate = fake_iteration(metrics=FIGURES)
    return GateChanges("main", tuple(rule_changes(read(before), read(after), candidate)))


LOOSER: dict[str, tuple[Gates, Gates, bool | None, str, str]] = {
    "fails": (
        {"eval_loss": "<= 0.2"},
        {"eval_loss": "<= 0.4"},
        False,
        "0.3500 fails the old bound",
        "holds at the new bound only, fails the old <= 0.2",
    ),
    "holds": (
        {"eval_loss": "<= 0.36"},
        {"eval_loss": "<= 0.4"},
        True,
        "0.3500 holds by the old bound",
        "",
    ),
    "rounded": (
        {"pass_rate": ">= 90%"},
        {"pass_rate": ">= 80%"},
        False,
        "89.96% fails the old bound",
        "holds at the new bound only, fails the old >= 90%",
    ),
    "lift": (
        {"lift": ">= 10 points"},
        {"lift": ">= 5 points"},
        None,
        "",
        "loosened in this change, from >= 10 points",
    ),
    "rule": (
        {"regression": {}},
        {"regression": {"min_regression": 0.5, "alpha": 0.001}},
        None,
        "",
        "loosened in this change: alpha 0.01 -> 0.001, min_regression 0.01 -> 0.5",
    ),
    "tightened": ({"eval_loss": "<= 0.4"}, {"eval_loss": "<= 0.36"}, None, "", ""),
}


@pytest.mark.parametrize("case", LOOSER)
def test_a_tick_says_what_gave_it(case: str) -> None:
    """By the old bound the figure fails, holds, or it is not known; what a tick then says."""
    before, after, held, figure, tick = LOOSER[case]
    found = changes(before, after)
    assert held is found.changes[0].held
    assert figure == by_the_old(found.changes[0].held, found.changes[0].figure)
    assert tick == loosened_text(found, next(iter(before)))


@pytest.mark.parametrize(
    ("name", "bound", "held", "said"),
    [
        ("eval_loss", "<= 0.2", False, "0.3500 fails the old bound"),
        ("eval_loss", "<= 0.4", True, "0.3500 holds by the old bound"),
        ("overfit_gap", "<= 0.4", False, "nan fails the old bound"),
        ("token_accuracy", ">= 40%", False, "a missing figure fails the old bound"),
    ],
)
def test_a_removed_gate(name: str, bound: str, held: bool, said: str) -> None:
    """What a gate that is gone would say, in the terminal and in Markdown."""
    found = changes({name: bound}, {})
    assert held is found.changes[0].held
    assert ["gate changed since main:", f"  loosened {name}: {bound} -> removed; {said}"] == (
        change_lines(found, 200)
    )
    rows = rows_of("\n".join(change_markdown(found)))
    assert ["", "gate", "before", "now", "figure"] == rows[0]
    assert ["loosened", name, "removed", said] == [*rows[2][:2], *rows[2][3:]]


def test_without_an_old_bound_there_is_no_column() -> None:
    """Where no threshold was loosened the table is as wide as ever."""
    found = changes({"regression": {}}, {"regression": {"alpha": 0.001}})
    assert ["", "gate", "before", "now"] == rows_of("\n".join(change_markdown(found)))[0]


def test_the_message_of_a_gate() -> None:
    """A gate that holds by the new bound alone; one that fails says nothing of it."""
    found = changes({"eval_loss": "<= 0.2"}, {"eval_loss": "<= 0.4"})
    (held,) = check_gates(read({"eval_loss": "<= 0.4"}).gates, FIGURES)
    (failed,) = check_gates(read({"eval_loss": "<= 0.3"}).gates, FIGURES)
    said = "eval_loss 0.3500, wanted <= 0.4; holds at the new bound only, fails the old <= 0.2"
    assert said == gate_text(held, found)
    assert "eval_loss 0.3500, wanted <= 0.3" == gate_text(failed, found)
    assert "eval_loss 0.3500, wanted <= 0.4" == gate_text(held, None)


def test_another_gate_is_not_meant() -> None:
    """A gate on a tag is another one than that on the whole set."""
    found = changes({"pass_rate[a]": ">= 0.9"}, {"pass_rate[a]": ">= 0.5"})
    assert "" == loosened_text(found, "pass_rate")
    assert "" != loosened_text(found, "pass_rate[a]")


@pytest.mark.parametrize(
    ("count", "unknown", "word"), [(1, "", "gate"), (2, "", "gates"), (0, "why", "gates")]
)
def test_one_gate_is_no_gates(count: int, unknown: str, word: str) -> None:
    """The plural is for several, or where it is not known which."""
    assert word == gates_word(count, unknown)


def test_what_a_reviewer_is_to_do() -> None:
    """To look at what was loosened: three of them by name, the others by their number."""
    tags = [f"pass_rate[{tag}]" for tag in "abcd"]
    found = changes(dict.fromkeys(tags, ">= 0.9"), {})
    (line,) = loosened_advice(found, 1_000)
    assert line.startswith("approve only if the loosened gates are intended (pass_rate[a] >= 90% ")
    assert line.endswith("; pass_rate[c] >= 90% -> removed; 1 more); else put them back")
    (line,) = loosened_advice(changes({"eval_loss": "<= 0.2"}, {"eval_loss": "<= 0.4"}), 1_000)
    said = "(eval_loss <= 0.2 -> <= 0.4); else put it back"
    assert f"approve only if the loosened gate is intended {said}" == line
    tighter = changes({"eval_loss": "<= 0.4"}, {"eval_loss": "<= 0.2"})
    assert [] == loosened_advice(tighter, 100) == loosened_advice(None, 100)
