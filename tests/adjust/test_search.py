"""Which settings come next: what the log remembers, the search, overfitting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_ftloop.adjust import Known, Rules, moves
from pytest_ftloop.adjust.state import State, canonical
from tests.adjust.adjust_cases import (
    after,
    changes,
    iteration,
    propose,
)
from tests.fakes import (
    fake_evals,
    fake_metrics,
)


class TestMemory:
    def test_diverged_elsewhere(self):
        """A learning rate that diverged in another chain of the log is a ceiling, and said."""
        chain = [iteration(1, 1.0, "underfit", rate=1e-3)]
        known = Known(
            tuple(iteration(n, 5.0, "diverged", rate=rate) for n, rate in ((7, 2e-3), (8, 4e-3)))
        )
        (made,) = Rules().propose(chain, "eval_loss", known).adjustments
        assert "training.num_train_epochs" == made.setting  # within 3 times of the ceiling
        searched = Rules().propose([iteration(1, 1.0, rate=1e-3)], "eval_loss", known).adjustments
        assert searched[0].after < 2e-3
        assert "learning_rate 0.002 or above diverged in 2 of 2 iterations" in searched[0].because

    def test_what_works_here_is_no_ceiling(self):
        """A rate at which this chain learns is not ruled out by a divergence elsewhere."""
        known = Known((iteration(7, 5.0, "diverged", rate=5e-4),))
        made = Rules().propose([iteration(1, 1.0, rate=1e-3)], "eval_loss", known).adjustments
        assert 2e-3 == made[0].after

    def test_another_setting_was_to_blame(self):
        """Where the same rate works, a rate that diverged with another rank is no ceiling."""
        wide = {"r": 64, "lora_alpha": 128}
        chain = [iteration(1, 1.0, "underfit"), iteration(2, 9.0, "diverged", lora=wide)]
        assert after(*chain) == {"learning_rate": 3e-3}

    def test_pattern_of_what_learned_nothing(self):
        """The reason says up to which rate nothing was learned, and how often."""
        chain = [
            iteration(1, 5.0, "not-learning", rate=1e-5),
            iteration(2, 4.9, "not-learning", rate=2e-5),
        ]
        (made,) = propose(chain)
        assert "learning_rate 2e-05 or below learned nothing in 2 of 2 iterations" in made.because

    def test_pattern_counts_what_it_says(self):
        """Higher rates among the iterations counted are said to be counted."""
        known = Known(
            (iteration(7, 9.0, "diverged", rate=1e-2), iteration(8, 0.9, rate=2e-2)),
        )
        (made,) = Rules().propose([iteration(1, 1.0, "underfit")], "eval_loss", known).adjustments
        assert "learning_rate 0.01 or above diverged in 1 of 2 iterations" in made.because

    def test_learned_nothing_elsewhere(self):
        """A rate that learned nothing elsewhere in as many steps is not gone down to again."""
        chain = [iteration(1, 1.0, "overfitting", rate=2e-3, evidence={})]
        known = Known((iteration(7, 5.5, "not-learning", rate=1.7e-3),))
        made = Rules().propose(chain, "eval_loss", known).adjustments
        assert all(a.setting != "training.learning_rate" for a in made)


class TestQuotedNumbers:
    def test_they_are_numbers(self):
        """A quoted number, as trl and peft take it, is moved like any other."""
        quoted = iteration(1, 1.0, "underfit", rate="2e-4", num_train_epochs="1")
        plain = iteration(1, 1.0, "underfit", rate=2e-4, num_train_epochs=1)
        assert after(plain) == after(quoted)
        assert canonical(plain.settings) == canonical(quoted.settings)

    def test_what_is_no_number(self):
        """A text that is no number is left for peft and trl to refuse."""
        assert "fast" in canonical(iteration(1, 1.0, rate="fast").settings)


class TestFiguresOfOthers:
    @pytest.mark.parametrize("evidence", [{"train_first": 0}, {"ratio": None}, {"ratio": "much"}])
    def test_a_finding_of_the_user(self, evidence):
        """A user's own finding of a kind that the rules know may lack its figures."""
        assert after(iteration(1, 5.0, "diverged", evidence=evidence))["learning_rate"] < 1e-3

    def test_only_point_at_step_0(self):
        """A run whose only evaluation point is at its start has no best share to speak of."""
        one = replace(iteration(), evals=fake_evals((1.0,), 0, 0.0))
        assert State((one,), one, "eval_loss").best_share in (0.0, 1.0)


