"""The rules over curves: each fires on its pathology and stays silent on healthy runs."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.diagnose.curves import (
    RULES,
    converged,
    diverged,
    no_signal,
    non_finite,
    not_learning,
    oscillation,
    out_of_memory,
    overconfidence,
    overfitting,
    underfit,
)
from pytest_ftloop.records import EvalPoint
from tests.fakes import fake_example, fake_metrics, fake_steps, fake_training

REAL = json.loads(Path(__file__).with_name("real_curves.json").read_text())
DECAY = [0.1 + 5 * math.exp(-n / 12) for n in range(100)]


def evidence(losses=None, evals=(2.0, 1.5, 1.4, 1.38), base=5.0, train_loss=None, **fields):
    """Evidence of a fake training; keywords of `Evidence.of` and of the training."""
    of = {key: fields.pop(key) for key in ("history", "metric") if key in fields}
    metrics = fields.pop("metrics", None)
    training = fake_training(losses, evals, **fields)
    finite = [loss for loss in evals if math.isfinite(loss)]
    metrics = metrics or fake_metrics(min(finite, default=math.nan), train_loss)
    return Evidence.of(training, metrics, metrics, base, **of)


def real(name):
    """Evidence of a recorded run: 2.6 million parameters, banking77, r = 8."""
    run = REAL[name]
    points = tuple(EvalPoint(step, epoch, loss, 0.5) for step, epoch, loss in run["evals"])
    best = min((point.eval_loss for point in points), default=math.nan)
    metrics = fake_metrics(best, run["train_loss"])
    training = fake_training(steps=fake_steps(run["losses"], run["norms"]), evals=points)
    return Evidence.of(training, metrics, metrics, run["base"])


def accurate(losses, accuracies, **fields):
    """Evidence of a run whose train loss falls to 0.1, with these eval losses and accuracies."""
    of = evidence(DECAY, losses, **fields)
    points = zip(of.evals, accuracies, strict=True)
    evals = tuple(replace(point, token_accuracy=accuracy) for point, accuracy in points)
    return replace(of, evals=evals)


def kinds(of):
    """The kinds of the findings, in order."""
    return [finding.kind for finding in diagnose(of)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lr1e-6", ["not-learning"]),
        ("lr2e-5", ["not-learning"]),
        ("lr2e-4", ["underfit"]),
        ("lr1e-3", ["underfit"]),
        ("lr5e-3", []),
        ("lr1.2e-2", []),
        ("lr3e-2", ["underfit"]),
        ("lr1e-1", ["oscillation"]),
        ("lr1", ["non-finite"]),
        ("lr100", ["non-finite"]),
        ("overfit", ["overfitting"]),
        ("bs1", ["underfit"]),
        ("bs1hot", ["underfit"]),
        ("long", []),
        ("cosine", []),
        ("two", ["underfit"]),
        ("one", []),
    ],
)
def test_real_runs_are_read_right(name, expected):
    """What is said of recorded runs, from learning rate 1e-6 to 100."""
    assert expected == kinds(real(name))


def healthy(seed):
    """Evidence of a noisy, often short or coarsely evaluated, healthy run."""
    rng = random.Random(seed)
    steps = rng.choice([3, 5, 10, 30, 100, 250])
    start, floor = rng.uniform(1.5, 9), rng.choice([0.005, 0.02, 0.2, 1.0])
    gap = rng.uniform(0, 0.05)
    warmup, speed = rng.choice([0, 0.1]) * steps, rng.choice([1, 3, 8, 20])
    sigma, points, progress = rng.choice([0.05, 0.2, 0.5, 1.0]), rng.choice([1, 2, 4, 10]), 0.0
    means = []
    for n in range(steps):
        progress += (min(1, (n + 1) / warmup) if warmup else 1) / steps
        means.append(floor + (start - floor) * math.exp(-speed * progress))
    losses = [mean * math.exp(rng.gauss(0, sigma) - sigma**2 / 2) for mean in means]
    at = sorted({max(1, round(steps * (n + 1) / points)) for n in range(points)})
    evals = [means[step - 1] * (1 + gap) * (1 + rng.gauss(0, 0.003)) for step in at]
    base = start * (1 + gap) if rng.random() < 0.8 else math.nan
    return evidence(losses, evals, base, train_loss=min(means))


def test_healthy_runs_raise_no_alarm():
    """300 healthy runs give no warning and no error."""
    found = {seed: diagnose(healthy(seed)) for seed in range(300)}
    alarms = {s: f for s, all_ in found.items() for f in all_ if f.severity != "info"}
    assert alarms == {}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_run_without_data_says_nothing(rule):
    """No step and no evaluation point: no rule fires, none fails."""
    assert None is rule(evidence([], (), math.nan, metrics={"eval_loss": math.nan}))


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_tiny_runs_are_harmless(steps):
    """A run of a few steps that learns a little is no warning."""
    found = diagnose(evidence([5.0 - 0.1 * n for n in range(steps)], (4.8,), 5.0, 4.7))
    assert [finding for finding in found if finding.severity != "info"] == []


@pytest.mark.parametrize(
    "rule",
    [r for r in RULES if r not in {non_finite, out_of_memory}],
    ids=lambda rule: rule.__name__,
)
def test_only_non_finite_speaks_of_nan(rule):
    """Where all is NaN only the rule for NaN fires."""
    assert None is rule(evidence([math.nan] * 50, (math.nan,) * 4, math.nan))


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
            {"steps": fake_steps([2.0] * 20, 0.0)},
            {"steps": fake_steps([2.0] * 20, learning_rate=0.0)},
        ],
        ids=["labels", "parameters", "unmoved", "loss", "gradient", "rate"],
    )
    def test_faults(self, fields):
        """Each fault is an error that no setting cures, and silences everything else."""
        (found,) = diagnose(evidence(**fields))
        assert (found.kind, found.severity, found.tunable) == ("no-signal", "error", False)

    def test_memorised(self):
        """Losses logged as 0.0 late in a run are no fault: the set is memorised."""
        steps = fake_steps([3.0] * 10 + [0.0] * 50, [1.0] * 10 + [0.0] * 50)
        assert None is no_signal(evidence(steps=steps))

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
        """9 steps are too few to tell."""
        assert None is not_learning(evidence([5.0] * 9, (5.0,), 5.0))

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

    def test_easier_eval_set(self):
        """Train rows that are harder than the eval set's were not destroyed."""
        assert None is oscillation(evidence([5.0] * 50, (3.0, 2.9), 3.0))

    def test_swings(self):
        """An eval loss that goes up and down is a warning."""
        assert oscillation(evidence(DECAY, (1.0, 2.0, 1.0, 2.0, 1.0))).kind == "oscillation"

    def test_steady_rise(self):
        """An eval loss that rises steadily overfits: it does not swing."""
        assert None is oscillation(evidence(DECAY, (1.0, 1.2, 1.4, 1.6, 1.8)))

    def test_replaces_underfit(self):
        """A run that relearns what it destroyed is falling at its end, but not underfit."""
        losses = [5.0] * 3 + [12.0] * 8 + [3 + 0.02 * n for n in range(60, 0, -1)]
        assert kinds(evidence(losses, (4.5, 4.0, 3.5, 3.1), 5.0, 3.0)) == ["oscillation"]


