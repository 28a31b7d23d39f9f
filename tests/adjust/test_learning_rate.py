"""The learning rate: too high, too low, and the one that is usual for a width."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_ftloop.adjust.state import usual_rate
from pytest_ftloop.core.records import Adjustment
from tests.adjust.adjust_cases import (
    after,
    iteration,
    propose,
    wide,
)
from tests.fakes import (
    fake_finding,
    fake_iteration,
)


class TestTooHigh:
    def test_non_finite(self):
        """NaN: a tenth of the learning rate, and warmup."""
        chain = [iteration(1, math.nan, "non-finite", rate=1e-2)]
        assert after(*chain) == {"learning_rate": 1e-3, "warmup_steps": 0.1}

    def test_diverged(self):
        """Divergence: a third of the learning rate, a tenth where the loss tripled."""
        mild = iteration(1, 5.0, "diverged", evidence={"ratio": 1.6}, rate=3e-2)
        far = iteration(1, 5.0, "diverged", evidence={"ratio": 3.5}, rate=3e-2)
        assert [after(mild), after(far)] == [{"learning_rate": 1e-2}, {"learning_rate": 3e-3}]

    def test_oscillation(self):
        """A run that destroyed and relearned: down."""
        evidence = {"train_first": 5.0, "train_peak": 12.0}
        assert after(iteration(1, 3.0, "oscillation", evidence=evidence, rate=0.1)) == {
            "learning_rate": 1e-2
        }

    def test_out_of_bounds(self):
        """A learning rate above all bounds comes down to them."""
        assert after(iteration(1, math.nan, "non-finite", rate=100.0))["learning_rate"] == 0.1

    def test_below_all_that_diverged(self):
        """Down from the lowest that diverged, even if another has the better figure; now by 10."""
        chain = [
            iteration(1, 5.0, "diverged", rate=0.1),
            iteration(2, 5.1, "diverged", rate=0.03),
        ]
        assert after(*chain) == {"learning_rate": 0.003}

    def test_ceiling_in_the_reason(self):
        """The next reason says what the chain shows, and the step up ends in the middle."""
        chain = [
            iteration(1, 1.0, "underfit", rate=6e-3),
            iteration(2, 5.0, "diverged", rate=3e-2),
        ]
        (adjustment,) = propose(chain, "eval_loss")
        assert (adjustment.before, adjustment.after) == (6e-3, 1.3e-2)
        assert "learning_rate 0.03 diverged in 1 of 1 iteration" in adjustment.because


class TestTooLow:
    def test_not_learning(self):
        """Hardly anything learned: ten times the learning rate."""
        assert after(
            iteration(1, 5.5, "not-learning", evidence={"eval_fall": 0.01}, rate=2e-5)
        ) == {"learning_rate": 2e-4}

    @pytest.mark.parametrize(
        ("evidence", "factor"),
        [
            ({"eval_fall": 0.1, "eval_fall_last_quarter": 0.03}, 10),
            ({"eval_fall": 0.4, "eval_fall_last_quarter": 0.03}, 5),
            ({"eval_fall": 0.9, "eval_fall_last_quarter": 0.2}, 5),
            ({"eval_fall": 0.9, "eval_fall_last_quarter": 0.05}, 3),
        ],
    )
    def test_underfit(self, evidence, factor):
        """The less was learned, and the steeper the end, the larger the step up."""
        chain = [iteration(1, 3.0, "underfit", evidence=evidence)]
        assert {"learning_rate": factor * 1e-3} == after(*chain)

    def test_default_learning_rate(self):
        """An unset learning rate starts from trl's default."""
        chain = [fake_iteration(training={}, findings=[fake_finding("not-learning")])]
        expected = Adjustment("training.learning_rate", 2e-5, 2e-4, "")
        assert expected == replace(propose(chain)[0], because="")

    def test_more_epochs_at_the_ceiling(self):
        """Underfit just below a learning rate that diverged: train for longer."""
        chain = [
            iteration(1, 1.0, "underfit", rate=5e-3),
            iteration(2, 5.0, "diverged", rate=1e-2),
        ]
        assert after(*chain) == {"num_train_epochs": 6}

    def test_max_steps(self):
        """Where max_steps rules, it is what grows, up to 20 epochs' worth."""
        chain = [
            iteration(1, 1.0, "underfit", rate=5e-3, max_steps=600),
            iteration(2, 5.0, "diverged", rate=1e-2, max_steps=600),
        ]
        assert after(*chain) == {"max_steps": 1000}

    def test_high_rate(self):
        """An unfinished run at a rate that is high for LoRA is slowed down first."""
        assert after(iteration(1, 2.3, "underfit", rate=3e-2)) == {"learning_rate": 6e-3}

    def test_never_back_to_what_learned_nothing(self):
        """Between a floor and a ceiling the geometric middle is next."""
        chain = [
            iteration(1, 5.5, "not-learning", rate=2e-4),
            iteration(2, math.nan, "non-finite", rate=2e-3),
        ]
        assert after(*chain) == {"learning_rate": 6.3e-4}

    def test_rate_that_learned_nothing_by_being_too_high(self):
        """Not learning far above a rate that learns is no floor."""
        chain = [iteration(1, 5.5, "not-learning", rate=0.1), iteration(2, 1.0, rate=2e-3)]
        assert after(*chain) == {"learning_rate": 4e-3}


