"""The rules over runs that broke: each fires on its pathology, and on that alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_ftloop.diagnose import diagnose
from pytest_ftloop.diagnose.broken import _rose_again, diverged, no_signal, non_finite
from tests.diagnose.fakes_curves import DECAY, evidence, kinds
from tests.fakes import fake_steps


class TestNonFinite:
    def test_nan_loss(self):
        """One NaN train loss is an error, with its step."""
        found = non_finite(evidence([2.0] * 9 + [math.nan]))
        assert (
            found.kind,
            found.severity,
            found.evidence["first_step"],
        ) == ("non-finite", "error", 10)

    def test_nan_eval(self):
        """A NaN eval loss is an error even where the train losses look healthy."""
        assert "eval loss" in non_finite(evidence(evals=(1.0, math.nan))).message

    def test_hidden_nan(self):
        """A filter that logs 0.0 for NaN is seen through by the gradient norm."""
        steps = fake_steps([2.0] * 5 + [0.0] * 20, [1.0] * 5 + [math.nan] * 20)
        assert non_finite(evidence(steps=steps)).evidence["grad_norms"] == 20

    def test_hidden_nan_at_the_last_step(self):
        """One loss of 0 beside a NaN gradient is a NaN, as one that is not hidden is."""
        steps = fake_steps([*DECAY, 0.0], [1.0] * 100 + [math.nan])
        assert non_finite(evidence(steps=steps)).evidence["first_step"] == 101

    def test_zeros_without_a_gradient_norm(self):
        """A loss that jumps from 0.4 to exactly 0 for good is how a filter logs NaN."""
        losses = [0.4 + 2 * math.exp(-n / 20) for n in range(60)] + [0.0] * 20
        steps = fake_steps(losses, None)
        assert kinds(evidence(steps=steps, evals=(0.8, 0.7))) == ["non-finite"]

    @pytest.mark.parametrize("to_zero", [[0.05, 0.001, 0.0, 0.0, 0.0], [0.4, 0.0, 0.0]])
    def test_memorised_without_a_gradient_norm(self, to_zero):
        """A loss that goes down to 0 is memorised, and two zeros are no end yet."""
        assert None is non_finite(evidence(steps=fake_steps([*DECAY, *to_zero], None)))

    def test_loss_scaling(self):
        """Infinite gradient norms at the start and now and then are healthy in fp16."""
        norms = [math.inf] * 4 + ([1.0] * 15 + [math.inf]) * 4
        assert None is non_finite(evidence(steps=fake_steps([2.0] * len(norms), norms)))

    def test_ended_by_the_watch(self):
        """A run that was ended for its gradient is non-finite whatever the curve shows."""
        found = non_finite(evidence(ended_early="gradient norm is inf at step 3, 3 in a row"))
        assert found.kind == "non-finite"

    def test_suppresses_its_symptoms(self):
        """A NaN run is nothing but a NaN run."""
        losses = [5.0] * 30 + [math.nan] * 5
        assert kinds(evidence(losses, (5.0, 9.0, math.nan))) == ["non-finite"]


class TestDiverged:
    def test_rise(self):
        """A loss that fell to 1 and ended at 6 diverged."""
        found = diverged(evidence([3.0] * 10 + [1.0] * 40 + [6.0] * 20, (1.0, 6.0)))
        assert (
            found.kind,
            found.severity,
            round(found.evidence["ratio"], 6),
        ) == ("diverged", "error", 6.0)

    def test_worse_than_untrained(self):
        """Train and eval that end above the untrained base diverged, though they are flat."""
        found = diverged(evidence([5.2] * 3 + [6.4] * 60, (6.5, 6.5), base=5.2))
        assert "worse" in found.message

    def test_short_and_worse_than_untrained(self):
        """Five steps are enough where both losses end far above the untrained base's."""
        found = diverged(evidence([2.0, 2.1, 5.0, 9.0, 11.0], (11.0,), base=2.0))
        assert "worse" in found.message

    @pytest.mark.parametrize("base", [2.0, math.nan])
    def test_destroyed_by_the_first_update(self, base):
        """A loss that jumps at once and never comes back diverged, the base known or not."""
        losses = [2.0, 25.0, 11.0] + [10.8, 10.9] * 20
        assert kinds(evidence(losses, (10.9, 10.9), base, 10.8)) == ["diverged"]

    def test_one_easy_first_batch(self):
        """A first batch that is easier than the others was not destroyed."""
        assert None is diverged(evidence([0.3, *DECAY[5:]], (1.5, 1.2), base=4.0))
        assert None is diverged(evidence([0.3] + [1.9, 2.1] * 50, (1.9, 1.9), base=math.nan))

    def test_a_harder_train_set_and_overfitting(self):
        """Train losses that fall above the eval set's base are no divergence."""
        losses = [2.2 - 0.004 * n for n in range(100)]
        assert None is diverged(evidence(losses, (1.6, 1.8), base=1.5))

    def test_lost_before_the_log_begins(self):
        """Flat at ln(vocabulary) from the first entry, of 10 steps, on: it diverged before."""
        steps = tuple(replace(s, step=10 * s.step) for s in fake_steps([10.8, 10.81] * 20, 0.0))
        of = evidence(steps=steps, evals=(), base=math.nan)
        assert kinds(of) == ["diverged"]
        assert "before" in diverged(of).message
        untrained = replace(of, base_eval_loss=10.8)
        assert kinds(untrained) == ["no-signal"]

    def test_frozen(self):
        """ln(vocabulary) with zero gradient at the end is divergence without NaN."""
        uniform = math.log(4096)
        steps = fake_steps([8.0] * 5 + [uniform] * 20, [1.0] * 5 + [0.0] * 20)
        assert "froze" in diverged(evidence(steps=steps, evals=(uniform,), base=8.0)).message

    def test_ended_by_the_watch(self):
        """A run that was ended for divergence diverged, with the watch's words."""
        found = diverged(evidence(ended_early="diverged: the loss of the last 20 steps is 9"))
        assert found.message == "Diverged: the loss of the last 20 steps is 9."

    def test_memorised_wobble(self):
        """A memorised loss that doubles from 0.01 to 0.03 is no divergence."""
        assert None is diverged(evidence([3.0] * 10 + [0.01] * 40 + [0.03] * 20, (0.1, 0.1)))

    def test_one_late_spike(self):
        """One odd batch at the end is no divergence."""
        assert None is diverged(evidence([*DECAY, 4.0], (0.3, 0.15)))

    def test_losses_of_any_size(self):
        """Noise over hundreds of powers of ten hides a rise; it is no error of the rule."""
        losses = [1.0, 1e200] * 4 + [1e250, 1e250]
        assert None is _rose_again(evidence(losses), losses)

    def test_overfitting_is_not_divergence(self):
        """An eval loss that doubles while train falls is another finding."""
        assert None is diverged(evidence(DECAY, (1.0, 0.5, 1.0), base=5.0))


