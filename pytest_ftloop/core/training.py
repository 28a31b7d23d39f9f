"""What one LoRA run gives: its steps and evaluation points, the results, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_ftloop.core.examples import ExampleResult, Guarded


@dataclass(frozen=True)
class StepLog:
    """One optimiser step as the trainer logs it; the loss is measured with dropout."""

    step: int
    loss: float
    grad_norm: float | None
    learning_rate: float


@dataclass(frozen=True)
class EvalPoint:
    """One evaluation point: the exact token-mean loss over the eval set after `step` steps."""

    step: int
    epoch: float
    eval_loss: float
    token_accuracy: float


@dataclass(frozen=True)
class Training:
    """One LoRA run, complete or ended early.

    `best_step` is the step of the best point, by the eval loss unless it was chosen by another
    metric (0 if no loss is finite). `vocabulary` is the
    model's vocabulary size, `width` the size of its hidden states (0: unknown). `adapter_moved` is
    whether any trained weight differs from its initial value. `labelled_tokens` counts those of
    the train set in one epoch. `ended_early` is empty, or why the run stopped before
    `planned_steps`. `recoveries` describes each recovery from an out-of-memory error.
    `noisy_forwards` is whether dropout or NEFTune raised the losses of `trained`. `point_figures`
    are (step, figure) of the evaluation points that the best one was chosen among, where it was
    chosen by another metric than the eval loss. `start_eval_loss` is that before the first step of
    a run that goes on from an adapter.
    """

    steps: tuple[StepLog, ...]
    evals: tuple[EvalPoint, ...]
    planned_steps: int
    best_step: int
    steps_per_epoch: int
    trainable_parameters: int
    labelled_tokens: int
    vocabulary: int
    adapter_moved: bool
    dropped_examples: int = 0
    ended_early: str = ""
    recoveries: tuple[str, ...] = ()
    width: int = 0
    wiring: Wiring | None = None
    trained: tuple[TrainedExample, ...] = ()
    noisy_forwards: bool = False
    point_figures: tuple[tuple[int, float], ...] = ()
    start_eval_loss: float | None = None


@dataclass(frozen=True)
class Wiring:
    """How trl prepared the train rows of a run.

    Of `examples` train examples trl dropped `dropped`. `sampled` of them were examined in full:
    `ended` have a labelled token that ends generation; `masked_ends` have one whose label the
    collator removed; `cut` were cut to `max_length`, which removed the end of `lost_ends`.
    `split_prompts` have a prompt that is tokenised differently before its completion. `labels`
    counts their labelled tokens before cutting; `lost_labels` of them were cut off, and
    `prompt_labels` belong to prompts. `generates` is whether the scorer reads generated text.
    `untrained_tokens` were added to the tokenizer and occur in the rows, but the `untrained_layers`
    that hold their new weights (embeddings, output layer) are not trained.
    """

    examples: int
    dropped: int
    sampled: int
    generates: bool
    ended: int
    masked_ends: int
    cut: int
    lost_ends: int
    labels: int
    lost_labels: int
    prompt_labels: int
    split_prompts: int
    max_length: int | None
    untrained_tokens: tuple[str, ...] = ()
    untrained_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedExample:
    """What the training's own forward passes showed of a train example, in the order of its passes.

    `losses` are means per token in nats, computed right before the step that trains on the example,
    so the first is out of sample. `tokens` counts its labelled tokens. `steps` are the optimiser's
    steps before each pass, `correct` the labelled tokens that were top-1 in it; both are empty if
    unknown.
    """

    id: str
    losses: tuple[float, ...]
    tokens: int = 1
    steps: tuple[int, ...] = ()
    correct: tuple[int, ...] = ()


HOPELESS = "hopeless"
"""`Training.ended_early` begins with this word if the run had no chance of a useful result."""


def facts_of(training: Training) -> dict[str, Any]:
    """The counts and events of a training, for `Iteration.facts`."""
    before = training.start_eval_loss
    by_step = {str(step): round(figure, 6) for step, figure in training.point_figures}
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
        **({"point_figures": by_step} if by_step else {}),
        **({} if before is None else {"start_eval_loss": round(before, 6)}),
    }


@dataclass(frozen=True)
class BaseMeasured:
    """A measurement of the untrained base, and the environment that it was made in."""

    results: BaseResults
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """The results of the adapter at the best evaluation point.

    `examples` are all eval examples, scored. `train_examples` are a seeded sample of the train set,
    in eval mode; `final_train_examples` are the same sample with the last weights (the same tuple
    if the last point is the best). `base_eval_loss` is that of the untrained base. `guards` are the
    results of each guard's rows, by its name. `base` is what the untrained base gave, if it was
    measured with this run. `max_new_tokens` is the limit by which outputs were generated, 0 if none
    were. `train_figures` are the train losses by metric where their examples are not at hand: of a
    training that is measured again.
    """

    examples: tuple[ExampleResult, ...]
    train_examples: tuple[ExampleResult, ...]
    final_train_examples: tuple[ExampleResult, ...]
    base_eval_loss: float
    guards: Guarded = field(default_factory=dict)
    base: BaseResults | None = None
    max_new_tokens: int = 0
    train_figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BaseResults:
    """What the untrained base gives for the eval set, and for each guard's rows."""

    examples: tuple[ExampleResult, ...]
    guards: Guarded = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """The cost of an iteration. `device_memory_mib` is the peak on the accelerator, 0 on a CPU.

    `resumed_at` is the step from which an interrupted training went on, 0 if none was.
    """

    seconds: float
    steps: int
    tokens: int
    device_memory_mib: float = 0.0
    resumed_at: int = 0


@dataclass(frozen=True)
class Run:
    """The results of one run.

    `adapter` is the hash of the adapter that was saved, empty if none was; `not_saved` is why not,
    where it should have been.
    """

    training: Training
    evaluation: Evaluation
    cost: Cost
    environment: Mapping[str, str]
    adapter: str = ""
    not_saved: str = ""
