"""Which runs and examples are compared: of which settings, in which environment, in common."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.core.metrics import pass_rate, token_accuracy, token_mean_loss
from pytest_ftloop.core.runs import (
    EXAMPLE_METRICS,
    Common,
    environment_changes,
    groups_of,
    in_environment,
    rows_of,
    runs_of,
    why_incomplete,
)
from tests.fakes import fake_example, fake_measured, fake_seed_run, fake_table

if TYPE_CHECKING:
    from pytest_ftloop.core.runs import Measured

HERE = {
    "device": "cpu",
    "precision": "fp32",
    "threads": "2",
    "machine": "x86_64",
    "python": "3.12.1",
    "torch": "2.13.0",
    "transformers": "5.15.0",
    "trl": "1.16.0",
    "peft": "0.21.0",
}
TABLE = fake_table([1.0, 1.2, 0.8])
ROWS = st.lists(
    st.builds(
        fake_example,
        st.uuids().map(str),
        st.booleans(),
        loss=st.floats(0, 1e6),
        tokens=st.integers(1, 50),
        correct=st.integers(0, 1),
    ),
    min_size=1,
    max_size=20,
)


def seeds(runs: tuple[Measured, ...]) -> list[int]:
    return [run.seed for run in runs]


# metrics of examples


@given(ROWS)
def test_mean_of_the_examples_is_the_metric(rows: list[Any]) -> None:
    """The figure of the whole set is the exact token mean, and the shares, of all its examples."""
    exact = {
        "eval_loss": token_mean_loss(rows),
        "pass_rate": pass_rate(rows),
        "token_accuracy": token_accuracy(rows),
    }
    for name, metric in EXAMPLE_METRICS.items():
        values = metric.values(rows)
        figure = metric.figure(math.fsum(values) / len(values))
        assert pytest.approx(exact[name], rel=1e-9, abs=1e-9) == figure


def test_rows_without_tokens_have_no_loss() -> None:
    """Nothing is divided by zero: the loss of no token is not a number."""
    rows = fake_table([0.0, 0.0], tokens=0)
    assert all(map(math.isnan, EXAMPLE_METRICS["eval_loss"].values(rows)))
    assert [] == EXAMPLE_METRICS["eval_loss"].values([])


# runs_of, groups_of


def test_runs_of_an_iteration_are_those_of_its_group() -> None:
    """Other seeds and other iterations of the same settings are its runs, others are not."""
    one, other = fake_measured(1, TABLE), fake_measured(2, TABLE)
    reseeded = fake_measured(3, TABLE, seed=43, group=one.group)
    runs = runs_of(one, [one, other, reseeded], [fake_seed_run(one, 44), fake_seed_run(other, 45)])
    assert [42, 43, 44] == seeds(runs)
    assert one is runs[0]


def test_seed_runs_of_an_old_record_are_found_by_its_id() -> None:
    """A record of schema 1 has no group; two of them have nothing in common by that."""
    one, other = fake_measured(1, TABLE, group=""), fake_measured(2, TABLE, seed=7, group="")
    runs = runs_of(one, [one, other], [fake_seed_run(one, 43), fake_seed_run(other, 44)])
    assert [42, 43] == seeds(runs)
    assert () == groups_of([one, other], [])


def test_a_seed_counts_once_in_each_environment() -> None:
    """The same seed trained twice is one run: the iteration's own first, then the first logged."""
    one = fake_measured(1, TABLE, environment=HERE)
    again = fake_seed_run(one, 42, fake_table([9.0] * 3))
    elsewhere = fake_seed_run(one, 42, environment=HERE | {"device": "cuda"})
    first, second = fake_seed_run(one, 43), fake_seed_run(one, 43, fake_table([9.0] * 3))
    runs = runs_of(one, [one], [again, first, second, elsewhere])
    assert [one, first, elsewhere] == list(runs)
    assert [one, first] == list(in_environment(runs, HERE))


def test_groups_have_two_seeds_in_one_environment() -> None:
    """A run of other settings, a lone run and a run elsewhere are in no group."""
    one, other = fake_measured(1, TABLE), fake_measured(2, TABLE)
    more = fake_seed_run(one, 43)
    elsewhere = fake_seed_run(one, 44, environment={"device": "cuda"})
    twice = fake_seed_run(one, 42)
    assert [(one, more)] == list(groups_of([one, other], [more, elsewhere, twice]))


@given(st.permutations(range(8)), st.permutations(range(8)), st.randoms(use_true_random=False))
def test_order_of_the_log_is_irrelevant(
    left: list[int], right: list[int], mixed: random.Random
) -> None:
    """Whatever order the log is read in, the same runs and groups are found."""
    logged = [fake_measured(n, TABLE, group=f"g{n % 3}", seed=n) for n in range(8)]
    more = [fake_seed_run(logged[n % 3], 50 + n) for n in range(8)]
    for order in (left, right):
        turned = [logged[n] for n in order]
        seeded = list(more)
        mixed.shuffle(seeded)
        runs = runs_of(logged[0], turned, seeded)
        assert logged[0] is runs[0]
        assert sorted(seeds(runs_of(logged[0], logged, more))) == sorted(seeds(runs))
        wanted = {frozenset(seeds(group)) for group in groups_of(logged, more)}
        assert wanted == {frozenset(seeds(group)) for group in groups_of(turned, seeded)}