class TestUsualRate:
    @pytest.mark.parametrize(
        ("width", "usual"), [(0, 0.0), (128, 4.3e-3), (192, 3.1e-3), (2000, 5e-4), (4096, 2.9e-4)]
    )
    def test_by_width(self, width, usual):
        """The usual rate falls with the model's width; without one it is unknown."""
        assert usual == pytest.approx(usual_rate(width), rel=0.02)

    def test_far_below(self):
        """Far below the usual rate it is the next, at most 30 times up."""
        chain = [wide(iteration(1, 2.0, "underfit", rate=rate), 128) for rate in (4e-4, 1e-5)]
        assert [{"learning_rate": 4.3e-3}, {"learning_rate": 3e-4}] == [after(i) for i in chain]

    def test_far_above(self):
        """So it is from far above it, and for a run that diverged."""
        slow = wide(iteration(1, 2.0, "underfit", rate=4.3e-2), 128)
        broken = wide(iteration(1, 9.0, "diverged", rate=4.3e-2), 128)
        assert {"learning_rate": 4.3e-3} == after(slow) == after(broken)

    def test_what_the_curves_show_comes_first(self):
        """A rate that diverged is a ceiling, whatever is usual."""
        chain = [
            wide(iteration(1, 2.0, "underfit", rate=4e-4), 128),
            wide(iteration(2, 9.0, "diverged", rate=2e-3), 128),
        ]
        assert {"num_train_epochs": 6} == after(*chain)

    def test_what_was_worse_is_not_insisted_on(self):
        """Where the usual rate was tried and was worse, the run is made longer at its own."""
        chain = [
            wide(iteration(1, 1.0, "underfit", rate=1.6e-2), 128),
            wide(iteration(2, 1.5, rate=4.3e-3), 128),
        ]
        assert {"num_train_epochs": 6} == after(*chain)

    def test_longer_at_the_usual_rate(self):
        """At about the usual rate a run that was best at its end is made longer."""
        assert {"num_train_epochs": 6} == after(wide(iteration(1, 1.0, rate=4e-3), 128))

    def test_search_after_an_early_best(self):
        """One that was best before its end is not: the learning rate is searched."""
        assert {"learning_rate": 8e-3} == after(wide(iteration(1, 1.0, rate=4e-3), 128, best=0.5))

    @pytest.mark.parametrize(
        ("lora", "expected"),
        [
            ({"r": 8, "lora_alpha": 16, "lora_dropout": 0.5}, {"lora_dropout": 0.05}),
            ({"r": 1, "lora_alpha": 2}, {"r": 8, "lora_alpha": 16}),
        ],
    )
    def test_within_practice(self, lora, expected):
        """A dropout or rank that nobody would choose is mended first, where nothing overfits."""
        assert expected == after(iteration(1, 1.0, "underfit", lora=lora))
        assert expected != after(iteration(1, 1.0, "overfitting", lora=lora))
