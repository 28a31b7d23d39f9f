"""Read what any Hugging Face trainer logged: from `trainer_state.json` to the diagnosis's evidence.

It is read as text, without torch. `training_args.bin` beside it is a pickle and is never loaded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import DataError, Location, shown_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.records import EvalPoint, Finding, StepLog
from pytest_ftloop.diagnose import Evidence, by_severity, diagnose
from pytest_ftloop.diagnose.any_trainer import preferences, rewards
from pytest_ftloop.diagnose.any_trainer.adapter_file import Adapter, read_adapter
from pytest_ftloop.diagnose.any_trainer.advice import Points, with_checkpoint, wrong_best
from pytest_ftloop.diagnose.any_trainer.beside import is_of_lora
from pytest_ftloop.diagnose.any_trainer.entries import (
    Entry,
    as_it_went_on,
    eval_points,
    is_ppo,
    read_entry,
    train_steps,
)
from pytest_ftloop.diagnose.any_trainer.found import (
    CHECKPOINT,
    MOST_STEPS,
    checkpoints,
    load_state,
    stated_epochs,
    stated_steps,
    states_in,
    wrong,
)
from pytest_ftloop.diagnose.any_trainer.incomparable import incomparable_losses
from pytest_ftloop.diagnose.any_trainer.model_file import ModelFile, read_model
from pytest_ftloop.diagnose.any_trainer.notes import emptiness, notes_of, pad_is_end
from pytest_ftloop.diagnose.any_trainer.series import (
    Choice,
    Series,
    choice_of,
    is_policy,
    rows_of,
    scores_of,
    series_of,
)
from pytest_ftloop.diagnose.broken import non_finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ftloop.diagnose.scores import Score

BROKEN = frozenset({"no-signal", "non-finite"})
"""Findings beside which figures of the log need no comparison."""

_OURS = re.compile(r"\b(?:lora|training)\.(?=[a-z])")


@dataclass(frozen=True)
class TrainerRun:
    """One run as its trainer logged it.

    `source` is the file. `step` of `planned_steps` steps were taken, in `epochs` epochs; `seconds`
    is None before the end. `steps` are the logged train losses, each the mean over the steps since
    the last entry. `evals` are the evaluation points per eval set; a single set is named "".
    `likelihood` is False if the loss is not a language model's but that of a reward or preference,
    which the rules don't fit. `notes` state what could not be checked, and why. `series` are all
    figures of the log by name, `choice` the best checkpoint that the trainer names, `model` is what
    the files beside the state say of the model, `saved` are the steps of the checkpoints on disk.
    `of_lora` is False if the whole model is trained, None if unknown.
    """

    source: str
    step: int
    planned_steps: int
    epochs: float
    seconds: float | None
    steps: tuple[StepLog, ...]
    evals: Mapping[str, tuple[EvalPoint, ...]]
    likelihood: bool
    adapter: Adapter | None
    notes: tuple[str, ...]
    series: Mapping[str, Series]
    choice: Choice | None
    model: ModelFile
    saved: frozenset[int] = frozenset()
    of_lora: bool | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch, rounded; 1 if no epoch was logged."""
        share = self.step / self.epochs if self.epochs > 0 else 1.0
        return max(1, round(min(share, MOST_STEPS)))

    def evidence(self, eval_set: str = "") -> Evidence:
        """The evidence of the run with one of its eval sets."""
        points = self.evals.get(eval_set, ())
        finite = [point for point in points if math.isfinite(point.eval_loss)]
        best = min(finite, key=lambda point: point.eval_loss, default=None)
        return Evidence(
            steps=self.steps,
            evals=points,
            planned_steps=self.planned_steps,
            best_step=best.step if best else 0,
            steps_per_epoch=self.steps_per_epoch,
            trainable_parameters=self.adapter.parameters or None if self.adapter else None,
            labelled_tokens=None,
            vocabulary=self.model.vocabulary,
            adapter_moved=self.adapter is None or self.adapter.moved is not False,
            metrics=self._figures(best),
            final=self._figures(points[-1] if points else None),
            scores=self.scores(eval_set),
            causal=self._is_causal(eval_set),
            eval_examples=rows_of(self.series, eval_set),
            pretrained=True if self.adapter or self._is_trl else None,
            of_lora=self.of_lora,
        )

    def scores(self, eval_set: str = "") -> tuple[Score, ...]:
        """The metrics of one eval set other than the loss, the one that decides first."""
        return scores_of(self.series, eval_set, self.evals, self.choice)

    def points(self, eval_set: str = "") -> Points:
        """The evaluation points of one eval set, and the checkpoints."""
        points, scores = self.evals.get(eval_set, ()), self.scores(eval_set)
        return Points(points, scores, self.choice, self.saved, self.epochs)

    @property
    def _is_trl(self) -> bool:
        """Whether trl's SFTTrainer logged it, which fine-tunes causal models."""
        return self.likelihood and "mean_token_accuracy" in self.series

    def _is_causal(self, eval_set: str) -> bool | None:
        """Whether the loss is a causal model's: as its files say, else by what was logged.

        Metrics of another kind (WER, ROUGE, a classifier's accuracy) show that it is not, or at
        least that its loss may be another one.
        """
        if self.model.causal is not None or self._is_trl:
            return self.model.causal is not False
        return False if self.scores(eval_set) else None

    def _figures(self, point: EvalPoint | None) -> dict[str, float]:
        """The figures at an evaluation point.

        The train loss is the mean over the epoch before it, so over every train example once. It is
        of train mode and of weights that were still changing, so it is rather too high and the gap
        too small. NaN if no epoch was logged, as a single entry may be a single batch.
        """
        if point is None:
            return {}
        start = point.step - self.steps_per_epoch
        losses = [step.loss for step in self.steps if start < step.step <= point.step]
        train_loss = fmean(losses) if losses and self.epochs > 0 else math.nan
        return {
            "eval_loss": point.eval_loss,
            "train_loss": train_loss,
            "overfit_gap": point.eval_loss - train_loss,
            "token_accuracy": point.token_accuracy,
        }