class TestNoSignal:
    @pytest.mark.parametrize(
        "fields",
        [
            {"labelled_tokens": 0},
            {"trainable_parameters": 0},
            {"adapter_moved": False},
            {"steps": fake_steps([0.0] * 20)},
            {"steps": fake_steps([2.0] * 20, 0.0), "evals": (2.0, 2.0), "base": 2.0},
            {"steps": fake_steps([2.0] * 20, learning_rate=0.0), "evals": (), "base": math.nan},
        ],
        ids=["labels", "parameters", "unmoved", "loss", "gradient", "rate"],
    )
    def test_faults(self, fields):
        """Each fault is an error that is not tuned around, and silences everything else."""
        (found,) = diagnose(evidence(**fields))
        assert (found.kind, found.severity, found.tunable) == ("no-signal", "error", False)

    def test_memorised(self):
        """Losses logged as 0.0 late in a run are no fault: the set is memorised."""
        steps = fake_steps([3.0] * 10 + [0.0] * 50, [1.0] * 10 + [0.0] * 50)
        assert None is no_signal(evidence(steps=steps))

    @pytest.mark.parametrize("logged", [{"grad_norms": 0.0}, {"learning_rate": 0.0}])
    def test_a_loss_that_moved(self, logged):
        """Layerwise optimizers log a gradient of 0, Adafactor a rate of 0: the loss tells."""
        by_train = evidence(steps=fake_steps(DECAY, **logged), evals=(), base=math.nan)
        by_eval = evidence(steps=fake_steps([2.0] * 4, **logged), evals=(2.0, 1.5), base=math.nan)
        assert [None, None] == [no_signal(by_train), no_signal(by_eval)]

    def test_nan_is_another_finding(self):
        """A NaN run that moved nothing is non-finite, not a wiring fault."""
        assert None is no_signal(evidence([math.nan] * 20, adapter_moved=False))

    def test_no_labels_explain_nan(self):
        """The mean over no labelled token is NaN: the missing labels are the cause."""
        assert kinds(evidence([math.nan] * 20, (math.nan,), labelled_tokens=0)) == ["no-signal"]

    def test_one_step(self):
        """One warmup step at learning rate 0 proves nothing."""
        steps = fake_steps([2.0], learning_rate=0.0)
        assert None is no_signal(evidence(steps=steps, adapter_moved=False))
