"""Evidence of runs with the curves that a test names, for the rules over curves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from pytest_ftloop.core.records import EvalPoint
from pytest_ftloop.diagnose import Evidence, diagnose
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
    return measured(Evidence.of(training, metrics, metrics, run["base"]))


def measured(of):
    """The evidence with results, as of our own evaluation, which measures the train loss too."""
    return replace(of, results=(fake_example("e0"),))


def accurate(losses, accuracies, **fields):
    """Evidence of a run whose train loss falls to 0.1, with these eval losses and accuracies."""
    of = evidence(DECAY, losses, **fields)
    points = zip(of.evals, accuracies, strict=True)
    evals = tuple(replace(point, token_accuracy=accuracy) for point, accuracy in points)
    return replace(of, evals=evals)


def kinds(of):
    """The kinds of the findings, in order."""
    return [finding.kind for finding in diagnose(of)]
