"""The rules over losses that rise again: the learning rate is too high, or it learns by heart."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_ftloop.core.records import Settings
from pytest_ftloop.diagnose import diagnose
from pytest_ftloop.diagnose.rising import oscillation, overconfidence, overfitting
from tests.diagnose.fakes_curves import DECAY, accurate, evidence, kinds, measured
from tests.fakes import fake_example, fake_metrics, fake_noise


class TestOscillation:
    def test_destroyed_first(self):
        """A loss that first rose from 5 to 12 shows too high a learning rate."""
        losses = [5.0] * 3 + [12.0] * 8 + [3 + 0.02 * n for n in range(60, 0, -1)]
        found = oscillation(evidence(losses, (4.0, 3.0)))
        assert (found.kind, found.severity) == ("oscillation", "warning")

    def test_destroyed_at_once(self):
        """Where the first update destroys, the start is what the untrained base shows."""
        losses = [5.0, 9.0] + [9.5] * 9 + [3 + 0.02 * n for n in range(60, 0, -1)]
        assert oscillation(evidence(losses, (4.0, 3.0), 5.0)).kind == "oscillation"

    def test_before_it_fell_is_said_where_it_fell(self):
        """Of a loss that stays above its start only where it ended is said."""
        fell = [5.0] * 3 + [12.0] * 8 + [4.0] * 60
        stayed = [5.0] * 3 + [12.0] * 8 + [6.0] * 60
        messages = [oscillation(evidence(losses, (4.0, 3.0))).message for losses in (fell, stayed)]
        assert [True, False] == ["before it fell" in message for message in messages]
        assert "ended at 6.00" in messages[1]

    def test_easier_eval_set(self):
        """Train rows that are harder than the eval set's were not destroyed."""
        assert None is oscillation(evidence([5.0] * 50, (3.0, 2.9), 3.0))

    def test_swings(self):
        """An eval loss that goes up and down is a warning."""
        assert oscillation(evidence(DECAY, (1.0, 2.0, 1.0, 2.0, 1.0))).kind == "oscillation"

    def test_swings_of_two_points(self):
        """A peak may last: what counts is that the loss rises and falls again."""
        evals = (1.2, 1.6, 1.62, 1.2, 1.18, 1.6, 1.63, 1.2, 1.19, 1.6, 1.61, 1.2, 1.2, 1.6, 1.2)
        assert oscillation(evidence(DECAY, evals)).evidence["swings"] == 4

    def test_few_swings(self):
        """Two peaks among many level points, or a wobble of 4%, are no oscillation."""
        assert None is oscillation(evidence(DECAY, (1.0, 2.0, 1.0, 2.0, *[1.0] * 8)))
        assert None is oscillation(evidence(DECAY, (1.0, 1.04) * 6))

    def test_both_losses_rise(self):
        """Train and eval that rise together from the middle on are told, short of divergence."""
        losses = [1 + math.exp(-n / 10) + 0.45 * max(0, n - 50) / 50 for n in range(100)]
        of = evidence(losses, (1.1, 1.05, 1.25, 1.5), math.nan, 1.0)
        (found,) = diagnose(of)
        assert ("oscillation", "warning") == (found.kind, found.severity)
        assert found.message.startswith(
            "Both losses have risen since step 50: the eval loss from 1.050"
        )

    def test_steady_rise(self):
        """An eval loss that rises steadily overfits: it does not swing."""
        assert None is oscillation(evidence(DECAY, (1.0, 1.2, 1.4, 1.6, 1.8)))

    def test_replaces_underfit(self):
        """A run that relearns what it destroyed is falling at its end, but not underfit."""
        losses = [5.0] * 3 + [12.0] * 8 + [3 + 0.02 * n for n in range(60, 0, -1)]
        assert kinds(evidence(losses, (4.5, 4.0, 3.5, 3.1), 5.0, 3.0)) == ["oscillation"]


class TestNeverLanded:
    """A rate of 0.05 or more at which the eval loss stays high is too high, whatever else shows."""

    @staticmethod
    def run(evals, rate=0.1, **more):
        """Train loss flat at 2.1 after a quick start, these eval losses, one learning rate."""
        of = evidence([4.5, 4.0, 3.0] + [2.1] * 97, evals, base=4.8, train_loss=2.0, **more)
        return replace(of, steps=tuple(replace(s, learning_rate=rate) for s in of.steps))

    def test_a_high_flat_loss(self):
        """Where the others learn to a tenth of it, no step lands."""
        found = oscillation(self.run((2.8, 2.3, 2.05, 2.07)))
        assert found.message.startswith("The eval loss stays at 2.05: a learning rate of 0.1 ")

    @pytest.mark.parametrize(
        ("evals", "rate"),
        [((2.8, 2.3, 2.05, 2.07), 0.03), ((2.8, 2.3, 2.05, 1.5), 0.1), ((2.0, 1.0, 0.5, 0.5), 0.1)],
    )
    def test_what_may_land(self, evals, rate):
        """A usual rate, a loss that still falls, or a low one is another matter."""
        assert None is oscillation(self.run(evals, rate))


