"""What is kept of a training in the cache, beside its adapter: what the log does not hold of it.

An iteration that is measured again needs it for its whole diagnosis. Without it, on another
machine, the log's own curves do, and findings on the training are taken as they were logged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes, read_json
from pytest_ftloop.core.cache import training_file
from pytest_ftloop.core.errors import shown_path
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.json_text import json_text
from pytest_ftloop.core.records import Cost, ExampleResult, Iteration, Run, Training

if TYPE_CHECKING:
    from pytest_ftloop.core.runs import Measured

FORMAT = 2
"""Version of these files. One of another version counts as absent."""


@dataclass(frozen=True)
class Trained:
    """A training without its evaluation: all that any other evaluation of it has in common.

    `train_examples` and `final_train_examples` are as in `Evaluation`; `train_figures` are the
    logged train losses where the examples are not at hand. `whole` is whether it is from the cache.
    """

    training: Training
    cost: Cost
    environment: Mapping[str, str]
    adapter: str
    train_examples: tuple[ExampleResult, ...] = ()
    final_train_examples: tuple[ExampleResult, ...] = ()
    train_figures: Mapping[str, float] | None = None
    whole: bool = True


@dataclass(frozen=True)
class _File:
    """The content of a file."""

    format: int
    sha256: str
    trained: Trained


def keep_trained(weights: str, run: Run, name: str) -> list[str]:
    """Keep what the log will not hold of a run; notes on what of it could not be kept.

    `name` is what the run is called.
    """
    notes = []
    trained = Trained(
        training=run.training,
        cost=run.cost,
        environment=dict(run.environment),
        adapter=run.adapter,
        train_examples=run.evaluation.train_examples,
        final_train_examples=run.evaluation.final_train_examples,
    )
    file = training_file(weights)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = _File(FORMAT, _sum(trained), trained)
        write_atomically(file, json_text(kept))
    except OSError as error:
        notes.append(
            f"what the log does not hold of {name} could not be kept ({shown_path(file)}: "
            f"{error.strerror}); evaluated again, it has the findings on its training as logged"
        )
    if run.not_saved:
        notes.append(
            f"the adapter of {name} could not be saved: {run.not_saved}; its figures are in the log"
        )
    return notes


def trained_of(run: Measured) -> Trained | None:
    """The training of a run in the log, whole if the cache has it; None if too little is known.

    A seed run's record has no curve.
    """
    kept = _kept(run)
    if kept is not None:
        return kept
    return _of_record(run) if isinstance(run, Iteration) else None


def _kept(run: Measured) -> Trained | None:
    """What the cache has of exactly this training: the same adapter, on the same figures."""
    if not run.weights:
        return None
    from pydantic import TypeAdapter, ValidationError

    try:
        said = read_json(read_bytes(training_file(run.weights), MOST_BYTES))
        file = TypeAdapter(_File).validate_python(said)
        if _sum(said["trained"]) != file.sha256:
            return None  # it is damaged, and one wrong digit would be taken for a figure
    except (OSError, ValueError, ValidationError):
        return None
    return file.trained if file.format == FORMAT and _is_of(file.trained, run) else None


def _sum(trained: object) -> str:
    return hashlib.sha256(json_text(trained, sort_keys=True).encode()).hexdigest()


def _is_of(trained: Trained, run: Measured) -> bool:
    if run.adapter or trained.adapter:
        return run.adapter == trained.adapter
    # Neither was saved: the cost in seconds tells two trainings of the same settings apart.
    return math.isclose(trained.cost.seconds, run.cost.seconds, rel_tol=1e-5)


def _of_record(iteration: Iteration) -> Trained:
    facts = iteration.facts
    training = Training(
        steps=iteration.steps,
        evals=iteration.evals,
        planned_steps=facts.get("planned_steps", len(iteration.steps)),
        best_step=facts.get("best_step", 0),
        steps_per_epoch=facts.get("steps_per_epoch", 1),
        trainable_parameters=facts.get("trainable_parameters", 0),
        labelled_tokens=facts.get("labelled_tokens", 0),
        vocabulary=facts.get("vocabulary", 0),
        adapter_moved=True,
        dropped_examples=facts.get("dropped_examples", 0),
        ended_early=facts.get("ended_early", ""),
        recoveries=tuple(facts.get("recoveries", ())),
        width=facts.get("width", 0),
    )
    return Trained(
        training=training,
        cost=iteration.cost,
        environment=iteration.environment,
        adapter=iteration.adapter,
        train_figures=train_figures(iteration),
        whole=False,
    )


def train_figures(run: Measured) -> dict[str, float]:
    """The train losses of a record, by metric."""
    return {n: v for n, v in run.metrics.items() if n.partition("[")[0] == "train_loss"}