# environment


@pytest.mark.parametrize(
    "change",
    [{"threads": "8"}, {"machine": "arm64"}, {"python": "3.13.0"}, {"torch": "2.13.0+cpu"}, {}],
    ids=str,
)
def test_same_environment(change: dict[str, str]) -> None:
    """Threads, processor, Python and a build's label round otherwise; they shift nothing."""
    run = fake_measured(1, TABLE, environment=HERE | change)
    assert (run,) == in_environment([run], HERE)
    assert () == environment_changes(HERE, HERE | change)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("device", "NVIDIA H200"),
        ("precision", "bf16"),
        ("torch", "2.13.1"),
        ("transformers", "5.16.0"),
        ("trl", "1.17.0"),
        ("peft", "0.22.0"),
    ],
)
def test_other_environment(key: str, value: str) -> None:
    """Hardware, precision and the versions of what trains can shift a figure one way."""
    run = fake_measured(1, TABLE, environment=HERE | {key: value})
    assert () == in_environment([run], HERE)
    assert (f"{key} {HERE[key]} -> {value}",) == environment_changes(HERE, run.environment)


def test_unknown_part_of_an_environment() -> None:
    """What a record does not say is shown as unknown."""
    without = {key: value for key, value in HERE.items() if key != "peft"}
    assert ("peft ? -> 0.21.0",) == environment_changes(without, HERE)


# why_incomplete


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (TABLE, ""),
        (TABLE[:2], "its table has 2 of 3 examples"),
        ((), "its table has 0 of 3 examples"),
        (
            (TABLE[0], replace(TABLE[1], loss=math.nan), replace(TABLE[2], loss=math.inf)),
            "the loss of 2 of 3 examples is not finite (e001)",
        ),
        (
            (*TABLE[:2], replace(TABLE[2], loss=1e300)),
            "the loss of 1 of 3 examples is not finite (e002)",
        ),
        ((*TABLE[:2], replace(TABLE[2], passed=None)), "1 of 3 examples were not scored (e002)"),
    ],
)
def test_incomplete_runs(rows: Any, why: str) -> None:
    """Fewer rows than the eval set has, a loss that is none, an unscored example."""
    data = {"eval": {"rows": 3, "sha256": "e"}}
    assert why == why_incomplete(fake_measured(1, rows, data=data))


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_missing_figure(value: float | None) -> None:
    """A figure that a gate asks for and a run lacks is missing of it, as a NaN is."""
    run = fake_measured(1, TABLE)
    figures = {name: figure for name, figure in run.metrics.items() if name != "overfit_gap"}
    figures |= {} if value is None else {"overfit_gap": value}
    run = replace(run, metrics=figures)
    assert "" == why_incomplete(run, ["eval_loss"])
    assert "it has no figure overfit_gap" == why_incomplete(run, ["eval_loss", "overfit_gap"])


# Common


def test_examples_are_paired_by_id_and_content() -> None:
    """Of two sets: the equal ones, those whose content changed, and those of one side alone."""
    old = fake_measured(1, fake_table([1.0] * 4))
    rows = fake_table([1.0] * 5)[1:]
    new = fake_measured(2, (replace(rows[0], content="another"), *reversed(rows[1:])))
    same = ("e002", "e003")
    assert Common(same, ("e001",), ("e000",), ("e004",), same) == Common.of([old], [new])


def test_an_example_must_be_in_every_run() -> None:
    """One that a seed's table lacks, or has with other content, is not in common."""
    one = fake_measured(1, TABLE)
    lacking = fake_seed_run(one, 43, TABLE[1:])
    other = fake_seed_run(one, 44, (*TABLE[:2], replace(TABLE[2], content="another")))
    wanted = Common(("e001",), ("e000", "e002"), (), (), ("e001",))
    assert wanted == Common.of([one], [one, lacking, other])


def test_examples_whose_scoring_reads_other_columns() -> None:
    """Of these the model sees the same, in each run: their losses are comparable, all of the set.

    Not of one whose text differs, though its columns for the scorer are equal.
    """
    one = fake_measured(1, [replace(row, content=f"{row.content}+a") for row in TABLE])
    rows = [replace(row, content=f"{row.content}+b") for row in TABLE]
    other = fake_measured(2, [replace(rows[0], content=TABLE[0].content), *rows[1:]])
    ids = tuple(row.id for row in TABLE)
    assert Common((), ids, (), (), ids) == (found := Common.of([one], [other]))
    assert found.is_whole
    swapped = fake_measured(3, [replace(one.examples[0], content="another+a"), *rows[1:]])
    found = Common.of([one], [swapped])
    assert (ids[1:], False) == (found.measured, found.is_whole)


def test_rows_in_the_order_asked_for() -> None:
    """Rows come by id, whatever order the table has; a missing one is an error."""
    run = fake_measured(1, tuple(reversed(TABLE)))
    assert [TABLE[1], TABLE[0]] == rows_of(run, ["e001", "e000"])
    with pytest.raises(KeyError):
        rows_of(run, ["e999"])
