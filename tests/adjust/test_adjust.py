"""The policy: when the loop stops, what it changes next, and that it finds the optimum."""

from __future__ import annotations

import math
from dataclasses import replace

from pytest_ftloop.adjust import Known, Limits, decide, parent_of_next
from pytest_ftloop.core.records import Cost
from tests.adjust.adjust_cases import (
    changes,
    iteration,
)
from tests.fakes import (
    fake_iteration,
    fake_metrics,
    fake_noise,
)

LIMITS = Limits(iterations=10, patience=2, metric="eval_loss", seconds_left=None)


class TestParent:
    def test_best(self):
        """The best iteration by the metric is the parent, not the last one."""
        chain = [iteration(n, loss) for n, loss in ((1, 2.0), (2, 1.0), (3, 1.5))]
        assert chain[1] is parent_of_next(chain, "eval_loss")

    def test_higher_is_better(self):
        """A rate is best where it is highest."""
        chain = [fake_iteration(n, metrics=fake_metrics(pass_rate=n / 10)) for n in (3, 9, 5)]
        assert chain[1] is parent_of_next(chain, "pass_rate")

    def test_equal_rates(self):
        """Where the pass rates are equal the eval loss decides, then the earlier one."""
        losses = (5.0, 3.0, 3.0)
        chain = [
            fake_iteration(n, metrics=fake_metrics(v, pass_rate=0)) for n, v in enumerate(losses)
        ]
        assert chain[1] is parent_of_next(chain, "pass_rate")

    def test_nan(self):
        """An iteration without a figure is never the parent of another that has one."""
        chain = [iteration(1, math.nan), iteration(2, 9.0), iteration(3, math.nan)]
        assert chain[1] is parent_of_next(chain, "eval_loss")

    def test_only_nan(self):
        """Where all figures are NaN the last iteration is the parent."""
        chain = [iteration(1, math.nan), iteration(2, math.nan)]
        assert chain[1] is parent_of_next(chain, "eval_loss")


class TestDecide:
    def test_fault(self):
        """A fault that is not tuned around stops the loop, even when the gates hold."""
        decision = decide([iteration(1, 1.0, "no-signal")], True, LIMITS)
        assert (decision.action, decision.kind, decision.next) == ("stop", "fault", ())

    def test_gates(self):
        """Gates that hold, and no promise of more: done."""
        decision = decide([iteration()], True, LIMITS)
        assert (decision.action, decision.kind) == ("stop", "gates")

    def test_gates_with_promise(self):
        """Gates that hold do not stop a loop that is still gaining."""
        decision = decide([iteration(1, 1.0, "underfit")], True, LIMITS)
        assert (decision.action, changes(decision.next)) == ("adjust", {"learning_rate": 0.003})

    def test_gates_after_a_vain_adjustment(self):
        """Gates that hold stop the loop once the last adjustment brought less than noise."""
        chain = [iteration(1, 1.0, "underfit"), iteration(2, 0.995, "underfit", rate=3e-3)]
        assert decide(chain, True, LIMITS).kind == "gates"

    def test_plateau(self):
        """No gain beyond 1% in `patience` iterations stops the loop."""
        losses = (1.0, 0.995, 1.2)
        chain = [iteration(n, loss, rate=n * 1e-3) for n, loss in enumerate(losses, start=1)]
        decision = decide(chain, False, LIMITS)
        assert (decision.action, decision.kind) == ("stop", "plateau")
        assert "iteration 2" in decision.because

    def test_plateau_by_measured_noise(self):
        """Where the seed alone moves the loss by 5%, a gain of 2% is none."""
        losses = (1.0, 1.1, 0.98)
        chain = [iteration(n, loss, rate=n * 1e-3) for n, loss in enumerate(losses, start=1)]
        known = Known(seed_noise=fake_noise(eval_loss=0.05))
        assert ("plateau", "adjust") == (
            decide(chain, False, LIMITS, known=known).kind,
            decide(chain, False, LIMITS).kind,
        )

    def test_no_plateau_while_gaining(self):
        """A gain of 2% within the patience goes on."""
        losses = (1.0, 1.1, 0.98)
        chain = [iteration(n, loss, rate=n * 1e-3) for n, loss in enumerate(losses, start=1)]
        assert decide(chain, False, LIMITS).action == "adjust"

    def test_no_plateau_before_anything_was_learned(self):
        """Diverged iterations don't use up the patience: the way down is just starting."""
        chain = [
            iteration(n, 5.0, "diverged", rate=rate)
            for n, rate in ((1, 0.1), (2, 0.03), (3, 0.01), (4, 0.003))
        ]
        assert decide(chain, False, LIMITS).action == "adjust"

    def test_no_plateau_of_a_zero_pass_rate(self):
        """Equal pass rates are progress while the eval loss still falls."""
        chain = [
            replace(iteration(n, loss, rate=n * 1e-3), metrics=fake_metrics(loss, pass_rate=0.0))
            for n, loss in ((1, 5.0), (2, 3.0), (3, 2.0))
        ]
        limits = replace(LIMITS, metric="pass_rate")
        assert decide(chain, False, limits).action == "adjust"

    def test_iterations(self):
        """The last allowed iteration stops, with what a later run can go on with."""
        decision = decide([iteration(1, 1.0, "underfit")], False, replace(LIMITS, iterations=1))
        assert (
            decision.action,
            decision.kind,
            changes(decision.next),
        ) == ("stop", "iterations", {"learning_rate": 0.003})

    def test_time(self):
        """Less time than the last iteration took stops, with what a later run can go on with."""
        last = replace(iteration(), cost=Cost(seconds=60, steps=100, tokens=1))
        decisions = [decide([last], False, replace(LIMITS, seconds_left=s)) for s in (59.0, 61.0)]
        assert [decision.kind for decision in decisions] == ["time", "adjust"]
        assert changes(decisions[0].next) == {"learning_rate": 2e-3}

    def test_exhausted(self):
        """No move left: a learning rate at its lower bound that still diverges."""
        decision = decide([iteration(1, 5.0, "diverged", rate=1e-6)], False, LIMITS)
        assert (decision.action, decision.kind, decision.next) == ("stop", "exhausted", ())
