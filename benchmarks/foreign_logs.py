"""Our own trainings as logs of other trainers: coarse, without evaluations, of other metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_ftloop.core.records import EvalPoint, Finding, StepLog
from pytest_ftloop.diagnose.any_trainer.trainer_state import findings_of, read_state

COARSE_ENTRIES = 12
"""Entries of a coarse log: 6,000 steps, logged every 500 as the Trainer does by default."""

Entry = dict[str, Any]


def findings_by_form(
    steps: Sequence[StepLog], evals: Sequence[EvalPoint], planned: int, folder: Path
) -> Mapping[str, tuple[Finding, ...]]:
    """What `ftloop diagnose` finds in each form of a run's log."""
    found = {}
    for form, history in forms(steps, evals):
        path = folder / form.replace(" ", "-") / "trainer_state.json"
        path.parent.mkdir()
        last = max((entry["step"] for entry in history), default=0)
        state = {"global_step": last, "max_steps": planned, "log_history": history}
        path.write_text(json.dumps(state))
        found[form] = findings_of(read_state(path))
    return found


def forms(
    steps: Sequence[StepLog], evals: Sequence[EvalPoint]
) -> Iterator[tuple[str, list[Entry]]]:
    """The log histories, by what is special about them."""
    per_epoch = evals[-1].step / evals[-1].epoch if evals and evals[-1].epoch else 1.0
    fine = [_train(step.step, [step], per_epoch) for step in steps]
    size = max(1, len(steps) // COARSE_ENTRIES)
    coarse = [
        _train(steps[start + size - 1].step, steps[start : start + size], per_epoch)
        for start in range(0, len(steps) - size + 1, size)
    ]
    points = [_point(point, {"eval_mean_token_accuracy": point.token_accuracy}) for point in evals]
    others = [_point(point, {"eval_wer": 1 - point.token_accuracy}) for point in evals]
    yield "every step", _merged(fine, points)
    yield "coarse", _merged(coarse, points)
    yield "no eval", fine
    yield "coarse, no eval", coarse
    yield "word error rate", _merged(fine, others)


def _train(step: int, some: Sequence[StepLog], per_epoch: float) -> Entry:
    entry: Entry = {
        "step": step,
        "epoch": step / per_epoch,
        "loss": fmean(one.loss for one in some),
        "learning_rate": some[-1].learning_rate,
    }
    return entry if some[-1].grad_norm is None else {**entry, "grad_norm": some[-1].grad_norm}


def _point(point: EvalPoint, more: Entry) -> Entry:
    return {"step": point.step, "epoch": point.epoch, "eval_loss": point.eval_loss, **more}


def _merged(train: Sequence[Entry], evals: Sequence[Entry]) -> list[Entry]:
    return sorted([*train, *evals], key=lambda entry: (entry["step"], "eval_loss" in entry))