class TestSearch:
    def test_up_first(self):
        """Without a finding the learning rate is doubled."""
        assert after(iteration()) == {"learning_rate": 2e-3}

    def test_then_down(self):
        """A step up that made it worse is followed by one down from the parent."""
        assert after(iteration(), iteration(2, 1.5, rate=2e-3)) == {"learning_rate": 5e-4}

    def test_then_between(self):
        """With both sides known the vertex of the parabola through the three is next."""
        chain = [iteration(), iteration(2, 1.5, rate=2e-3), iteration(3, 1.1, rate=5e-4)]
        assert after(*chain) == {"learning_rate": 8.1e-4}

    def test_then_the_middle_of_the_wider_side(self):
        """Below a rate that broke, and above one that was worse: the geometric middle."""
        chain = [
            iteration(),
            iteration(2, 5.0, "diverged", rate=2e-3),
            iteration(3, 1.5, rate=1e-4),
        ]
        assert after(*chain) == {"learning_rate": 5e-4}

    def test_until_it_is_tight(self):
        """A bracket tighter than 1.25 leaves the learning rate and trains for longer."""
        chain = [iteration(), iteration(2, 1.5, rate=1.2e-3), iteration(3, 1.1, rate=8.2e-4)]
        assert after(*chain) == {"num_train_epochs": 6}

    def test_nothing_that_was_tried_nearly(self):
        """A step that would land within 1.25 times of a rate that was tried is not taken."""
        chain = [iteration(), iteration(2, 1.5, rate=5e-4), iteration(3, 1.2, rate=7.1e-4)]
        assert after(*chain) == {"learning_rate": 2e-3}

    def test_parabola_of_like_runs(self):
        """Runs of other epochs are on another parabola: the geometric middle is next instead."""
        long = [
            iteration(1, 1.0, rate=1e-3, num_train_epochs=1),
            iteration(2, 0.8, rate=4e-3, num_train_epochs=1),
            iteration(3, 0.3, rate=4e-3, num_train_epochs=9),
            iteration(4, 0.5, rate=1.6e-2, num_train_epochs=9),
        ]
        mixed = after(*long)["learning_rate"]
        like = replace(
            long[0],
            metrics=fake_metrics(0.32),
            settings=iteration(1, 1.0, rate=1e-3, num_train_epochs=9).settings,
        )
        assert (8e-3, 2.3e-3) == (mixed, after(like, *long[1:])["learning_rate"])

    def test_rank_last(self):
        """With learning rate and epochs exhausted the rank doubles, at the same scale."""
        chain = [
            iteration(1, 1.0, num_train_epochs=20),
            iteration(2, 1.5, rate=1.2e-3, num_train_epochs=20),
            iteration(3, 1.1, rate=8.2e-4, num_train_epochs=20),
        ]
        assert after(*chain) == {"r": 16, "lora_alpha": 32}


class TestOverfitting:
    def overfitted(self, number=1, loss=0.25, evals=(0.9, 0.25, 0.3, 0.35), **more):
        """An iteration whose eval loss rises from its second of four points."""
        base = iteration(number, loss, "overfitting", rate=5e-3, **more)
        return replace(base, evals=fake_evals(evals, 100, 8.0))

    def test_fewer_epochs_under_one(self):
        """Of a run under one epoch that was best early, the next ends there; never later."""
        early = replace(self.overfitted(), evals=fake_evals((0.2, 0.3, 0.4, 0.5), 100, 0.5))
        settings = early.settings
        early = replace(
            early,
            settings=replace(settings, training={**settings.training, "num_train_epochs": 0.5}),
        )
        state = State((early,), early, "eval_loss")
        (made,) = moves.fewer_epochs(state)
        assert (0.5, 0.12) == (made.before, made.after)

    @pytest.mark.parametrize(
        ("lora", "wanted"),
        [
            ({"r": 3, "lora_alpha": 4}, {"r": 1, "lora_alpha": 1}),
            ({"r": 8, "lora_alpha": 1}, {"r": 4}),
            ({"r": 16, "lora_alpha": 8, "use_rslora": True}, {"r": 8, "lora_alpha": 6}),
        ],
    )
    def test_alpha_is_a_whole_number(self, lora, wanted):
        """With the rank the alpha stays a whole number, as peft wants it."""
        one = replace(self.overfitted(lora=lora))
        made = moves.lower_rank(State((one,), one, "eval_loss"))
        assert wanted == {a.setting.removeprefix("lora."): a.after for a in made}

    def test_halves_the_rate(self):
        """An eval loss that rose again: half the learning rate first."""
        assert after(self.overfitted()) == {"learning_rate": 2.5e-3}

    def test_regularises(self):
        """A wide gap without a rise: dropout first."""
        assert after(self.overfitted(evals=(0.9, 0.25, 0.25, 0.25))) == {"lora_dropout": 0.05}

    def test_tries_each_in_turn(self):
        """What brought nothing is not repeated: rate, dropout, decay, rank, then fewer epochs."""
        chain = [self.overfitted(num_train_epochs=8)]
        made = []
        while adjustments := propose(chain):
            made.append(changes(adjustments))
            settings = chain[0].settings.adjusted(adjustments)
            worse = replace(
                self.overfitted(len(chain) + 1, 0.3), settings=settings, adjustments=adjustments
            )
            chain.append(worse)
            if len(made) == 6:
                break
        assert made == [
            {"learning_rate": 2.5e-3},
            {"lora_dropout": 0.05},
            {"weight_decay": 0.01},
            {"r": 4, "lora_alpha": 8},
            {"num_train_epochs": 4},
            {"learning_rate": 3.5e-3},
        ]

    def test_goes_on_with_what_helped(self):
        """Dropout that helped is raised before another remedy is tried."""
        first = self.overfitted(evals=(0.9, 0.25, 0.25, 0.25))
        adjustments = propose([first])
        second = replace(
            self.overfitted(2, 0.2, evals=(0.9, 0.2, 0.2, 0.2)),
            settings=first.settings.adjusted(adjustments),
            adjustments=adjustments,
        )
        assert after(first, second) == {"lora_dropout": 0.1}


@pytest.mark.parametrize("move", [moves.lower_rank, moves.higher_rank])
def test_an_adapter_that_goes_on_keeps_its_rank(move):
    """Rank and scale of an adapter that is trained further are not moved; others are."""
    lora = {"r": 8, "lora_alpha": 16}
    fresh, warm = (iteration(lora=lora | more) for more in ({}, {"init_from": "ab" * 16}))
    assert {"r", "lora_alpha"} == changes(move(State((fresh,), fresh, "eval_loss"))).keys()
    assert () == move(State((warm,), warm, "eval_loss"))
