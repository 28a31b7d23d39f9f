"""The rules over how far a run got: it learned nothing, is unfinished, or came to its end."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_ftloop.diagnose.learned import converged, not_learning, underfit
from tests.diagnose.fakes_curves import DECAY, evidence, kinds
from tests.fakes import fake_steps


class TestNotLearning:
    def test_flat(self):
        """A loss that fell 1% is a warning."""
        found = not_learning(evidence([5.0 - 0.0005 * n for n in range(100)], (4.99, 4.97), 5.0))
        assert (found.kind, found.severity) == ("not-learning", "warning")

    def test_eval_overrules_noise(self):
        """An eval loss that fell 20% shows learning, however noisy the train loss is."""
        assert None is not_learning(evidence([5.0, 1.0] * 20, (4.5, 4.0), 5.0))

    def test_just_begun(self):
        """A fall of 10% that has not slowed by the end is only the beginning of learning."""
        even, slowing = (4.875, 4.75, 4.625, 4.5), (4.6, 4.52, 4.505, 4.5)
        losses = [5 - 0.005 * n for n in range(100)]
        assert ["not-learning"] == kinds(evidence(losses, even, 5.0, 4.5))
        assert None is not_learning(evidence(losses, slowing, 5.0, 4.5))

    def test_just_begun_on_a_decaying_schedule(self):
        """A level end does not show that learning slowed where the learning rate fell to 0."""
        steps = fake_steps([5 - 0.5 * n / 100 for n in range(100)])
        decaying = tuple(replace(s, learning_rate=1e-5 * (1 - s.step / 100)) for s in steps)
        evals = (4.78, 4.62, 4.53, 4.5)
        assert None is not_learning(evidence(steps=steps, evals=evals))
        assert not_learning(evidence(steps=decaying, evals=evals)).kind == "not-learning"

    def test_a_fifth_less_is_learning(self):
        """Where the loss is a fifth below the base's it learns, however evenly."""
        losses = [5 - 0.01 * n for n in range(100)]
        assert None is not_learning(evidence(losses, (4.75, 4.5, 4.25, 4.0), 5.0))

    def test_endless_warmup(self):
        """Where the learning rate rises to the last step the remedy is a shorter warmup."""
        steps = fake_steps([5.0] * 50)
        rising = tuple(replace(step, learning_rate=1e-7 * step.step) for step in steps)
        remedies = [not_learning(evidence(steps=s, evals=(4.99,))).remedy for s in (steps, rising)]
        assert [False, True] == ["warmup" in remedy for remedy in remedies]

    def test_without_evals(self):
        """Train decides alone where nothing was evaluated."""
        assert not_learning(evidence([5.0] * 50, (), math.nan)).kind == "not-learning"

    def test_late_first_point(self):
        """Evaluation points after the fall, without the base's, don't hide that train fell."""
        assert None is not_learning(evidence(DECAY, (0.2, 0.2), math.nan))

    def test_short(self):
        """9 steps are too few to tell by the train loss, 5 also by the eval loss."""
        assert None is not_learning(evidence([5.0] * 9, (5.0,), math.nan))
        assert None is not_learning(evidence([5.0] * 5, (5.0,), 5.0))

    def test_short_with_an_exact_eval_loss(self):
        """8 steps after which the eval loss is 0.7% below the base's hardly learned."""
        losses = [5.75, 5.8, 5.6, 5.77, 5.71, 5.8, 5.69, 5.74]
        assert kinds(evidence(losses, (5.745, 5.719), 5.76, 5.7)) == ["not-learning"]

    def test_a_mean_that_hides_the_start(self):
        """A flat log whose first entry is the mean of 500 steps may have learned within these."""
        told = {1: "not-learning", 10: "not-learning", 50: None, 500: None}
        for every, kind in told.items():
            steps = tuple(replace(s, step=every * s.step) for s in fake_steps([1.0, 1.01] * 10))
            found = not_learning(evidence(steps=steps, evals=(), base=math.nan))
            assert kind == (found and found.kind)

    def test_a_fall_at_once(self):
        """A second entry that is clearly below the first shows learning within the first."""
        steps = tuple(replace(s, step=10 * s.step) for s in fake_steps([1.06] + [1.0, 1.002] * 10))
        assert None is not_learning(evidence(steps=steps, evals=(), base=math.nan))

    def test_a_log_of_the_rest_of_a_run(self):
        """A log that begins at step 5,001 does not show what was learned before."""
        steps = tuple(replace(s, step=5000 + s.step) for s in fake_steps([0.9, 0.91] * 50))
        assert None is not_learning(evidence(steps=steps, evals=(), base=math.nan))

    def test_an_endless_warmup_hides_nothing(self):
        """While the learning rate only rises nothing was learned before."""
        rising = tuple(
            replace(s, step=100 * s.step, learning_rate=1e-9 * s.step)
            for s in fake_steps([5.0] * 20)
        )
        found = not_learning(evidence(steps=rising, evals=(), base=math.nan))
        assert "warmup" in found.remedy

    def test_an_eval_loss_that_moved(self):
        """An eval loss that falls or rises by over 5% is another matter than not learning."""
        for evals, base in (((2.0, 1.2), math.nan), ((0.8, 1.0), math.nan), ((1.5, 1.6), 1.5)):
            assert None is not_learning(evidence([1.0, 1.01] * 20, evals, base))

    def test_a_train_loss_that_rose(self):
        """A train loss that rose by a tenth is no sign of too low a learning rate."""
        losses = [1 + 0.1 * n / 40 for n in range(40)]
        assert None is not_learning(evidence(losses, (), math.nan))

    def test_lost_or_never_learned(self):
        """Flat at 9.8 from the first entry, of 10 steps, on: the remedy tells two causes apart."""
        steps = tuple(replace(s, step=10 * s.step) for s in fake_steps([9.8, 9.81] * 20))
        assert "lower" in not_learning(evidence(steps=steps, evals=(), base=math.nan)).remedy

    def test_nothing_left_to_learn(self):
        """A base that already knows the data is not accused."""
        assert None is not_learning(evidence([0.05] * 50, (0.05,), 0.05))


