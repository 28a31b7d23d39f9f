"""The rules over the chain of iterations, on made chains and on recorded runs."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_ftloop.core.records import Adjustment, EvalPoint, StepLog
from pytest_ftloop.diagnose import Evidence, diagnose
from pytest_ftloop.diagnose.chain import RULES, capacity, eval_worn_out, plateau
from tests.fakes import (
    fake_example,
    fake_holdout_use,
    fake_iteration,
    fake_measured,
    fake_metrics,
    fake_noise,
    fake_table,
    fake_training,
)

RUNS = json.loads(Path(__file__).with_name("real_runs.json").read_text())


def evidence(*losses, metric="eval_loss", **fields):
    """Evidence whose chain has these figures, the last one's its own."""
    figures = [
        fake_metrics(**{"pass_rate" if metric == "pass_rate" else metric: x}) for x in losses
    ]
    history = [fake_iteration(n, metrics=of) for n, of in enumerate(figures[:-1], start=1)]
    of = Evidence.of(fake_training(), figures[-1], figures[-1], 5.0, history, metric)
    return replace(of, **fields)


def real(name):
    """Evidence of a recorded run: the embedded model, all its steps."""
    run = RUNS[name]
    points = tuple(EvalPoint(*point) for point in run["evals"])
    steps = tuple(StepLog(n, x, 1.0, run["rate"]) for n, x in enumerate(run["losses"], start=1))
    training = fake_training(
        steps=steps,
        evals=points,
        trainable_parameters=run["parameters"],
        labelled_tokens=run["tokens"],
        steps_per_epoch=run["steps_per_epoch"],
    )
    metrics = fake_metrics(min(point.eval_loss for point in points), run["train_loss"])
    rows = (fake_example(tokens=run["eval_tokens"]),)
    return Evidence.of(training, metrics, metrics, run["base"], results=rows)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("overconfident", ["overconfidence"]),
        ("too-small", ["capacity"]),
        ("too-slow", []),
        ("large", ["underfit"]),
    ],
)
def test_real_runs_are_read_right(name, expected):
    """Labels with noise learned for 16 epochs; codes of 300 names by rank 1, slow, and rank 64."""
    assert expected == [finding.kind for finding in diagnose(real(name))]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_an_empty_chain_says_nothing(rule):
    """No step, no figure, no history: no rule fires, none fails."""
    training = fake_training([], ())
    assert None is rule(Evidence.of(training, {}, {}, math.nan))


class TestPlateau:
    def test_no_gain(self):
        """No gain beyond noise in the last 2 of 4 iterations is a plateau."""
        found = plateau(evidence(2.0, 1.0, 1.2, 0.995))
        assert ("plateau", "info", 1.0) == (found.kind, found.severity, found.evidence["best"])

    def test_names_what_was_changed_in_vain(self):
        """It speaks of the settings of the last 2 iterations, each once; of none if unknown."""
        of = evidence(2.0, 1.0, 1.0, 1.0)
        assert "in the last 2 iterations." in plateau(of).message
        rate, rank = (Adjustment(name, 1, 2, "") for name in ("training.learning_rate", "lora.r"))
        chain = [replace(i, adjustments=(rate,)) for i in of.history[:-1]]
        chain.append(replace(of.history[-1], adjustments=(rank,)))
        found = plateau(replace(of, history=tuple(chain), adjustments=(rank, rate)))
        assert "lora.r, training.learning_rate" == found.evidence["changed"]
        assert found.message.endswith("which changed lora.r, training.learning_rate.")

    def test_of_a_rate(self):
        """Half a point of a rate is noise, a whole one is not."""
        assert plateau(evidence(0.8, 0.8, 0.804, metric="pass_rate"))
        assert None is plateau(evidence(0.8, 0.8, 0.81, metric="pass_rate"))

    def test_needs_three_iterations(self):
        """Two equal iterations are not a plateau yet."""
        assert None is plateau(evidence(1.0, 1.0))

    def test_nan_history(self):
        """Iterations without a figure are no progress, and no plateau without one to hold."""
        assert None is plateau(evidence(math.nan, math.nan, 1.0))
        assert plateau(evidence(1.0, math.nan, math.nan))

    def test_measured_noise(self):
        """What the seed was measured to move the figure by counts, not what is believed."""
        gained = evidence(2.0, 1.0, 1.0, 0.97)
        assert None is plateau(gained)
        found = plateau(replace(gained, seed_noise=fake_noise(eval_loss=0.05)))
        assert pytest.approx(0.05) == found.evidence["seed_noise"]
        assert pytest.approx(0.05 * math.sqrt(2), rel=0.01) == found.evidence["least_change"]

    def test_remedy_where_train_still_falls(self):
        """Where the train loss goes on falling more data is wanted, not a look at the gate."""
        of = evidence(1.0, 1.0, 1.0)
        learns = replace(of, metrics=fake_metrics(1.0, train_loss=0.5))
        assert "add data, or regularise more" in plateau(learns).remedy
        assert "gate" in plateau(of).remedy

    def test_hides_convergence(self):
        """That the last run converged is not said beside it."""
        losses = [1 + 4 * math.exp(-n / 8) for n in range(100)]
        training = fake_training(losses, (1.1, 1.05, 1.05, 1.05))
        of = Evidence.of(training, fake_metrics(1.05), {}, 5.0)
        assert ["converged"] == [f.kind for f in diagnose(of)]
        history = tuple(fake_iteration(n, metrics=fake_metrics(1.05)) for n in (1, 2))
        assert ["plateau"] == [f.kind for f in diagnose(replace(of, history=history))]


