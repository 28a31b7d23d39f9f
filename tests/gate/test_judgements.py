"""The baseline and the anchor, by the judgements in a log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.gate.judgements import (
    anchor_of,
    baseline_of,
    covered_by,
    current_judgements,
)
from tests.fakes import fake_iteration, fake_judgement, fake_metrics

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration, Judgement

LOSS = "eval_loss"


def its(*losses: float) -> tuple[Iteration, ...]:
    return tuple(fake_iteration(n, metrics=fake_metrics(loss)) for n, loss in enumerate(losses, 1))


A, B, C, D = its(1.0, 0.9, 1.1, 0.8)
ALL = (A, B, C, D)
FIRST = fake_judgement(A, kind="first")


def stands(*judgements: Judgement, iterations: tuple[Iteration, ...] = ALL) -> Iteration | None:
    return baseline_of(iterations, judgements, LOSS)


def anchors(*judgements: Judgement, iterations: tuple[Iteration, ...] = ALL) -> Iteration | None:
    return anchor_of(iterations, judgements, LOSS)


def test_nothing_judged() -> None:
    """Before any judgement the best of all iterations stands; of an empty log none does."""
    assert D is stands()
    assert stands(iterations=()) is None
    assert anchors() is None
    assert () == current_judgements(())


def test_best_by_the_loops_metric() -> None:
    """Pass rate and loss may choose otherwise."""
    one = fake_iteration(1, metrics=fake_metrics(0.5, pass_rate=0.2))
    other = fake_iteration(2, metrics=fake_metrics(0.6, pass_rate=0.3))
    assert one is baseline_of([one, other], [], LOSS)
    assert other is baseline_of([one, other], [], "pass_rate")


def test_line_has_one_current_judgement() -> None:
    """The last passing judgement is the baseline, better or not."""
    second = fake_judgement(C, FIRST, kind="unchanged")
    assert (second,) == current_judgements([FIRST, second])
    assert C is stands(FIRST, second)


@pytest.mark.parametrize("kind", ["regressed", "incomplete", "inconclusive"])
def test_rejected_judgements_change_nothing(kind: str) -> None:
    """A failing judgement takes nobody's place, whatever it names and however good it looks."""
    rejected = fake_judgement(D, FIRST, kind=kind, passed=False)
    after = fake_judgement(B, rejected, kind="unchanged", passed=False)
    assert (FIRST,) == current_judgements([FIRST, rejected, after])
    assert A is stands(FIRST, rejected, after)
    assert A is anchors(FIRST, rejected, after)


def test_judgement_over_a_rejected_one() -> None:
    """A judgement that names a rejected one as replaced is current itself."""
    rejected = fake_judgement(D, FIRST, kind="regressed")
    head = fake_judgement(B, rejected, kind="improved")
    assert {FIRST.name, head.name} == {h.name for h in current_judgements([FIRST, rejected, head])}
    assert B is anchors(FIRST, rejected, head)


def test_merged_branches() -> None:
    """Two branches have two current judgements: the better counts, until one replaces both."""
    left, right = fake_judgement(B, FIRST), fake_judgement(C, FIRST, kind="unchanged")
    assert (left, right) == current_judgements([right, FIRST, left])
    assert B is stands(FIRST, left, right) is stands(right, FIRST, left)
    after = fake_judgement(C, left, right, kind="unchanged")
    assert (after,) == current_judgements([FIRST, left, right, after])
    assert C is stands(FIRST, left, right, after)
    assert B is anchors(FIRST, left, right, after)


def test_anchor_moves_by_proven_gains_only() -> None:
    """A passing candidate that chance made look better is no anchor."""
    lucky = fake_judgement(D, FIRST, kind="unchanged")
    assert A is anchors(FIRST, lucky)
    better = fake_judgement(B, lucky, kind="improved")
    assert B is anchors(FIRST, lucky, better)
    unsure = fake_judgement(C, better, kind="inconclusive", passed=True)
    assert (C, B) == (stands(FIRST, lucky, better, unsure), anchors(FIRST, lucky, better, unsure))


@pytest.mark.parametrize(
    "anew",
    [{"kind": "accepted", "by": "hand"}, {"kind": "first"}, {"kind": "not comparable"}],
    ids=lambda fields: fields["kind"],
)
def test_starting_anew(anew: dict[str, Any]) -> None:
    """A hand's acceptance, or nothing comparable before it: what came before is no anchor."""
    better = fake_judgement(D, FIRST, kind="improved")
    accepted = fake_judgement(C, better, **anew)
    after = fake_judgement(A, accepted, kind="unchanged")
    assert C is anchors(FIRST, better, accepted)
    assert C is anchors(FIRST, better, accepted, after)


def test_missing_iterations() -> None:
    """A candidate whose record is gone is passed over: another current one, else the best."""
    gone = fake_judgement("ffffffff", FIRST)
    other = fake_judgement(C, FIRST, kind="unchanged")
    assert C is stands(FIRST, gone, other)
    assert D is stands(FIRST, gone)
    assert A is anchors(FIRST, gone)
    assert anchors(gone) is None


def test_missing_judgement() -> None:
    """A judgement whose predecessor is gone is current with what the log still has."""
    gone = fake_judgement(B, FIRST)
    after = fake_judgement(C, gone, kind="unchanged")
    current = current_judgements([FIRST, after])
    assert (FIRST, after) == tuple(sorted(current, key=lambda j: j.candidate))
    assert A is anchors(FIRST, after)


def test_broken_figures_do_not_stand() -> None:
    """Of two current judgements the one with a figure counts, never the NaN."""
    broken = fake_iteration(9, metrics=fake_metrics(math.nan))
    one, other = fake_judgement(C, FIRST), fake_judgement(broken, FIRST, kind="not comparable")
    assert C is stands(FIRST, one, other, iterations=(*ALL, broken))