class TestMeasuredTrainLoss:
    """Noisy batches say nothing; the train sample, measured at both places, does."""

    @staticmethod
    def run(last):
        """Eval rises from its second of four points; the train sample goes from 3.0 to `last`."""
        noisy = [3.0 + 1.5 * (-1) ** (n // 2) for n in range(100)]
        of = evidence(noisy, (3.4, 3.0, 3.5, 3.45), base=4.5, best_step=50)
        return replace(
            of,
            results=tuple(fake_example(f"e{n}") for n in range(9)),
            metrics=fake_metrics(3.0, 3.0),
            final=fake_metrics(3.45, last),
        )

    @pytest.mark.parametrize(
        ("last", "kind"), [(3.4, "oscillation"), (3.0, "overfitting"), (2.0, "overfitting")]
    )
    def test_it_decides(self, last, kind):
        """Eval rises: with the train sample it is the rate, else the run learns by heart."""
        assert kind == kinds(self.run(last))[0]

    def test_of_another_trainer(self):
        """Without results of ours the logged losses are all there is."""
        assert "oscillation" not in kinds(replace(self.run(3.4), results=()))


class TestOverfitting:
    def test_eval_rises(self):
        """An eval loss that ends 9% above its lowest while train falls is a warning."""
        found = overfitting(evidence(DECAY, (0.9, 0.3, 0.23, 0.24, 0.25), train_loss=0.2))
        assert (
            found.kind,
            found.severity,
            found.evidence["best_step"],
        ) == ("overfitting", "warning", 60)

    @pytest.mark.parametrize(
        ("dropout", "decay", "said"),
        [
            (None, None, "set lora.lora_dropout to 0.05-0.1 or set weight decay to 0.01-0.1, "),
            (0.05, 0.01, "raise lora.lora_dropout to 0.1 or raise weight decay to 0.1, "),
            (0.1, 0.0, "set weight decay to 0.01-0.1, "),
            (0.2, 0.1, ""),
        ],
    )
    def test_remedy_is_above_what_is_in_force(self, dropout, decay, said):
        """It proposes no dropout or weight decay that the run had already."""
        settings = Settings({"lora_dropout": dropout}, {"weight_decay": decay})
        of = evidence(DECAY, (0.9, 0.3, 0.23, 0.24, 0.25), train_loss=0.2)
        remedy = overfitting(replace(of, settings=settings)).remedy
        assert remedy.startswith(f"Halve the learning rate, {said}halve the rank, ")

    def test_one_odd_last_point(self):
        """A last point that is off after many level ones is noise."""
        evals = (0.9, 0.23, 0.23, 0.23, 0.23, 0.23, 0.245)
        assert None is overfitting(evidence(DECAY, evals, train_loss=0.2))

    def test_wide_gap(self):
        """Train 0.01 and eval 0.25, level, is learning by heart."""
        of = measured(evidence(DECAY, (0.3, 0.26, 0.25, 0.25), 5, 0.01))
        assert overfitting(of).kind == "overfitting"

    def test_converged_run_with_a_wide_ratio(self):
        """Train 0.08 and eval 0.10 is healthy although the gap is a quarter of the loss."""
        assert None is overfitting(evidence(DECAY, (0.5, 0.12, 0.1, 0.1), 5, 0.08))

    def test_harder_eval_set(self):
        """Train 2.0 and eval 2.3 is another distribution, not overfitting."""
        assert None is overfitting(evidence(DECAY, (2.6, 2.31, 2.3, 2.3), 5, 2.0))

    def test_gap_while_eval_hardly_falls(self):
        """A fall of a thirtieth of the gap in the last quarter never closes it."""
        evals = (0.9, 0.46, 0.442, 0.428)
        found = overfitting(measured(evidence(DECAY, evals, 5, 0.01)))
        assert found.kind == "overfitting"
        assert "fewer epochs" not in found.remedy, "the last point is the best"

    def test_gap_while_eval_falls(self):
        """A wide gap is tolerated while the eval loss still falls."""
        assert None is overfitting(measured(evidence(DECAY, (3.0, 2.5, 2.0, 1.5), 5, 0.9)))

    def test_train_rises_too(self):
        """Both rising is not overfitting."""
        losses = [1.0] * 50 + [2.0] * 50
        assert None is overfitting(evidence(losses, (1.0, 1.2), train_loss=0.95))

    @pytest.mark.parametrize(
        ("losses", "said"),
        [(DECAY, "went on falling."), ([1.0] * 100, "did not rise."), ([], "to 1.300.")],
    )
    def test_what_the_train_loss_did(self, losses, said):
        """It is said to have fallen where it fell, and not spoken of where none is logged."""
        found = overfitting(evidence(losses, (0.9, 0.8, 1.0, 1.3), math.nan))
        assert found.message.endswith(said)

    def test_one_point(self):
        """One evaluation point can't rise, nor show that the eval loss stopped falling."""
        assert None is overfitting(evidence(DECAY, (0.5,), train_loss=0.45))
        assert None is overfitting(evidence(DECAY, (0.9,), math.nan, train_loss=0.5))

    def test_sets_that_differ_from_the_start(self):
        """Of a gap that was there before the first step only what came since counts."""
        losses = [1 + 0.6 * math.exp(-n / 15) for n in range(100)]
        level = (2.2, 2.05, 2.01, 2.005)
        assert None is overfitting(measured(evidence(losses, level, 2.6, 1.0)))
        for base in (1.7, math.nan):
            of = measured(evidence(losses, level, base, 1.0))
            assert overfitting(of).kind == "overfitting"
        lower = [0.3 + 1.3 * math.exp(-n / 15) for n in range(100)]
        since = overfitting(measured(evidence(lower, level, 2.6, 0.3)))
        assert "of it from the start" in since.message

    def test_a_run_that_learns_at_once(self):
        """Train losses that fall within three steps don't look like sets that differ."""
        losses = [5.0, 1.0, 0.5] + [0.1] * 50
        of = measured(evidence(losses, (1.5, 1.4, 1.4), 5.0, 0.1))
        assert overfitting(of).kind == "overfitting"

    def test_within_measured_noise(self):
        """A rise or a gap that the seed alone may bring is none."""
        rising = evidence(DECAY, (0.9, 0.28, 0.30, 0.31), train_loss=0.25)
        wide = measured(evidence(DECAY, (0.3, 0.26, 0.25, 0.25), 5, 0.01))
        for of, noise in ((rising, fake_noise(eval_loss=0.1)), (wide, fake_noise(overfit_gap=0.3))):
            assert overfitting(of).kind == "overfitting"
            assert None is overfitting(replace(of, seed_noise=noise))


class TestOverconfidence:
    def test_accuracy_rises(self):
        """An eval loss that rises with the token accuracy is a warning, and not overfitting."""
        of = accurate((0.9, 0.5, 0.6, 0.7), (0.7, 0.75, 0.78, 0.8), train_loss=0.3)
        found = diagnose(of)
        assert [("overconfidence", "warning")] == [(f.kind, f.severity) for f in found]

    def test_a_wide_gap_beside_it(self):
        """Also where the gap is wide it is not called overfitting."""
        of = accurate((0.9, 0.5, 0.6, 0.7), (0.7, 0.75, 0.78, 0.8), train_loss=0.05)
        assert ["overconfidence"] == kinds(of)

    def test_accuracy_falls(self):
        """An eval loss that rises while accuracy falls is overfitting."""
        of = accurate((0.9, 0.5, 0.6, 0.7), (0.7, 0.75, 0.74, 0.73), train_loss=0.3)
        assert ["overfitting"] == kinds(of)

    def test_accuracy_within_noise(self):
        """Four tenths of a point are no rise of accuracy."""
        of = accurate((0.9, 0.5, 0.6, 0.7), (0.7, 0.75, 0.752, 0.754))
        assert None is overconfidence(of)

    def test_accuracy_within_measured_noise(self):
        """A rise that the seed alone may bring is none: of the loss, or of the accuracy."""
        of = accurate((0.9, 0.5, 0.6, 0.7), (0.7, 0.75, 0.757, 0.757))
        assert overconfidence(of)
        for noise in (fake_noise(token_accuracy=0.05), fake_noise(eval_loss=0.5)):
            assert None is overconfidence(replace(of, seed_noise=noise))

    def test_few_tokens(self):
        """Of 30 tokens two more that are right are no rise of accuracy."""
        of = accurate((0.9, 0.5, 0.6, 0.7), (0.7, 0.7, 0.77, 0.77))
        rows = tuple(fake_example(f"e{n}", tokens=3) for n in range(10))
        assert None is overconfidence(replace(of, results=rows))
        assert overconfidence(replace(of, results=100 * rows))

    def test_one_odd_last_point(self):
        """Accuracy that was level and only rose at the last point is noise."""
        of = accurate((0.9, 0.5, 0.6, 0.6, 0.6, 0.6), (0.7, 0.75, 0.74, 0.74, 0.74, 0.76))
        assert None is overconfidence(of)

    @pytest.mark.parametrize("odd", [(0.7, math.nan, 0.8, 0.8), (0.7, 0.7, 0.8, math.nan)])
    def test_unknown_accuracy(self, odd):
        """Without an accuracy it is silent, and overfitting speaks."""
        of = accurate((0.9, 0.5, 0.6, 0.7), odd, train_loss=0.3)
        assert ["overfitting"] == kinds(of)

    def test_a_loss_that_falls(self):
        """A loss that does not rise is no matter, whatever accuracy does."""
        of = accurate((0.9, 0.5, 0.45, 0.4), (0.7, 0.75, 0.78, 0.8))
        assert None is overconfidence(of)
