"""Several loops ranked on one eval set, by the gate's paired test."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.ranking import Entry, rank
from tests.fakes import fake_measured, fake_seed_run, fake_table
from tests.gate.compare_cases import LOSS_ONLY, losses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.ranking import Ranking

N = 200


def entry(name: str, best: Iteration, *, seeds: Sequence[Any] = (), **fields: Any) -> Entry:
    return Entry(name, best, (best,), tuple(seeds), **fields)


def by_loss(name: str, number: int, mean: float, *, seeds: int = 0, **fields: Any) -> Entry:
    """A loop whose losses have this mean; with seed runs that differ by a little noise."""
    best = fake_measured(number, fake_table(losses(mean, number)), **fields)
    runs = [
        fake_seed_run(best, 42 + seed, fake_table(losses(mean, 100 * number + seed)))
        for seed in range(1, seeds + 1)
    ]
    return entry(name, best, seeds=runs)


def by_rate(name: str, number: int, failing: int, **fields: Any) -> Entry:
    """A loop of which the first so many examples fail."""
    rows = fake_table(losses(1.0, number), range(failing))
    return entry(name, fake_measured(number, rows, **fields), metric="pass_rate")


def places(ranking: Ranking) -> dict[str, str]:
    return {standing.entry.loop: standing.place for standing in ranking.standings}


def test_the_best_is_first_and_a_far_one_is_behind() -> None:
    """Loops are ordered by their figure; a clear lead is proven, a small one is not."""
    (found,) = rank([by_rate("c", 3, 90), by_rate("a", 1, 20), by_rate("b", 2, 21)])
    assert [("a", "leads"), ("b", "tied"), ("c", "behind")] == list(places(found).items())
    assert "pass_rate" == found.metric
    assert found.standings[2].p <= found.alpha < found.standings[1].p
    (lost,) = [s.change.test.change for s in found.standings if s.place == "behind" and s.change]
    assert pytest.approx(0.35) == lost


def test_the_lead_is_the_gates_own_test() -> None:
    """Change and standard error are those of the regression gate on the same runs."""
    one, other = by_loss("a", 1, 1.0, seeds=3), by_loss("b", 2, 1.1, seeds=3)
    (found,) = rank([one, other])
    gate = compare(
        Side(other.best, (other.best, *other.seed_runs)),
        Side(one.best, (one.best, *one.seed_runs)),
        None,
        [(one.best, *one.seed_runs), (other.best, *other.seed_runs)],
        LOSS_ONLY,
    ).changes[0]
    change = found.standings[1].change
    assert change is not None
    assert (gate.test.change, gate.test.se) == (change.test.change, change.test.se)
    assert pytest.approx(2 * gate.test.p_worse) == found.standings[1].p


def test_the_more_loops_the_more_a_lead_must_show() -> None:
    """p, and what would be detected, are corrected for all pairs in both directions."""
    three = [by_rate(name, number, 20 * number) for number, name in enumerate("abc", 1)]
    two, all_ = rank(three[:2])[0].standings[1], rank(three)[0].standings[1]
    assert two.change is not None
    assert all_.change is not None
    assert "b" == two.entry.loop == all_.entry.loop
    assert pytest.approx(min(1.0, 3 * two.p)) == all_.p
    assert two.change.test.detectable < all_.change.test.detectable


def test_no_lead_by_chance() -> None:
    """Of five models that are equally good, one draw in 50 has a pair that differs by p < 1%."""
    chance = random.Random(32)  # the first such draw
    hard = [random.Random(number).random() * 0.6 for number in range(N)]

    def drawn(name: str, number: int) -> Entry:
        failing = [place for place in range(N) if chance.random() < hard[place]]
        best = fake_measured(number, fake_table([1.0] * N, failing))
        return entry(name, best, metric="pass_rate")

    (found,) = rank([drawn(name, number) for number, name in enumerate("abcde", start=1)])
    assert min(s.change.test.p_worse for s in found.standings if s.change) <= 0.01
    assert "behind" not in places(found).values()


def test_other_eval_sets_are_apart() -> None:
    """Only loops that were measured on the same examples are ranked together."""
    rows = tuple(replace(row, content=f"other-{row.id}") for row in fake_table(losses(2.0)))
    other = entry("other", fake_measured(9, rows))
    shared, alone = rank([by_loss("a", 1, 1.0), other, by_loss("b", 2, 1.5)])
    assert {"a": "leads", "b": "behind"} == places(shared)
    assert {"other": "leads"} == places(alone)


def test_equal_examples_under_other_ids_are_one_eval_set() -> None:
    """Ids are labels: the content decides."""
    rows = fake_table(losses(1.5))
    named = tuple(replace(row, id=f"x{row.id}", content=row.content) for row in rows)
    first = fake_measured(1, tuple(replace(r, content=f"c{n}") for n, r in enumerate(rows)))
    other = fake_measured(2, tuple(replace(r, content=f"c{n}") for n, r in enumerate(named)))
    (found,) = rank([entry("a", first), entry("b", other)])
    assert {"a": "leads", "b": "tied"} == places(found)


def test_another_tokenizer_is_ranked_by_the_pass_rate() -> None:
    """Losses per token of two tokenizers are not compared, whatever the loops are chosen by."""
    rows = fake_table(losses(0.2), range(80))
    other = entry("wide", fake_measured(2, [replace(row, tokens=9) for row in rows]))
    (found,) = rank([by_loss("a", 1, 1.0), other])
    assert ("pass_rate", {"a": "leads", "wide": "behind"}) == (found.metric, places(found))


def test_what_all_are_chosen_by_ranks_them() -> None:
    """Loops of one metric are ranked by it; of several by the pass rate."""
    loops = [by_loss("a", 1, 1.0), by_loss("b", 2, 1.5)]
    assert "eval_loss" == rank(loops)[0].metric
    assert "pass_rate" == rank([loops[0], replace(loops[1], metric="pass_rate")])[0].metric


def test_another_environment_is_apart() -> None:
    """Hardware and versions shift figures: loops of two environments are not compared."""
    gpu = {"environment": {"device": "cuda", "torch": "2.13.0"}}
    loops = [by_rate("a", 1, 90), by_rate("gpu", 2, 10, **gpu), by_rate("b", 3, 20)]
    here, elsewhere = rank(loops)
    assert {"b": "leads", "a": "behind"} == places(here)
    assert {"gpu": "leads"} == places(elsewhere)
    assert here.eval_set == elsewhere.eval_set


def test_what_cannot_be_compared_says_why() -> None:
    """Another scorer leaves a loop in the table, with the reason; where losses can, they rank."""
    scored = {"scoring": {"scorer": "contains"}}
    loops = [by_rate("a", 1, 20), by_rate("b", 2, 60, **scored)]
    assert "eval_loss" == rank(loops)[0].metric
    rows = [replace(row, tokens=9) for row in loops[1].best.examples]
    other = entry("b", fake_measured(2, rows, **scored), metric="pass_rate")
    (ranked,) = rank([loops[0], other])
    assert {"a": "leads", "b": "not compared"} == places(ranked)
    assert "scored in another way" in ranked.standings[1].why
    assert "baseline" not in ranked.standings[1].why


def test_noise_of_one_model_is_not_taken_for_that_of_another() -> None:
    """Seed runs of one loop alone do not calibrate the comparison; those of both do."""
    pair = [by_loss("a", 1, 1.0, seeds=4), by_loss("b", 2, 1.02)]
    assert not rank(pair)[0].calibrated
    assert rank([pair[0], by_loss("b", 2, 1.02, seeds=4)])[0].calibrated


def test_a_loop_without_the_figure_is_last() -> None:
    """A diverged loop, whose losses are not finite, is no reason to rank none."""
    rows = fake_table([float("nan")] * N)
    broken = entry("broken", fake_measured(3, rows, metrics={"pass_rate": float("nan")}))
    (found,) = rank([broken, by_loss("a", 1, 1.0), by_loss("b", 2, 1.5)])
    assert ["a", "b", "broken"] == list(places(found))
    assert "behind" == places(found)["b"]
    assert "not compared" == places(found)["broken"]
    assert "not finite" in found.standings[2].why


def test_cost_is_that_of_all_trainings() -> None:
    """A loop costs all that its log trained, seeds included."""
    assert 40.0 == by_loss("a", 1, 1.0, seeds=3).cost.seconds


def test_no_loop_gives_no_ranking() -> None:
    """Nothing to rank is no error."""
    assert () == rank([])
