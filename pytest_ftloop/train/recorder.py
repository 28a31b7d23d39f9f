"""TORCH: observe one run from inside the trainer: logs, evaluation points, the best adapter."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.core.metrics import token_accuracy, token_mean_loss
from pytest_ftloop.core.progress import Progress
from pytest_ftloop.core.ranks import ALONE, Ranks
from pytest_ftloop.core.records import BaseResults, EvalPoint, ExampleResult, Settings, StepLog
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.train.early_end import Pace, Watch
from pytest_ftloop.train.prepare import Prepared
from pytest_ftloop.train.task import Task
from pytest_ftloop.train.train_losses import TrainLosses
from pytest_ftloop.train.unfinished import (
    BEST,
    CHECKPOINT,
    FORMAT,
    Point,
    Unfinished,
    candidate_file,
)
from pytest_ftloop.train.weights import trainable_weights

DEFAULT_EVAL_STEPS = 10
"""Steps between evaluation points if `eval_strategy: steps` has no `eval_steps`, as in trl."""

MIN_EVAL_POINTS = 4
"""Fewest evaluation points without an `eval_strategy`: enough for a curve from a single epoch."""


MOST_CANDIDATES = 8
"""Evaluation points that are compared where another metric than the eval loss chooses the best one:
each costs a copy of the adapter and a generation over the eval set. By default there are four."""


@dataclass(frozen=True)
class Candidate:
    """An evaluation point that may be the best: its eval loss, results, and adapter weights."""

    eval_loss: float
    results: tuple[ExampleResult, ...]
    weights: dict[str, torch.Tensor]


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Observes a run: evaluates at its points, keeps the best adapter, ends a hopeless run.

    At every evaluation point the trainer writes a checkpoint with adapter, optimiser and random
    states; from the last one a run continues after it ran out of memory, and in another process
    after it was killed (`unfinished`). Five methods are called by the trainer.
    """

    def __init__(
        self,
        task: Task,
        settings: Settings,
        progress: Progress,
        pace: Pace | None = None,
        metric: str = "eval_loss",
        ranks: Ranks = ALONE,
    ) -> None:
        self.task = task
        self.ranks = ranks
        self.metric = metric
        self.candidates: dict[int, Candidate] = {}
        self.pace = pace
        self.stated = settings.training
        self.progress = progress
        self.measure: Callable[[], tuple[ExampleResult, ...]]
        self.evals: list[EvalPoint] = []
        self.best: tuple[ExampleResult, ...] = ()
        self.best_step = 0
        self.best_weights: dict[str, torch.Tensor] = {}
        self.ended_early = ""
        self.checkpoint: str | None = None
        self.resume_step = 0
        self.planned_steps = 0
        self.resumed_at = 0
        self.is_halved = False
        self.seconds_before, self.tokens_before = 0.0, 0
        self.unfinished: Unfinished | None = None
        self.untrained: BaseResults | None = None
        self.train_losses = TrainLosses(ranks)

    def resume(self, unfinished: Unfinished) -> None:
        """Keep this run's points there, and go on from the one that a killed run has left.

        Not where that had another pace, or none, and this one ends the run before the point.
        """
        self.unfinished = unfinished
        point = self.ranks.of_first(unfinished.point)
        if point is None or (self.pace and self.pace.first_hopeless(point.evals, point.steps)):
            return
        self.checkpoint = str(unfinished.folder / CHECKPOINT)
        self.resume_step = self.resumed_at = point.step
        self.seconds_before, self.tokens_before = point.seconds, point.tokens
        self.evals, self.best, self.best_step = list(point.evals), point.best, point.best_step
        self.best_weights = unfinished.weights(BEST) if point.best_step else {}
        self.candidates = {
            step: Candidate(loss, results, unfinished.weights(candidate_file(step)))
            for step, (loss, results) in point.candidates.items()
        }
        self.train_losses.restore(point.passes)
        self.untrained = point.untrained
        self.progress.working(f"going on from step {point.step}, where a run was interrupted")

    def watch_run(
        self, trainer: SFTTrainer, evaluator: Evaluator, prepared: Prepared
    ) -> Callable[[], tuple[ExampleResult, ...]]:
        """Observe this trainer from now on. Returns the function that measures the eval set."""
        self.watch = Watch(vocabulary_size(trainer.model))
        self.steps_per_epoch = steps_per_epoch(trainer)
        # Weak: after a failed attempt the memory of its optimiser must be free for the next.
        self.trainer = weakref.ref(trainer)
        self.measure = lambda: evaluator.losses(
            prepared.eval, self.task.eval.examples, self.progress
        )
        trainer.add_callback(self)
        self.train_losses.watch(trainer)
        return self.measure

    def on_train_begin(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Choose the evaluation points, now that the trainer knows the number of steps."""
        self.planned_steps = state.max_steps
        self.points = evaluation_points(self.stated, state.max_steps, self.steps_per_epoch)
        self.compared = spread(sorted(self.points), MOST_CANDIDATES)
        for log in state.log_history:  # of the steps before the checkpoint
            if (step := step_log(log)) is not None:
                self.watch.see(step)

    def on_step_begin(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Tell `TrainLosses` the step of the losses to come."""
        self.train_losses.step = state.global_step

    def on_step_end(
        self,
        args: SFTConfig,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Evaluate at an evaluation point, and save a checkpoint unless it is the last step."""
        if state.global_step in self.points:
            self.evaluate(model, state)
            self._report(control)
            if self.pace is not None:
                self.ended_early = self.pace.hopeless(self.evals, state.max_steps)
                control.should_training_stop = control.should_training_stop or bool(
                    self.ended_early
                )
            control.should_save = control.should_save or state.global_step < state.max_steps

    def on_save(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Remember the checkpoint, for an attempt or a process after this one."""
        self.checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.resume_step = state.global_step
        trainer = self.trainer()
        if trainer is not None:
            self.tokens_before = int(trainer._total_train_tokens)
        # Not with half the batch, which a process after this one would not begin with; nor a run
        # that is ended early here, which is not to go on from here.
        if self.unfinished is not None and not self.is_halved and not self.ended_early:
            point = self._point()  # all ranks wait here until each has saved its random states
            files = {candidate_file(s): c.weights for s, c in self.candidates.items()}
            if self.best_step:
                files[BEST] = self.best_weights
            if self.ranks.is_first:
                self.unfinished.keep(point, Path(self.checkpoint), files)

    def _point(self) -> Point:
        """What was observed until the checkpoint."""
        return Point(
            format=FORMAT,
            step=self.resume_step,
            steps=self.planned_steps,
            seconds=self.seconds_before,
            tokens=self.tokens_before,
            evals=tuple(self.evals),
            best_step=self.best_step,
            best=self.best,
            candidates={s: (c.eval_loss, c.results) for s, c in self.candidates.items()},
            passes=self.train_losses.passes(),
            untrained=self.untrained,
        )

    def on_log(
        self,
        args: SFTConfig,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float],
        **_: Any,
    ) -> None:
        """Check every step's loss and gradient; end a hopeless run."""
        step = step_log({**logs, "step": state.global_step})
        if step is None:
            return
        self.progress.step(step.step, state.max_steps, step.loss)
        self.ended_early = self.watch.see(step) or self.ended_early
        if self.ended_early:
            control.should_training_stop = True

    def evaluate(self, model: torch.nn.Module, state: TrainerState) -> None:
        """Measure the eval set; keep results and weights if they are the best so far."""
        results = self.measure()
        loss = token_mean_loss(results)
        best_loss = token_mean_loss(self.best) if self.best_step else math.inf
        self.evals.append(
            EvalPoint(state.global_step, float(state.epoch or 0.0), loss, token_accuracy(results))
        )
        if loss < best_loss:  # never true for a NaN
            self.best_step = state.global_step
            self.best_weights = trainable_weights(model)
            self.best = results
        elif not self.best_step:  # no finite loss yet: the record still needs every example
            self.best = results
        is_compared = self.metric != "eval_loss" and state.global_step in self.compared
        if is_compared and math.isfinite(loss):
            self.candidates[state.global_step] = Candidate(loss, results, trainable_weights(model))

    def _report(self, control: TrainerControl) -> None:
        """Send the evaluation point to the trackers that the trainer reports to, if any."""
        trainer = self.trainer()
        if trainer is None or not trainer.args.report_to:
            return
        point = self.evals[-1]
        figures = {
            "eval_loss": point.eval_loss,
            "eval_mean_token_accuracy": point.token_accuracy,  # trl's own name for it
        }
        should_log = control.should_log  # logging resets it, and this step's own log is yet to come
        # Not SFTTrainer's log, which would use up the counts for this step's train log.
        Trainer.log(trainer, figures)
        control.should_log = should_log

    def rewind(self) -> None:
        """Forget everything after the checkpoint, which the next attempt trains again, halved."""
        self.is_halved = True
        self.evals = [point for point in self.evals if point.step <= self.resume_step]
        if self.best_step > self.resume_step:
            self.best_step, self.best, self.best_weights = 0, (), {}
        self.candidates = {s: c for s, c in self.candidates.items() if s <= self.resume_step}
        self.train_losses.forget_from(self.resume_step)


def evaluation_points(stated: Mapping[str, Any], steps: int, epoch: int) -> frozenset[int]:
    """The steps after which the eval set is measured; the last step is always one of them.

    `epoch` is the number of steps per epoch. `eval_strategy` no, epoch and steps (with
    `eval_steps`, below 1 a fraction of all steps) mean the same as for a trainer. Without it the
    points are spread evenly: one per epoch, and at least `MIN_EVAL_POINTS`.
    """
    strategy = str(stated.get("eval_strategy", "auto"))
    if strategy == "no":
        return frozenset({steps})
    if strategy == "epoch":
        return frozenset({*range(epoch, steps + 1, epoch), steps})
    if strategy == "steps":
        every = float(stated.get("eval_steps") or DEFAULT_EVAL_STEPS)
        every = max(1, math.ceil(every * steps) if every < 1 else int(every))
        return frozenset({*range(every, steps + 1, every), steps})
    count = min(max(MIN_EVAL_POINTS, math.ceil(steps / max(epoch, 1))), steps)
    return frozenset(round(steps * (i + 1) / count) for i in range(count))


def spread(points: Sequence[int], most: int) -> frozenset[int]:
    """At most `most` of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return frozenset(points)
    return frozenset(points[round(i * (len(points) - 1) / (most - 1))] for i in range(most))


def step_log(log: Mapping[str, Any]) -> StepLog | None:
    """A trainer's log entry as a step; None for other entries, such as the final summary."""
    if "loss" not in log or "learning_rate" not in log:
        return None
    norm = log.get("grad_norm")
    return StepLog(
        step=int(log["step"]),
        loss=float(log["loss"]),
        grad_norm=None if norm is None else float(norm),
        learning_rate=float(log["learning_rate"]),
    )


def steps_per_epoch(trainer: SFTTrainer) -> int:
    """Optimiser steps per pass over the train set, counted as the trainer counts them.

    Not taken from a data loader, because making one could change the random state.
    """
    args = trainer.args
    rounded = math.floor if args.dataloader_drop_last else math.ceil
    whole = rounded(len(trainer.train_dataset) / args.train_batch_size)
    # Each rank takes a batch of its own, unless it shares one with the others.
    if not trainer.accelerator.split_batches:
        whole = rounded(whole / args.world_size)
    steps: int = math.ceil(whole / args.gradient_accumulation_steps)
    return max(1, steps)


def hidden_size(model: Any) -> int:
    """The width of the hidden states: the columns of the output projection."""
    return int(model.get_output_embeddings().weight.shape[-1])


def vocabulary_size(model: Any) -> int:
    """The size of the vocabulary: the rows of the output projection."""
    return int(model.get_output_embeddings().weight.shape[0])
