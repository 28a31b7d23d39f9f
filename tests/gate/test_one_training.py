"""Two evaluations of one training: without seed noise, and equal for certain where equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.noise import measured_noise
from pytest_ftloop.core.records import ExampleResult, Iteration
from pytest_ftloop.core.runs import distinct
from pytest_ftloop.gate.compare import ONE_TRAINING, Side, compare
from pytest_ftloop.gate.verdict import Verdict
from tests.fakes import fake_example, fake_measured, fake_seed_run

RULE = Regression(metrics=("eval_loss", "pass_rate", "token_accuracy"))

ADAPTER, WEIGHTS = "a" * 32, "b" * 64


@st.composite
def tables(draw: st.DrawFn, least: int = 1) -> tuple[ExampleResult, ...]:
    """A table of any losses, tokens and passes."""
    return tuple(
        fake_example(
            f"e{n}",
            draw(st.booleans()),
            loss=draw(st.floats(0.01, 50)),
            tokens=draw(st.integers(1, 9)),
            correct=0,
        )
        for n in range(draw(st.integers(least, 12)))
    )


def evaluated(rows: Sequence[ExampleResult], number: int = 1, **fields: Any) -> Iteration:
    """An evaluation of one training: its number differs, its settings do not."""
    usual = {"adapter": ADAPTER, "weights": WEIGHTS, "training": {"learning_rate": 1e-3}}
    return fake_measured(number, rows, **(usual | fields))


def verdict_of(old: Iteration, new: Iteration, groups: Any = (), rule: Any = RULE) -> Verdict:
    return compare(Side(new, (new,)), Side(old, (old,)), None, groups, rule)


@given(rows=tables(), added=tables())
def test_equal_results_are_unchanged_for_certain(
    rows: tuple[ExampleResult, ...], added: tuple[ExampleResult, ...]
) -> None:
    """Rows that were not measured again are equal, p is 1, and nothing is left open."""
    new = [replace(row, id=f"{row.id}-new", content=f"{row.content}-new") for row in added]
    for fields in ({}, {"adapter": ""}, {"adapter": "", "weights": ""}):
        found = verdict_of(evaluated(rows, **fields), evaluated([*rows, *new], 2))
        assert ("unchanged", True) == (found.kind, found.ok)
        assert ONE_TRAINING in found.notes
        assert {(0.0, 1.0, 0.0, 0.0)} == {
            (c.test.change, c.p, c.test.se, c.test.upper) for c in found.changes
        }


@given(rows=tables(least=2), worse=st.floats(1.05, 3))
def test_a_hash_alone_is_not_believed(rows: tuple[ExampleResult, ...], worse: float) -> None:
    """A record that names the baseline's adapter, but has other losses, is another training."""
    new = [replace(row, loss=row.loss * worse) for row in rows]
    found = verdict_of(evaluated(rows), evaluated(new, 2))
    assert ONE_TRAINING not in found.notes
    assert all(change.test.se > 0 for change in found.changes)


@pytest.mark.parametrize(
    "fields",
    [
        {"adapter": "c" * 32},
        {"training": {"learning_rate": 2e-3}},
        {"training": {"learning_rate": 1e-3, "seed": 43}},
        {"data": {"train": {"rows": 400, "sha256": "c" * 16}, "eval": {"rows": 9}}},
        {"model": "another"},
    ],
    ids=["adapter", "settings", "seed", "train rows", "model"],
)
def test_another_training_has_its_noise(fields: dict[str, Any]) -> None:
    """Equal losses of other settings, rows, seeds or adapters may be chance, and stay so."""
    rows = [fake_example(f"e{n}", loss=2.0 + n) for n in range(9)]
    found = verdict_of(evaluated(rows), evaluated(rows, 2, **fields))
    assert ONE_TRAINING not in found.notes
    assert all(change.test.se > 0 for change in found.changes)


def test_without_a_hash_losses_must_be_equal() -> None:
    """Where one side names no adapter, the smallest other loss makes it another training."""
    rows = [fake_example(f"e{n}", loss=2.0 + n) for n in range(9)]
    other = [*rows[:-1], replace(rows[-1], loss=rows[-1].loss + 1e-4)]
    for fields in ({}, {"adapter": ""}):
        found = verdict_of(evaluated(rows, **fields), evaluated(other, 2))
        assert bool(fields) is (ONE_TRAINING not in found.notes)


def test_what_rounding_gained_is_no_improvement() -> None:
    """One adapter measured in other batches may seem better by a hair on every example."""
    rows = [fake_example(f"e{n}", loss=2.0 + n) for n in range(9)]
    new = [replace(row, loss=row.loss * 0.9999) for row in rows]
    found = verdict_of(evaluated(rows), evaluated(new, 2))
    assert ONE_TRAINING in found.notes
    assert "unchanged" == found.kind


def test_only_shared_trainings_are_compared() -> None:
    """The seeds of one side alone say nothing of how two evaluations of one training differ."""
    rows = [fake_example(f"e{n}", loss=2.0 + n) for n in range(9)]
    old, new = evaluated(rows), evaluated(rows, 2)
    other = fake_seed_run(old, 43, [replace(r, loss=r.loss * 2) for r in rows], adapter="d" * 32)
    found = compare(Side(new, (new,)), Side(old, (old, other)), None, (), RULE)
    assert {(0.0, 1, 1)} == {
        (c.test.change, c.test.k_baseline, c.test.k_candidate) for c in found.changes
    }


@pytest.mark.parametrize("is_named", [True, False])
def test_a_training_counts_once_as_evidence_of_the_seed_noise(is_named: bool) -> None:
    """Seeds that were evaluated by two scorers are no more evidence than those evaluated once."""
    rows = [fake_example(f"e{n}", loss=2.0 + n) for n in range(9)]

    def group(number: int, seeds: int) -> tuple[Any, ...]:
        first = evaluated(rows, number, group=f"g{number}", weights="w42" if is_named else "")
        more = (
            fake_seed_run(
                first,
                seed,
                [replace(r, loss=r.loss * seed / 42) for r in rows],
                weights=f"w{seed}" if is_named else "",
            )
            for seed in range(43, 42 + seeds)
        )
        return first, *more

    once, twice = [group(1, 3)], [group(1, 3), group(2, 3), group(3, 2)]
    assert [3] == [len(found) for found in distinct(twice)]
    assert measured_noise(once)["eval_loss"] == measured_noise(twice)["eval_loss"]
