"""The best of a chain: every part of the loop that chooses or names it, names the same one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.adjust import Rules, parent_of_next
from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.diagnose import Evidence
from pytest_ftloop.diagnose.chain import plateau
from pytest_ftloop.diagnose.courses import findings
from pytest_ftloop.gate.judgements import baseline_of
from tests.fakes import fake_example, fake_iteration, fake_metrics, fake_training

Figures = dict[str, float]

FIGURE = st.sampled_from([0.25, 0.5, 0.75, 1.0, math.nan, math.inf])
FIGURES = st.fixed_dictionaries({}, optional={"eval_loss": FIGURE, "pass_rate": FIGURE})
METRIC = st.sampled_from(["eval_loss", "pass_rate"])


def chain_of(*figures: Figures) -> tuple[Iteration, ...]:
    """Iterations whose one example passed."""
    rows = (fake_example("e1"),)
    return tuple(
        fake_iteration(n, examples=rows, metrics=of) for n, of in enumerate(figures, start=1)
    )


def after(chain: tuple[Iteration, ...], metric: str) -> Evidence:
    """The evidence of an iteration after the chain, whose example failed, as bad as can be."""
    of = Evidence.of(
        fake_training(), {metric: math.nan}, fake_metrics(), 5.0, history=chain, metric=metric
    )
    return replace(of, results=(fake_example("e1", passed=False),))


def best_of_diagnosis(chain: tuple[Iteration, ...], metric: str) -> int | None:
    """The number of the iteration that the finding `broken` compares with."""
    found = {finding.kind: finding.evidence for finding in findings(after(chain, metric))}
    number = found.get("broken", {}).get("iteration")
    assert number is None or isinstance(number, int)
    return number


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ([(0.5, 2.0), (0.5, 1.0), (0.5, 1.0)], 2),
        ([(0.5, math.nan), (0.5, 9.0)], 2),
        ([(0.25, 1.0), (0.5, 2.0)], 2),
        ([(math.nan, 1.0), (0.0, 9.0)], 2),
        ([(0.0, 9.0), (math.inf, 1.0)], 1),
    ],
)
def test_equal_pass_rates(figures: list[tuple[float, float]], best: int) -> None:
    """The pass rate, then the lower eval loss, then the first; without a finite figure never."""
    chain = chain_of(*({"pass_rate": rate, "eval_loss": loss} for rate, loss in figures))
    assert best == best_of(chain, "pass_rate").number
    assert best == best_of_diagnosis(chain, "pass_rate")


def test_best_by_the_figure_of_a_tag() -> None:
    """A metric of a tag has the direction of its metric."""
    chain = chain_of({"pass_rate[negation]": 0.25}, {"pass_rate[negation]": 0.5})
    assert chain[1] is best_of(chain, "pass_rate[negation]")


@settings(deadline=None)
@given(st.lists(FIGURES, min_size=1, max_size=6), METRIC)
def test_everybody_names_the_same_best(figures: list[Figures], metric: str) -> None:
    """Loop, policy, diagnosis and baseline agree, with ties and figures missing, NaN, infinite.

    Where no iteration has a figure of the metric, the diagnosis names none, and the policy goes on
    from the last.
    """
    chain = chain_of(*figures)
    best = best_of(chain, metric)
    is_known = math.isfinite(best.metrics.get(metric, math.nan))
    parent = best if is_known else chain[-1]
    assert best is baseline_of(chain, (), metric)
    assert (parent, parent) == (
        parent_of_next(chain, metric),
        Rules().propose(chain, metric).parent,
    )
    assert (best.number if is_known else None) == best_of_diagnosis(chain, metric)


@settings(deadline=None)
@given(st.lists(FIGURES, min_size=1, max_size=6), FIGURES, METRIC)
def test_plateau_is_that_of_the_best(figures: list[Figures], last: Figures, metric: str) -> None:
    """The finding `plateau` names the figure of the best before the last two iterations."""
    found = plateau(after((*chain_of(*figures), fake_iteration(9, metrics=last)), metric))
    if found:
        assert best_of(chain_of(*figures), metric).metrics[metric] == found.evidence["best"]
