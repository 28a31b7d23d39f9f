"""What the tests of `compare` share."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.gate.compare import Side, compare
from tests.fakes import fake_measured, fake_seed_run, fake_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import ExampleResult, Iteration, SeedRun
    from pytest_ftloop.gate.verdict import Verdict

N = 200


RULE = Regression()


LOSS_ONLY = Regression(metrics=("eval_loss",))


ELSEWHERE = {"device": "cuda", "torch": "2.13.0"}


def losses(mean: float = 1.0, noise: int = 0, n: int = N) -> list[float]:
    """Losses whose examples differ widely, and by `noise` in how they differ between runs."""
    shared, own = random.Random(0), random.Random(noise)
    return [mean * (shared.uniform(0.5, 1.5) + 0.02 * own.gauss(0, 1)) for _ in range(n)]


def run_of(number: int, mean: float = 1.0, failing: Sequence[int] = (), **fields: Any) -> Iteration:
    return fake_measured(number, fake_table(losses(mean, number), failing), **fields)


def judged(
    old: Iteration,
    new: Iteration,
    rule: Regression = RULE,
    *,
    seed_runs: Sequence[SeedRun] = (),
    others: Sequence[Iteration] = (),
    anchor: Iteration | None = None,
) -> Verdict:
    """The verdict as `Comparison` asks for it."""
    iterations = [old, new, *others]

    def side(iteration: Iteration) -> Side:
        return Side(iteration, runs_of(iteration, iterations, seed_runs))

    groups = groups_of(iterations, seed_runs)
    return compare(side(new), side(old), side(anchor) if anchor else None, groups, rule)


def calibrated(iteration: Iteration, mean: float = 1.0, seeds: int = 5) -> list[SeedRun]:
    """Runs of the same settings with other seeds, alike but for a little noise."""
    rows = [fake_table(losses(mean, 100 + seed)) for seed in range(1, seeds)]
    return [fake_seed_run(iteration, 42 + seed, row) for seed, row in enumerate(rows, start=1)]


TRAININGS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"training": {"learning_rate": 1e-4, "seed": 7}}, True),
    ({"training": {"learning_rate": 1e-4, "logging_steps": 5}}, True),
    ({"training": {"learning_rate": 9e-4}}, False),
    ({"lora": {"r": 4}}, False),
    ({"model": "tiny:another"}, False),
    ({"train": "b" * 16}, False),
]
"""What differs in training, and whether a verdict with nothing to compare passes then."""


def trained_as(old: Iteration, number: int, *, train: str = "", **changed: Any) -> dict[str, Any]:
    """The fields of an iteration that is trained as `old` was, but for what is named."""
    rows = dict(old.data["train"]) | ({"sha256": train} if train else {})
    data = {"train": rows, "eval": {"rows": N, "sha256": f"{number:016x}"}}
    same = {"training": old.settings.training, "lora": old.settings.lora, "model": old.model}
    return {**same, "data": data, **changed}


def kinds(verdict: Verdict) -> dict[str, str]:
    return {change.metric: change.kind for change in verdict.changes}


# figures of whole runs


def with_figure(iteration: Iteration, **figures: float) -> Iteration:
    return replace(iteration, metrics=dict(iteration.metrics) | figures)


# whatever the log holds

FIGURES = st.tuples(st.floats(0, 2.0**100, width=32), st.booleans())


PLACES = st.lists(
    st.tuples(
        st.sampled_from([4] * 30 + [0, 50]),
        st.sampled_from(["same"] * 8 + ["other"]),
        st.sets(st.sampled_from(["x", "y"])),
    ),
    min_size=1,
    max_size=8,
)


@st.composite
def measured(draw: Any, number: int) -> tuple[Iteration, list[SeedRun]]:
    """An iteration and its seeds, of any finite figures."""
    places = draw(PLACES)

    def rows() -> list[ExampleResult]:
        figures = draw(st.lists(FIGURES, min_size=len(places), max_size=len(places)))
        return [
            replace(
                fake_table([1.0], [] if passed else [0], start=place)[0],
                loss=loss,
                tokens=tokens,
                correct=min(tokens, 1),
                content=content,
                tags=tuple(sorted(tags)),
            )
            for place, ((loss, passed), (tokens, content, tags)) in enumerate(
                zip(figures, places, strict=True)
            )
        ]

    iteration = fake_measured(number, rows(), seed=number, group=draw(st.sampled_from("abc")))
    gap = st.sampled_from([0.1, -1.0, 0.0, 1e30, -1e-30] * 3 + [math.nan])
    figures = {name: draw(gap) for name in ("overfit_gap", "overfit_gap[x]")}
    iteration = with_figure(iteration, **figures)
    runs = [fake_seed_run(iteration, 50 + n, rows()) for n in range(draw(st.integers(0, 2)))]
    return iteration, runs