class TestUnderfit:
    def test_still_falling(self):
        """Train and eval that fall to the end promise more; it is no warning."""
        losses = [5 - 0.02 * n for n in range(100)]
        found = underfit(evidence(losses, (4.5, 4.0, 3.5, 3.0), 5.0, 3.0))
        assert (
            found.kind,
            found.severity,
            round(found.evidence["eval_fall"], 6),
        ) == ("underfit", "info", 0.4)

    def test_one_point_with_steep_train(self):
        """With the base and one point, a train loss that clearly falls to the end decides."""
        assert underfit(evidence([5 - 0.02 * n for n in range(100)], (3.0,))).kind == "underfit"

    @pytest.mark.parametrize(
        ("evals", "said"),
        [
            ((3.0,), "from step 0 to 100 the eval loss fell from 5.000 to 3.000"),
            ((4.5, 3.0), "from step 50 to 100 the eval loss fell from 4.500 to 3.000"),
            ((4.5, 4.0, 3.5, 3.0), "from step 75 to 100 the eval loss fell from 3.500 to 3.000"),
        ],
    )
    def test_states_measured_figures_only(self, evals, said):
        """Before the last quarter it names an evaluation point, never a value between two."""
        found = underfit(evidence([5 - 0.02 * n for n in range(100)], evals))
        assert said in found.message
        assert {found.evidence["eval_first"], found.evidence["eval_last"]} <= {5.0, *evals}

    def test_one_point_with_flat_train(self):
        """With the base and one point, a flat end of the train loss says converged."""
        assert None is underfit(evidence(DECAY, (0.2,)))

    def test_few_steps(self):
        """Five steps that brought the eval loss down are an unfinished run."""
        assert underfit(evidence([5.0, 4.9, 4.8, 4.7, 4.6], (4.5,), 5.0, 4.5)).kind == "underfit"

    def test_gap(self):
        """A falling eval loss far above train is not called healthy."""
        losses = [5 - 0.045 * n for n in range(100)]
        assert None is underfit(evidence(losses, (4.5, 4.0, 3.5, 3.0), 5.0, 0.5))

    def test_small_gap(self):
        """A gap of a fifth of the train loss leaves room for more epochs."""
        losses = [5 - 0.045 * n for n in range(100)]
        assert underfit(evidence(losses, (3.0, 2.0, 1.4, 1.2), 5.0, 1.0)).kind == "underfit"

    def test_best_before_the_end(self):
        """An eval loss past its lowest is not underfit."""
        assert None is underfit(evidence([5 - 0.02 * n for n in range(100)], (4.0, 3.0, 3.1)))

    def test_nearly_zero(self):
        """From 0.06 to 0.03 nats there is nothing left worth a run."""
        losses = [0.03 + 5 * math.exp(-n / 18) for n in range(100)]
        assert None is underfit(evidence(losses, (1.0, 0.2, 0.06, 0.03), 5.0, 0.03))


class TestConverged:
    def test_level_end(self):
        """A level last quarter of train and eval is convergence."""
        losses = [1 + 4 * math.exp(-n / 8) for n in range(100)]
        found = converged(evidence(losses, (1.1, 1.05, 1.05, 1.05)))
        assert ("converged", "info") == (found.kind, found.severity)

    def test_nothing_left(self):
        """A train loss that goes from 0.015 to 0.013 nats does not fall any more."""
        losses = [0.01 + 4 * math.exp(-n / 8) + 0.005 * (100 - n) / 50 for n in range(100)]
        assert converged(evidence(losses, (0.5, 0.02, 0.016, 0.016))).kind == "converged"

    @pytest.mark.parametrize(
        ("train_loss", "raise_it"), [(1.0, True), (0.5, False), (math.nan, False)]
    )
    def test_nothing_memorised(self, train_loss, raise_it):
        """Level at a high loss without a gap, the remedy is a higher learning rate."""
        losses = [1 + 4 * math.exp(-n / 8) for n in range(100)]
        found = converged(evidence(losses, (1.1, 1.05, 1.05, 1.05), train_loss=train_loss))
        assert raise_it == ("a learning rate 3 times as high" in found.remedy)

    def test_memorised_to_the_end(self):
        """Level at nearly no loss, a higher learning rate is not the remedy."""
        losses = [0.01 + 4 * math.exp(-n / 8) for n in range(100)]
        found = converged(evidence(losses, (0.5, 0.02, 0.016, 0.016), train_loss=0.016))
        assert "higher" not in found.remedy

    def test_train_still_falls(self):
        """A train loss that still falls is no convergence."""
        losses = [5 - 0.04 * n for n in range(100)]
        assert None is converged(evidence(losses, (1.1, 1.05, 1.05, 1.05)))

    def test_eval_still_falls(self):
        """An eval loss that still falls is none either."""
        losses = [1 + 4 * math.exp(-n / 8) for n in range(100)]
        assert None is converged(evidence(losses, (1.4, 1.2, 1.1, 1.05)))

    def test_11_steps(self):
        """11 steps are too few to tell."""
        assert None is converged(evidence([1.0] * 11, (1.05, 1.05, 1.05)))