class TestEnvironments:
    """A laptop trained A and C, a GPU B and D; all passed, since nothing was comparable."""

    ELSEWHERE = "environment changed (device cpu -> gpu)"

    def line(self) -> tuple[Judgement, ...]:
        other: dict[str, Any] = {"kind": "not comparable", "because": self.ELSEWHERE}
        second = fake_judgement(B, FIRST, **other)
        third = fake_judgement(C, second, kind="unchanged")
        return FIRST, second, third, fake_judgement(D, third, kind="unchanged")

    @staticmethod
    def on(*iterations: Iteration) -> Any:
        ids = {iteration.id for iteration in iterations}
        return lambda iteration: iteration.id in ids

    def test_each_has_its_own_baseline(self) -> None:
        """The latest accepted one of the environment, however many others came since."""
        line = self.line()
        assert D is baseline_of(ALL, line, LOSS)
        assert C is baseline_of(ALL, line, LOSS, self.on(A, C))
        assert D is baseline_of(ALL, line, LOSS, self.on(B, D))
        assert B is baseline_of(ALL, line, LOSS, self.on(B))
        assert A is baseline_of(ALL, line, LOSS, self.on(A))

    def test_environment_without_a_version(self) -> None:
        """Then it is the latest of all, with which nothing is comparable."""
        assert D is baseline_of(ALL, self.line(), LOSS, self.on())
        assert anchor_of(ALL, self.line(), LOSS, self.on()) is None

    def test_anchor_within_the_environment(self) -> None:
        """Another environment's version in between resets nothing, and is no anchor."""
        line = self.line()
        assert A is anchor_of(ALL, line, LOSS, self.on(A, C))
        assert B is anchor_of(ALL, line, LOSS, self.on(B, D))
        other = fake_judgement(B, FIRST, kind="not comparable", because="no example in common")
        after = fake_judgement(C, other, kind="unchanged")
        assert anchor_of(ALL, (FIRST, other, after), LOSS, self.on(A, C)) is None

    def test_merged_branches(self) -> None:
        """A version that is behind another one of the environment does not count."""
        left = fake_judgement(C, FIRST, kind="unchanged")
        right = fake_judgement(B, FIRST, kind="not comparable", because=self.ELSEWHERE)
        assert C is baseline_of(ALL, (FIRST, left, right), LOSS, self.on(A, C))
        assert B is baseline_of(ALL, (FIRST, left, right), LOSS, self.on(B))

    def test_nothing_judged(self) -> None:
        """The best of the environment."""
        assert B is baseline_of(ALL, (), LOSS, self.on(A, B, C))


def test_baselines_that_an_acceptance_covers() -> None:
    """What it was given for and what it replaced; one that names neither covers all."""
    by_hand: dict[str, Any] = {"kind": "accepted", "by": "hand"}
    old = fake_judgement(C, FIRST, **by_hand, baseline=None)
    assert {A.id} == covered_by(old)
    assert {A.id, B.id} == covered_by(fake_judgement(C, FIRST, **by_hand, baseline=B.id))
    assert {B.id} == covered_by(fake_judgement(C, **by_hand, baseline=B.id))
    assert not covered_by(fake_judgement(C, **by_hand, baseline=None))


@st.composite
def histories(draw: Any) -> tuple[tuple[Iteration, ...], list[Judgement]]:
    """Judgements of any kind, each over some before it, of iterations with distinct figures."""
    count = draw(st.integers(1, 8))
    order = draw(st.permutations(range(count)))
    iterations = its(*(1.0 + place for place in order))
    judgements: list[Judgement] = []
    for _ in range(draw(st.integers(0, 10))):
        over = draw(st.lists(st.sampled_from(judgements), unique_by=id)) if judgements else []
        kind = draw(
            st.sampled_from(["first", "improved", "unchanged", "regressed", "not comparable"])
        )
        by = draw(st.sampled_from(["gate", "gate", "hand"]))
        judgement = fake_judgement(draw(st.sampled_from(iterations)), *over, kind=kind, by=by)
        if judgement.name not in {known.name for known in judgements}:
            judgements.append(judgement)
    kept = draw(st.lists(st.sampled_from(iterations), unique_by=id))
    return tuple(kept), judgements


@given(histories(), st.randoms(use_true_random=False))
def test_order_of_reading_is_irrelevant(history: Any, chance: Any) -> None:
    """The files of a log name the same baseline and anchor in whatever order they are read."""
    iterations, judgements = history
    mixed = chance.sample(iterations, len(iterations))
    turned = chance.sample(judgements, len(judgements))
    assert current_judgements(judgements) == current_judgements(turned)
    assert stands(*judgements, iterations=iterations) is stands(*turned, iterations=mixed)
    assert anchors(*judgements, iterations=iterations) is anchors(*turned, iterations=mixed)


@given(histories())
def test_any_history_has_a_baseline(history: Any) -> None:
    """Wherever there is an iteration one stands, and every anchor was once accepted."""
    iterations, judgements = history
    assert (stands(*judgements, iterations=iterations) is None) == (not iterations)
    anchor = anchors(*judgements, iterations=iterations)
    if anchor is not None:
        accepted = [j for j in judgements if j.candidate == anchor.id and j.passed]
        assert any(j.by == "hand" or j.kind != "unchanged" for j in accepted)


@given(histories())
def test_judgement_that_replaces_all_current_ones_is_alone(history: Any) -> None:
    """What takes the place of every head is what the log stands for."""
    _, judgements = history
    last = fake_judgement(A, *current_judgements(judgements), kind="unchanged")
    assert (last,) == current_judgements([*judgements, last])
    assert A is stands(*judgements, last, iterations=(A,))
