"""Examples are paired by their content: ids are labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.runs import named_alike, with_names_of
from pytest_ftloop.gate.difference import difference
from tests.fakes import fake_example, fake_measured, fake_table
from tests.gate.compare_cases import N, calibrated, judged, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_ftloop.core.records import ExampleResult, Iteration

    Rows = Sequence[ExampleResult]
    Rename = Callable[[int], str]

RENAMES: dict[str, Rename] = {
    "prefix": lambda n: f"q{n:03d}",
    "backwards": lambda n: f"e{N - 1 - n:03d}",
    "shifted": lambda n: f"e{(n + 1) % N:03d}",
    "halves": lambda n: f"e{n:03d}" if n < N // 2 else f"other{n}",
    "hashes": lambda n: f"{n * 7919:012x}",
}


def renamed(run: Iteration, name: Rename) -> Iteration:
    rows = [replace(row, id=name(number)) for number, row in enumerate(run.examples)]
    data = {**run.data, "eval": {**run.data.get("eval", {}), "sha256": "renamed"}}
    return replace(run, examples=tuple(sorted(rows, key=lambda row: row.id)), data=data)


@pytest.mark.parametrize("how", RENAMES)
@pytest.mark.parametrize(("mean", "kind"), [(1.25, "regressed"), (1.0, "unchanged")])
def test_renamed_ids_change_no_figure(how: str, mean: float, kind: str) -> None:
    """The same texts under other ids compare in full, with the same p-values."""
    old, new = run_of(1), run_of(2, mean, range(50) if mean > 1 else ())
    plain = judged(old, new, seed_runs=calibrated(old))
    other = judged(old, renamed(new, RENAMES[how]), seed_runs=calibrated(old))
    assert kind == plain.kind == other.kind
    assert (N, N) == (other.common, other.total)
    assert plain.changes == other.changes
    assert plain.notes == other.notes
    assert len(plain.broken) == len(other.broken)


def test_broken_examples_are_shown_with_both_outputs() -> None:
    """A flip of a renamed example is found in both tables, under its id of now."""
    old = run_of(1)
    new = renamed(run_of(2, 1.25, range(50)), RENAMES["prefix"])
    verdict = judged(old, new)
    found = difference(old, new, verdict, {})
    assert [f"q{n:03d}" for n in range(50)] == [flip.id for flip in found.broken]


def test_seeds_of_older_names_measure_the_noise() -> None:
    """Seed runs whose examples had other ids count for the seed noise as before."""
    old, new = run_of(1), run_of(2, 1.02)
    seeds = calibrated(old)
    plain = judged(old, new, seed_runs=seeds)
    other = judged(old, renamed(new, RENAMES["shifted"]), seed_runs=seeds)
    assert plain.changes[0].test.nu == other.changes[0].test.nu > 2


def rows_of(*pairs: tuple[str, str]) -> tuple[ExampleResult, ...]:
    return tuple(replace(fake_example(id_), content=content) for id_, content in pairs)


@pytest.mark.parametrize(
    ("rows", "names", "wanted"),
    [
        ([("a", "1")], [("a", "1")], ["a"]),
        ([("a", "1")], [("b", "1")], ["b"]),
        # Two ids exchanged.
        ([("a", "1"), ("b", "2")], [("a", "2"), ("b", "1")], ["b", "a"]),
        # A text that is gone, and whose id another text has now.
        ([("a", "1"), ("b", "2")], [("a", "2")], ["a'", "a"]),
        # An edited text keeps its id, so that it is told as changed.
        ([("a", "1")], [("a", "2")], ["a"]),
        # One text twice: an equal id first, then in order.
        ([("a", "1"), ("b", "1")], [("b", "1"), ("c", "1")], ["c", "b"]),
        ([("a", "1"), ("b", "1")], [("x", "1")], ["x", "b"]),
        # What scores a row is another, and what the model sees of it is not.
        ([("a", "1+x"), ("b", "2")], [("c", "1+y"), ("d", "2+z")], ["c", "d"]),
        # Where one text is asked twice, the row that is scored alike comes first, then equal ids.
        ([("a", "1+x"), ("b", "1+y")], [("c", "1+y"), ("d", "1")], ["d", "c"]),
        ([("a", "1+x"), ("b", "1+y")], [("b", "1"), ("a", "1+z")], ["a", "b"]),
        ([("a", "1+x")], [("b", "2+x")], ["a"]),
        # The mark is taken too.
        ([("a", "1"), ("a'", "3"), ("b", "2")], [("a", "2"), ("a'", "3")], ["a''", "a'", "a"]),
    ],
)
def test_names(
    rows: list[tuple[str, str]], names: list[tuple[str, str]], wanted: list[str]
) -> None:
    """Each row gets the id that its content has there; no two rows get the same."""
    assert wanted == [row.id for row in named_alike(rows_of(*rows), rows_of(*names))]


PAIRS = st.lists(
    st.tuples(st.text("ab'", min_size=1, max_size=3), st.sampled_from("123")),
    max_size=6,
    unique_by=lambda pair: pair[0],
)


@given(PAIRS, PAIRS)
def test_any_names(rows: list[tuple[str, str]], names: list[tuple[str, str]]) -> None:
    """No row is lost, no id doubled, and as many contents meet as both sides have."""
    named = named_alike(rows_of(*rows), rows_of(*names))
    assert [content for _, content in rows] == [row.content for row in named]
    assert len({row.id for row in named}) == len(rows)
    met = {(row.id, row.content) for row in named} & set(names)
    for content in "123":
        counts = [sum(c == content for _, c in side) for side in (rows, names)]
        assert min(counts) == sum(c == content for _, c in met)


def test_a_run_of_the_same_names_is_the_run_itself() -> None:
    """Nothing is copied where there is nothing to rename."""
    run = fake_measured(1, fake_table([1.0, 2.0]))
    assert with_names_of(run, fake_table([3.0, 4.0])) is run
