"""What the tests of `adjust` share."""

from __future__ import annotations

import math
from dataclasses import replace

from pytest_ftloop.adjust import DEFAULTS, Limits, Rules, decide, parent_of_next
from pytest_ftloop.diagnose import Evidence, diagnose
from tests.fakes import (
    fake_evals,
    fake_finding,
    fake_iteration,
    fake_metrics,
    fake_training,
)

ERRORS = {"diverged", "non-finite", "no-signal"}


def propose(chain, metric="eval_loss"):
    """The rules' next adjustments."""
    return Rules().propose(chain, metric).adjustments


def iteration(number=1, loss=1.0, *kinds, evidence=None, rate=1e-3, lora=None, **training):
    """An iteration with an eval loss, findings of some kinds, and a learning rate."""
    findings = [
        fake_finding(kind, "error" if kind in ERRORS else "warning", evidence=evidence or {})
        for kind in kinds
    ]
    return fake_iteration(
        number,
        metrics=fake_metrics(loss),
        findings=findings,
        lora={"r": 8, "lora_alpha": 16} if lora is None else lora,
        training={"learning_rate": rate, "num_train_epochs": 2, **training},
    )


def changes(adjustments):
    """Setting and new value of each adjustment."""
    return {adjustment.setting.partition(".")[2]: adjustment.after for adjustment in adjustments}


def after(*chain, metric="eval_loss"):
    """What is changed after a chain."""
    return changes(propose(chain, metric))


def wide(one, width, best=1.0):
    """The iteration with a model's width, its lowest eval loss at a share of the run."""
    falling = [3.0, 2.0, 1.5, 1.0]
    losses = falling if best == 1.0 else [2.0, 1.0, 1.001, 1.002]
    return replace(one, facts={**one.facts, "width": width}, evals=fake_evals(losses))


# Whole loops on a simulated fine-tuning, read by the real diagnosis.

BASE = 5.6


def train(settings, optimum, number=1, adjustments=(), parent=None):
    """Loss falls with rate x steps; above the optimum it ends higher, 6 times above it diverges."""
    rate = settings.get("training.learning_rate", DEFAULTS["training.learning_rate"])
    epochs = settings.get("training.num_train_epochs", 3.0)
    ratio, steps = rate / optimum, int(50 * epochs)
    cost = 0.15 * math.log(ratio) ** 2 if ratio > 1 else 0.0

    def loss(step):
        if ratio > 60 and step > 5:
            return math.nan
        if ratio > 6:
            return BASE + (2 * BASE) * (1 - math.exp(-step / 10))
        pace = 5 * ratio * (epochs / 2) * (1 - (1 - step / steps) ** 2)
        return 0.3 + cost * min(1.0, step / 10) + (BASE - 0.3 - cost) * math.exp(-pace)

    losses = [loss(step) for step in range(1, steps + 1)]
    evals = [1.02 * loss(round(steps * part / 4)) for part in (1, 2, 3, 4)]
    run = fake_training(losses, evals, epochs=epochs)
    best = min((value for value in evals if not math.isnan(value)), default=math.nan)
    metrics = fake_metrics(best)
    return fake_iteration(
        number,
        metrics=metrics,
        lora=settings.lora,
        training=settings.training,
        findings=diagnose(Evidence.of(run, metrics, metrics, BASE)),
        adjustments=adjustments,
        parent=parent,
        steps=run.steps,
        evals=run.evals,
    )


def loop(rate, optimum, iterations, patience=10):
    """The chain of a whole loop, from a learning rate."""
    settings = fake_iteration(training={"learning_rate": rate, "num_train_epochs": 2}).settings
    chain = [train(settings, optimum)]
    limits = Limits(iterations, patience, "eval_loss", None)
    while (decision := decide(chain, False, limits)).action == "adjust":
        parent = parent_of_next(chain, "eval_loss")
        settings = parent.settings.adjusted(decision.next)
        chain.append(train(settings, optimum, len(chain) + 1, decision.next, parent.id))
    return chain
