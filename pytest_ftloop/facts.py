"""The plain numbers of a training that its record keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_ftloop.records import Training


def facts_of(training: Training) -> dict[str, Any]:
    """A training's counts and events, for `Iteration.facts`."""
    return {
        "steps": len(training.steps),
        "planned_steps": training.planned_steps,
        "best_step": training.best_step,
        "steps_per_epoch": training.steps_per_epoch,
        "trainable_parameters": training.trainable_parameters,
        "labelled_tokens": training.labelled_tokens,
        "vocabulary": training.vocabulary,
        "width": training.width,
        "dropped_examples": training.dropped_examples,
        "ended_early": training.ended_early,
        "recoveries": list(training.recoveries),
    }
