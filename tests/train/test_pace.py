"""Whether a run is ended because it can't be of use any more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Gate
from pytest_ftloop.core.records import ended_as_hopeless
from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.train.early_end import Pace
from tests.fakes import fake_evals, fake_iteration, fake_metrics, fake_training

BEST = fake_iteration(
    evals=fake_evals([2.0, 1.0, 0.6, 0.5]), facts={"planned_steps": 100, "ended_early": ""}
)
PACE = Pace.of(BEST, [])
assert PACE is not None

losses = st.floats(0.01, 10)


def ended(*so_far: float, pace: Pace = PACE, steps: int = 100) -> str:
    """The reason after these evaluation points of a run of 100 steps with 4 points."""
    return pace.hopeless(fake_evals([*so_far, *[1.0] * (4 - len(so_far))])[: len(so_far)], steps)


class TestHopeless:
    def test_far_behind(self) -> None:
        """Flat and far above the best at half time: ended, with both losses and what was saved."""
        assert (
            "hopeless: the eval loss at step 50 of 100 was 5.000, the best iteration's "
            "1.000 at step 50; 50 steps were saved" == ended(5.0, 5.0)
        )

    def test_not_before_half(self) -> None:
        """In its first half a run is not ended, however bad."""
        assert "" == ended(9.0)

    def test_still_falling_fast(self) -> None:
        """A run that falls steeply enough to get there is left alone."""
        assert "" == ended(5.0, 3.0)

    def test_ahead(self) -> None:
        """A run that is no worse than the best was by then is left alone."""
        assert "" == ended(1.05, 1.04)

    def test_learning_rate_decays(self) -> None:
        """One that the best iteration's own fall in its second half would bring near goes on."""
        assert "" == ended(1.9, 1.9)

    def test_was_good_before(self) -> None:
        """A run that had already reached what is needed is not ended for what came after."""
        assert "" == ended(0.4, 5.0)

    def test_done(self) -> None:
        """At its last point there is nothing to save."""
        assert "" == ended(5.0, 5.0, 5.0, 5.0)

    def test_nan(self) -> None:
        """A NaN ends nothing here: that is watched elsewhere."""
        assert "" == ended(5.0, math.nan)

    @given(st.lists(losses, min_size=4, max_size=4), st.lists(losses, min_size=2, max_size=3))
    def test_never_what_beats_the_best_already(self, best: list[float], run: list[float]) -> None:
        """Whatever the curves: no run is ended that has reached what is needed."""
        pace = Pace.of(replace(BEST, evals=fake_evals(best)), [])
        assert pace is not None
        if min(run) <= min(best):
            assert "" == ended(*run, pace=pace)


class TestPace:
    def test_gate(self) -> None:
        """A gate on the eval loss that the best does not hold yet is what is needed."""
        gates = [Gate("pass_rate", ">=", 0.9), Gate("eval_loss", "<=", 0.4)]
        assert [0.5, 0.7] == [
            p.needed
            for bound in (0.4, 0.7)
            if (p := Pace.of(BEST, [gates[0], replace(gates[1], bound=bound)]))
        ]

    @pytest.mark.parametrize("evals", [(), (1.0,), (1.0, math.nan)])
    def test_nothing_to_compare_with(self, evals: tuple[float, ...]) -> None:
        """Without two finite points of the best there is no pace."""
        points = fake_evals(evals) if evals else ()
        assert Pace.of(replace(BEST, evals=points), []) is None

    def test_ended_as_hopeless(self) -> None:
        """The record says whether it was."""
        reason = ended(5.0, 5.0)
        assert [False, True] == [
            ended_as_hopeless(replace(BEST, facts={"ended_early": text}))
            for text in ("diverged: x", reason)
        ]


def test_finding() -> None:
    """The finding tells the reason and the steps that were saved."""
    run = fake_training([3.0] * 50, [5.0, 5.0], planned_steps=100, ended_early=ended(5.0, 5.0))
    metrics = fake_metrics(5.0)
    found = [f for f in diagnose(Evidence.of(run, metrics, metrics, 5.0)) if f.kind == "hopeless"]
    assert [50] == [f.evidence["saved"] for f in found]
    assert "the best iteration's 1.000 at step 50; 50 steps were saved." in found[0].message