class TestCapacity:
    def test_message(self):
        """It states where the loss levelled off, and how many parameters hold how many tokens."""
        found = capacity(real("too-small"))
        assert (
            "The train loss levelled off at 3.847: the adapter has 2048 parameters for 3872 "
            "labelled tokens."
        ) == found.message
        assert "info" == found.severity

    @pytest.mark.parametrize(
        "fields",
        [
            {"trainable_parameters": 4000},
            {"trainable_parameters": None},
            {"labelled_tokens": None},
            {"steps_per_epoch": 200},
            {"metrics": {}},
            {"metrics": fake_metrics(1.5, 1.0)},
        ],
        ids=["enough", "unknown parameters", "unknown tokens", "one epoch", "no loss", "learned"],
    )
    def test_silent(self, fields):
        """It is silent where one of its conditions does not hold, or is not known."""
        assert capacity(replace(real("too-small"), **fields)) is None

    def test_a_rate_too_high(self):
        """A learning rate over 1e-2 explains a high loss as well."""
        of = real("too-small")
        fast = tuple(replace(step, learning_rate=2e-2) for step in of.steps)
        assert None is capacity(replace(of, steps=fast))

    @pytest.mark.parametrize(
        ("parameters", "train_loss", "fires"),
        [(2048, 3.0, False), (8192, 3.84, False), (8192, 2.0, True), (2048, 3.84, True)],
        ids=["better with as few", "no better with more", "better with more", "as before"],
    )
    def test_the_chain_knows_better(self, parameters, train_loss, fires):
        """An iteration that did better as small, or no better when larger, shows another cause."""
        facts = {"trainable_parameters": parameters}
        other = fake_iteration(1, metrics=fake_metrics(4.0, train_loss), facts=facts)
        assert fires is (capacity(replace(real("too-small"), history=(other,))) is not None)

    def test_healthy_small_runs(self):
        """A run that falls on, at whatever speed, is not too small: 200 of them."""
        for seed in range(200):
            rng = random.Random(seed)
            steps, speed = rng.choice([40, 100, 300]), rng.uniform(0.3, 3.0)
            losses = [
                (1 + 4 * math.exp(-speed * n / steps)) * math.exp(rng.gauss(0, 0.1))
                for n in range(steps)
            ]
            training = fake_training(losses, trainable_parameters=100, steps_per_epoch=steps // 4)
            of = Evidence.of(training, fake_metrics(2.0, 1.9), {}, 5.0)
            assert None is capacity(of), seed


def opened(eval_losses, holdout_losses, spread=0.05, n=200, **fields):
    """Evidence after the holdout was opened for iterations with these losses."""
    rng = random.Random(7)

    def table(loss):
        return fake_table([loss + rng.gauss(0, spread) for _ in range(n)])

    iterations = [fake_measured(i, table(x)) for i, x in enumerate(eval_losses, start=1)]
    same = {"eval": {"rows": n, "sha256": "c" * 16}}
    iterations = [replace(iteration, data=same) for iteration in iterations]
    uses = [
        fake_holdout_use(of, table(loss))
        for of, loss in zip(iterations, holdout_losses, strict=True)
    ]
    told = {"holdout": tuple(uses[::-1]), "opened": tuple(iterations)}
    return evidence(1.0, **(told | fields))


class TestEvalWornOut:
    def test_only_the_eval_set_improves(self):
        """An eval loss that fell by 15% while the holdout's did not is a warning."""
        found = eval_worn_out(opened((1.0, 0.92, 0.85), (1.1, 1.1, 1.1)))
        assert ("eval-worn-out", "warning", False) == (found.kind, found.severity, found.tunable)
        assert 3 == found.evidence["openings"]
        assert "From iteration 001-" in found.message
        assert " to 003-" in found.message

    def test_both_improve(self):
        """Gains on both sides are honest."""
        assert None is eval_worn_out(opened((1.0, 0.92, 0.85), (1.1, 1.02, 0.95)))

    def test_an_honest_start(self):
        """What came after the holdout's last gain counts, however much was gained before."""
        found = eval_worn_out(opened((2.0, 1.0, 0.92, 0.85), (2.1, 1.1, 1.1, 1.1)))
        assert "From iteration 002-" in found.message

    def test_one_opening(self):
        """One opening has nothing to be compared with."""
        assert None is eval_worn_out(opened((1.0,), (1.1,)))

    def test_gain_within_noise(self):
        """A gain on the eval set that is noise is no gain."""
        assert None is eval_worn_out(opened((1.0, 0.995), (1.1, 1.1), spread=0.001))
        measured = fake_noise(eval_loss=0.2)
        assert None is eval_worn_out(opened((1.0, 0.85), (1.1, 1.1), seed_noise=measured))

    def test_examples_that_differ_much(self):
        """Where the examples scatter so much that chance explains it, it is silent."""
        assert None is eval_worn_out(opened((1.0, 0.9), (1.1, 1.1), spread=2.0, n=40))

    @pytest.mark.parametrize("change", ["holdout", "eval", "scoring", "gone", "nan", "one example"])
    def test_not_comparable(self, change):
        """Openings of another holdout, eval set or scoring, or without a figure, are left out."""
        of = opened((1.0, 0.92, 0.85), (1.1, 1.1, 1.1))
        last, *earlier = of.holdout
        match change:
            case "holdout":
                changed = replace(last, data={"sha256": "other"})
                of = replace(of, holdout=(changed, *earlier))
            case "eval":
                other = replace(of.opened[-1], data={"eval": {"sha256": "other"}})
                of = replace(of, opened=(*of.opened[:-1], other))
            case "scoring":
                of = replace(of, holdout=(replace(last, scoring={"scorer": "regex"}), *earlier))
            case "gone":
                of = replace(of, opened=of.opened[-1:])
            case "nan":
                without = tuple(replace(use, metrics={"eval_loss": math.nan}) for use in earlier)
                of = replace(of, holdout=(last, *without))
            case "one example":
                few = tuple(replace(use, examples=use.examples[:1]) for use in of.holdout)
                of = replace(of, holdout=few)
        assert None is eval_worn_out(of)

    def test_healthy_chains_raise_no_alarm(self):
        """Of 200 honest pairs, whose gains on both sides are one, 5% at most are accused."""
        alarms = 0
        for seed in range(200):
            rng = random.Random(seed)
            gain = rng.uniform(0.0, 0.3)

            def table(shift, of, rng=rng):
                return fake_table([max(x + shift + rng.gauss(0, 0.2), 0) for x in of])

            sides = [[rng.uniform(0.5, 1.5) for _ in range(100)] for _ in range(2)]
            one, two = (
                replace(
                    fake_measured(n, table(-gain * (n - 1), sides[0])),
                    data={"eval": {"sha256": "c"}},
                )
                for n in (1, 2)
            )
            uses = [
                fake_holdout_use(of, table(-gain * n, sides[1])) for n, of in enumerate((one, two))
            ]
            of = evidence(1.0, holdout=tuple(uses), opened=(one, two))
            alarms += eval_worn_out(of) is not None
        assert alarms <= 10