def findings_of(run: TrainerRun) -> tuple[Finding, ...]:
    """The findings, errors first. If only some of several eval sets have one, it names the set."""
    of_sets = {name: _found(run, name) for name in run.evals or [""]}
    everywhere = [found for found in next(iter(of_sets.values())) if _in_all(found, of_sets)]
    found = list(everywhere)
    for name, findings in of_sets.items():
        for finding in findings:
            if finding not in everywhere:
                evidence = {"eval_set": name or "(unnamed)", **finding.evidence}
                of = f"Eval set {name[:40]}" if name else "The unnamed eval set"
                message = f"{of}: {finding.message}"
                found.append(replace(finding, message=message, evidence=evidence))
    worst = wrong_best(run.choice)
    return by_severity([*found, *([worst] if worst else [])])


def read_newest(path: Path) -> TrainerRun | None:
    """Read the newest run at a path: a file, a checkpoint, or a folder of checkpoints.

    Of a folder's own state and those of its checkpoints, the one with most steps counts. If it
    can't be used but an older one can, that one is read, with a note. A checkpoint without a state
    (its save was interrupted) is passed over. None for a folder without any state.
    """
    if path.is_file():
        return read_state(path)
    unusable: list[DataError] = []
    for state in states_in(path):
        try:
            run = read_state(state)
        except DataError as error:
            unusable.append(error)
            continue
        passed_over = (f"passed over: {error.where}: {error.message}" for error in unusable)
        return replace(run, notes=(*run.notes, *passed_over))
    if unusable:
        raise unusable[0]
    return None