class TestOverfitting:
    def test_eval_rises(self):
        """An eval loss that ends 9% above its lowest while train falls is a warning."""
        found = overfitting(evidence(DECAY, (0.9, 0.3, 0.23, 0.24, 0.25), train_loss=0.2))
        assert (
            found.kind,
            found.severity,
            found.evidence["best_step"],
        ) == ("overfitting", "warning", 60)

    def test_one_odd_last_point(self):
        """A last point that is off after many level ones is noise."""
        evals = (0.9, 0.23, 0.23, 0.23, 0.23, 0.23, 0.245)
        assert None is overfitting(evidence(DECAY, evals, train_loss=0.2))

    def test_wide_gap(self):
        """Train 0.01 and eval 0.25, level, is learning by heart."""
        assert overfitting(evidence(DECAY, (0.3, 0.26, 0.25, 0.25), 5, 0.01)).kind == "overfitting"

    def test_converged_run_with_a_wide_ratio(self):
        """Train 0.08 and eval 0.10 is healthy although the gap is a quarter of the loss."""
        assert None is overfitting(evidence(DECAY, (0.5, 0.12, 0.1, 0.1), 5, 0.08))

    def test_harder_eval_set(self):
        """Train 2.0 and eval 2.3 is another distribution, not overfitting."""
        assert None is overfitting(evidence(DECAY, (2.6, 2.31, 2.3, 2.3), 5, 2.0))

    def test_gap_while_eval_hardly_falls(self):
        """A fall of a thirtieth of the gap in the last quarter never closes it."""
        evals = (0.9, 0.46, 0.442, 0.428)
        assert overfitting(evidence(DECAY, evals, 5, 0.01)).kind == "overfitting"

    def test_gap_while_eval_falls(self):
        """A wide gap is tolerated while the eval loss still falls."""
        assert None is overfitting(evidence(DECAY, (3.0, 2.5, 2.0, 1.5), 5, 0.9))

    def test_train_rises_too(self):
        """Both rising is not overfitting."""
        losses = [1.0] * 50 + [2.0] * 50
        assert None is overfitting(evidence(losses, (1.0, 1.2), train_loss=0.95))

    def test_one_point(self):
        """One evaluation point can't rise."""
        assert None is overfitting(evidence(DECAY, (0.5,), train_loss=0.45))


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
        assert raise_it == ("raise the learning rate" in found.remedy)

    def test_memorised_to_the_end(self):
        """Level at nearly no loss, a higher learning rate is not the remedy."""
        losses = [0.01 + 4 * math.exp(-n / 8) for n in range(100)]
        found = converged(evidence(losses, (0.5, 0.02, 0.016, 0.016), train_loss=0.016))
        assert "raise the learning rate" not in found.remedy

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


class TestOutOfMemory:
    def test_recovery(self):
        """A survived memory limit is told, with what was changed."""
        found = out_of_memory(evidence(recoveries=("batch 8 to 4, accumulation 1 to 2",)))
        assert (found.severity, "batch 8 to 4" in found.message) == ("info", True)

    def test_none(self):
        """Nothing happened, nothing is told."""
        assert None is out_of_memory(evidence())

    def test_survives_suppression(self):
        """The memory is told even of a run that diverged; the error comes first."""
        losses = [3.0] * 10 + [1.0] * 40 + [6.0] * 20
        found = kinds(evidence(losses, (1.0, 6.0), recoveries=("batch 8 to 4",)))
        assert found == ["diverged", "out-of-memory"]


def test_findings_are_records_of_plain_numbers():
    """Evidence holds numbers and text only, each message is a sentence on one line."""
    for finding in (finding for name in REAL for finding in diagnose(real(name))):
        assert {float, int, str} >= {type(value) for value in finding.evidence.values()}
        assert (finding.message.endswith("."), len(finding.message.splitlines())) == (True, 1)