def read_state(path: Path) -> TrainerRun:
    """Read a run from its state and the adapter beside it. DataError if the state can't be used."""
    state = load_state(path)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise wrong(path, "log_history", "a list", history)
    entries = [read_entry(item, f"log_history[{n}]", path) for n, item in enumerate(history)]
    logged = as_it_went_on(entries)
    steps, evals, series = train_steps(logged), eval_points(logged), series_of(logged)
    if not steps and not evals and not is_policy(series):
        what = "holds neither a loss nor an eval loss" if history else "is empty"
        raise DataError(
            f"log_history {what}: nothing to diagnose",
            where=Location(shown_path(path)),
            cure="Train with logging_steps=1 and an eval_strategy, and save a checkpoint.",
        )
    # If the state has no number of steps, the log's last entry counts.
    step = max(stated_steps(state, "global_step"), *(entry["step"] for entry in logged))
    likelihood = _is_likelihood(entries, steps, evals)
    adapter, damage = _adapter(path.parent)
    pads = pad_is_end(path.parent / "tokenizer_config.json")
    seconds = [entry["train_runtime"] for entry in entries if "train_runtime" in entry]
    return TrainerRun(
        source=shown_path(path),
        step=step,
        planned_steps=max(stated_steps(state, "max_steps"), step),
        epochs=stated_epochs(state) or max(entry.get("epoch", 0.0) for entry in entries),
        seconds=seconds[-1] if seconds else None,
        steps=steps,
        evals=evals,
        likelihood=likelihood,
        adapter=adapter,
        notes=(
            *notes_of(steps, evals, series, likelihood=likelihood),
            *pads,
            *damage,
            *emptiness(adapter),
        ),
        series=series,
        choice=choice_of(state, series),
        model=read_model(_places(path.parent)),
        saved=_saved(path.parent),
        of_lora=is_of_lora(_places(path.parent)),
    )


def _found(run: TrainerRun, eval_set: str) -> tuple[Finding, ...]:
    evidence = run.evidence(eval_set)
    if run.likelihood:
        found = diagnose(evidence)
        figures = incomparable_losses(evidence, run.series.get("mean_token_accuracy", ()))
        if figures and not any(of.kind in BROKEN for of in found):
            found = (*found, figures)
    else:
        found = _of_rewards(run, evidence)
    found = with_checkpoint(found, run.points(eval_set))
    return tuple(replace(of, remedy=_as_trainers_say(of.remedy)) for of in found)


def _of_rewards(run: TrainerRun, evidence: Evidence) -> tuple[Finding, ...]:
    """The findings on a loss that is not a likelihood: rewards or preferences."""
    broken = non_finite(evidence)
    if broken:
        return (broken,)
    pairs = preferences.Pairs(evidence, run.series)
    of_pairs = (rule(pairs) for rule in preferences.RULES if not is_policy(run.series))
    of_rewards = (rule(run.series) for rule in rewards.RULES)
    return tuple(found for found in (*of_pairs, *of_rewards) if found)


def _as_trainers_say(remedy: str) -> str:
    """A remedy without names of the loop file, which another trainer's run does not have."""
    return _OURS.sub("", remedy).replace("loop.metric pass_rate", "accuracy")


def _in_all(finding: Finding, of_sets: Mapping[str, Sequence[Finding]]) -> bool:
    return all(finding in findings for findings in of_sets.values())


def _is_likelihood(
    entries: Sequence[Entry],
    steps: Sequence[StepLog],
    evals: Mapping[str, Sequence[EvalPoint]],
) -> bool:
    """Whether the loss can be a language model's: it is never below 0, and no reward is logged."""
    keys = {key for entry in entries for key in entry}
    rewards = is_ppo(keys) or any("reward" in key for key in keys)
    losses = [step.loss for step in steps]
    losses += [point.eval_loss for points in evals.values() for point in points]
    return not rewards and not any(x < 0 for x in losses)


def _adapter(folder: Path) -> tuple[Adapter | None, tuple[str, ...]]:
    """The adapter beside a state, else that of the newest checkpoint below it, and notes.

    If it can't be read, a note says why, as the curves can be diagnosed without it.
    """
    try:
        found = (read_adapter(place) for place in _places(folder))
        return next((adapter for adapter in found if adapter), None), ()
    except DataError as error:
        return None, (str(error),)


def _places(folder: Path) -> list[Path]:
    """Where a run's model may be: beside its state, or in the newest checkpoint below it."""
    return [folder, *(checkpoint for _, checkpoint in checkpoints(folder)[:1])]


def _saved(folder: Path) -> frozenset[int]:
    """The steps of the checkpoints below a state's folder, or beside it if it is one itself."""
    home = real(folder)
    beside = home.parent if CHECKPOINT.fullmatch(home.name) else home
    return frozenset(step for step, _ in checkpoints(beside))
