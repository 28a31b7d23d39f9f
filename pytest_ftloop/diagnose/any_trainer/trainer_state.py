"""Read what any Hugging Face trainer logged: from `trainer_state.json` to the diagnosis's evidence.

It is read as text, without torch. `training_args.bin` beside it is a pickle and is never loaded.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeGuard

from pytest_ftloop.core.errors import DataError, Location, shown_path
from pytest_ftloop.core.records import EvalPoint, Finding, StepLog
from pytest_ftloop.core.runs import LARGEST
from pytest_ftloop.diagnose import Evidence, by_severity, diagnose
from pytest_ftloop.diagnose.any_trainer.adapter_file import Adapter, read_adapter
from pytest_ftloop.diagnose.broken import non_finite
from pytest_ftloop.diagnose.windows import FIRST_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

STATE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d{1,15})")

MOST_STEPS = 10**15
"""Maximum number of steps that is accepted: a larger one is damage, and as a float loses digits."""

FEW_LOSSES = 12
"""Number of train losses below which most rules on them are silent: then a note says so."""

_EVAL_LOSS = re.compile(r"eval_(?:(.+)_)?loss")
_ACCURACIES = ("mean_token_accuracy", "accuracy")
_OBJECTIVES = ("objective/", "eval_objective/")
_FIGURES = ("loss", "grad_norm", "learning_rate", "epoch", "train_runtime")
_OURS = re.compile(r"\b(?:lora|training)\.(?=[a-z])")
_CURE = "Name a trainer_state.json, a checkpoint, or the trainer's output_dir."

Entry = dict[str, Any]


@dataclass(frozen=True)
class TrainerRun:
    """One run as its trainer logged it.

    `source` is the file. `step` of `planned_steps` steps were taken, in `epochs` epochs; `seconds`
    is None before the end. `steps` are the logged train losses, each the mean over the steps since
    the last entry. `evals` are the evaluation points per eval set; a single set is named "".
    `likelihood` is False if the loss is not a language model's but that of a reward or preference,
    which the rules don't fit. `notes` state what could not be checked, and why.
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
            vocabulary=0,
            adapter_moved=self.adapter is None or self.adapter.moved is not False,
            metrics=self._figures(best),
            final=self._figures(points[-1] if points else None),
        )

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
    return by_severity(found)


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


def states_in(folder: Path) -> Iterator[Path]:
    """The states of a folder and of its checkpoints, newest first; of equal ones its own first."""
    own = folder / STATE
    at_own = _steps_of(own) if own.is_file() else -1
    for step, checkpoint in _checkpoints(folder):
        if step <= at_own:
            yield own
            at_own = -1
        if (state := checkpoint / STATE).is_file():
            yield state
    if at_own >= 0:
        yield own


def read_state(path: Path) -> TrainerRun:
    """Read a run from its state and the adapter beside it. DataError if the state can't be used."""
    state = _load(path)
    history = state.get("log_history")
    if not isinstance(history, list):
        raise _wrong(path, "log_history", "a list", history)
    entries = [_entry(item, f"log_history[{n}]", path) for n, item in enumerate(history)]
    logged = _as_it_went_on(entries)
    steps, evals = _steps(logged), _evals(logged)
    if not steps and not evals:
        what = "holds neither a loss nor an eval loss" if history else "is empty"
        raise DataError(
            f"log_history {what}: nothing to diagnose",
            where=Location(shown_path(path)),
            cure="Train with logging_steps=1 and an eval_strategy, and save a checkpoint.",
        )
    # If the state has no number of steps, the log's last entry counts.
    step = max(_stated(state, "global_step"), *(entry["step"] for entry in logged))
    likelihood = _is_likelihood(entries, steps, evals)
    adapter, damage = _adapter(path.parent)
    pad_is_end = _pad_is_end(path.parent / "tokenizer_config.json")
    seconds = [entry["train_runtime"] for entry in entries if "train_runtime" in entry]
    return TrainerRun(
        source=shown_path(path),
        step=step,
        planned_steps=max(_stated(state, "max_steps"), step),
        epochs=max(entry.get("epoch", 0.0) for entry in entries),
        seconds=seconds[-1] if seconds else None,
        steps=steps,
        evals=evals,
        likelihood=likelihood,
        adapter=adapter,
        notes=(*_notes(steps, evals, likelihood), *pad_is_end, *damage, *_emptiness(adapter)),
    )


def _found(run: TrainerRun, eval_set: str) -> tuple[Finding, ...]:
    evidence = run.evidence(eval_set)
    broken = None if run.likelihood else non_finite(evidence)
    found = diagnose(evidence) if run.likelihood else (broken,) if broken else ()
    return tuple(replace(of, remedy=_as_trainers_say(of.remedy)) for of in found)


def _as_trainers_say(remedy: str) -> str:
    """A remedy without names of the loop file, which another trainer's run does not have."""
    return _OURS.sub("", remedy).replace("loop.metric pass_rate", "accuracy")


def _in_all(finding: Finding, of_sets: Mapping[str, Sequence[Finding]]) -> bool:
    return all(finding in findings for findings in of_sets.values())


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder, newest first, with their steps."""
    try:
        names = [child.name for child in folder.iterdir()]
    except OSError as error:
        raise DataError(
            f"can't be read: {error.strerror}", where=Location(shown_path(folder)), cure=_CURE
        ) from None
    found = [(int(match[1]), name) for name in names if (match := CHECKPOINT.fullmatch(name))]
    return [(step, folder / name) for step, name in sorted(found, reverse=True)]


def _load(path: Path) -> dict[str, Any]:
    where = Location(shown_path(path))
    try:
        # -sig: some editors add a byte order mark.
        state = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(f"can't be read: {why}", where=where, cure=_CURE) from None
    except json.JSONDecodeError as error:
        at = Location(shown_path(path), error.lineno)
        what = f"wanted JSON, found invalid or incomplete text: {error.msg}"
        cure = f"{_CURE} If the file is truncated, name an older one."
        raise DataError(what, where=at, cure=cure) from None
    except UnicodeDecodeError:
        what = "wanted JSON, found text that is not UTF-8"
        raise DataError(what, where=where, cure=_CURE) from None
    except (ValueError, RecursionError) as error:
        what = f"wanted a trainer's state, found JSON that can't be read: {error}"
        raise DataError(what, where=where, cure=_CURE) from None
    if not isinstance(state, dict) or "log_history" not in state:
        found = "none" if isinstance(state, dict) else _kind(state)
        raise DataError(
            f"wanted a trainer's state with log_history, found {found}", where=where, cure=_CURE
        )
    return state


def _entry(item: object, name: str, path: Path) -> Entry:
    """One entry of the log, with the figures that are used checked and converted to float."""
    if not isinstance(item, dict):
        raise _wrong(path, name, "an object", item)
    entry: Entry = dict(item)
    for key in _figures_in(item):
        if item[key] is None:
            del entry[key]
        else:
            entry[key] = _number(item[key], f"{name}.{key}", path)
    if not math.isfinite(entry.get("epoch", 0.0)):
        del entry["epoch"]
    if "loss" in entry or _eval_names(entry):
        entry["step"] = _count(item, "step", path, f"{name}.step")
    return entry


def _figures_in(item: Mapping[str, Any]) -> list[str]:
    """The keys that are used. The other ones may hold anything a trainer or its user logs."""
    sets = _eval_names(item)
    read = [_eval_key(of, what) for of in (*sets, "") for what in ("loss", *_ACCURACIES)]
    return [key for key in dict.fromkeys((*_FIGURES, *read)) if key in item]


def _number(value: object, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(path, name, "a number", value)
    if isinstance(value, float) and math.isnan(value):
        return value
    if abs(value) < LARGEST:
        return float(value)
    return math.inf if value > 0 else -math.inf


def _count(of: Mapping[str, Any], key: str, path: Path, name: str) -> int:
    value = of.get(key)
    if not _is_count(value):
        raise _wrong(path, name, "a number of steps", value)
    return int(value)


def _stated(state: Mapping[str, Any], key: str) -> int:
    """A number of steps; 0 if none is stated (-1 means none): then the log's last step counts."""
    value = state.get(key)
    return int(value) if _is_count(value) else 0


def _is_count(value: object) -> TypeGuard[int | float]:
    is_whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    return is_whole and 0 <= value <= MOST_STEPS  # type: ignore[operator]


def _steps_of(path: Path) -> int:
    """The steps that a state states as taken. A damaged one counts as newest, to be reported."""
    try:
        return _stated(_load(path), "global_step")
    except DataError:
        return MOST_STEPS


def _wrong(path: Path, name: str, wanted: str, found: object) -> DataError:
    return DataError(
        f"{name}: wanted {wanted}, found {_kind(found)}",
        where=Location(shown_path(path)),
        cure=_CURE,
    )


def _kind(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return ascii(value)[:60]


def _as_it_went_on(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with a loss, by step.

    If training was resumed from an earlier step, the entries from there on replace the older ones.
    """
    kept: list[Entry] = []
    for entry in entries:
        if "loss" in entry:
            # A train loss at an earlier step than the last: the run was resumed there.
            while kept and kept[-1]["step"] > entry["step"]:
                kept.pop()
            before = len(kept)
            while before and kept[before - 1]["step"] == entry["step"]:
                before -= 1
            if any("loss" in old for old in kept[before:]):
                del kept[before:]
        if "loss" in entry or _eval_names(entry):
            kept.append(entry)
    return sorted(kept, key=lambda entry: entry["step"])


def _steps(entries: Sequence[Entry]) -> tuple[StepLog, ...]:
    by_step = {
        entry["step"]: StepLog(
            step=entry["step"],
            loss=entry["loss"],
            grad_norm=entry.get("grad_norm"),
            learning_rate=entry.get("learning_rate", math.nan),
        )
        for entry in entries
        if "loss" in entry
    }
    return tuple(by_step.values())


def _evals(entries: Sequence[Entry]) -> dict[str, tuple[EvalPoint, ...]]:
    """The evaluation points per eval set.

    The first one at a step counts. A later one is of other weights (load_best_model_at_end), or of
    another set that was passed to `evaluate`.
    """
    sets: dict[str, dict[int, EvalPoint]] = {}
    for entry in entries:
        for name in _eval_names(entry):
            point = EvalPoint(
                step=entry["step"],
                epoch=entry.get("epoch", 0.0),
                eval_loss=entry[_eval_key(name, "loss")],
                token_accuracy=_accuracy(entry, name),
            )
            sets.setdefault(name, {}).setdefault(entry["step"], point)
    return {name: tuple(points.values()) for name, points in sets.items()}


def _eval_names(entry: Mapping[str, Any]) -> list[str]:
    """The names of the eval sets that an entry is about; "" for a single set.

    A user's own metric may end in `loss` too, but only an eval set has a runtime.
    """
    found = [match for key in entry if (match := _EVAL_LOSS.fullmatch(key))]
    names = [match[1] or "" for match in found]
    if "" in names:
        return [""]
    return [name for name in names if _eval_key(name, "runtime") in entry]


def _eval_key(name: str, what: str) -> str:
    return f"eval_{name}_{what}" if name else f"eval_{what}"


def _accuracy(entry: Entry, name: str) -> float:
    """The token accuracy, which trl logs under one name for all eval sets; else any accuracy.

    NaN if it is missing, or not between 0 and 1.
    """
    keys = [_eval_key(of, what) for of in (name, "") for what in _ACCURACIES]
    found: float = next((entry[key] for key in keys if key in entry), math.nan)
    return found if 0 <= found <= 1 else math.nan


def _is_likelihood(
    entries: Sequence[Entry],
    steps: Sequence[StepLog],
    evals: Mapping[str, Sequence[EvalPoint]],
) -> bool:
    """Whether the loss can be a language model's: it is never below 0, and no reward is logged."""
    keys = {key for entry in entries for key in entry}
    rewards = any("reward" in key or key.startswith(_OBJECTIVES) for key in keys)
    losses = [step.loss for step in steps]
    losses += [point.eval_loss for points in evals.values() for point in points]
    return not rewards and not any(x < 0 for x in losses)


def _adapter(folder: Path) -> tuple[Adapter | None, tuple[str, ...]]:
    """The adapter beside a state, else that of the newest checkpoint below it, and notes.

    If it can't be read, a note says why, as the curves can be diagnosed without it.
    """
    newest = [checkpoint for _, checkpoint in _checkpoints(folder)[:1]]
    try:
        found = (read_adapter(place) for place in (folder, *newest))
        return next((adapter for adapter in found if adapter), None), ()
    except DataError as error:
        return None, (str(error),)


def _pad_is_end(path: Path) -> list[str]:
    """A note if the tokenizer beside a state pads with its end token."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    tokens = [config.get(k) for k in ("pad_token", "eos_token")] if isinstance(config, dict) else []
    pad, end = [t.get("content") if isinstance(t, dict) else t for t in tokens] or (None, None)
    if not isinstance(pad, str) or pad != end:
        return []
    return [
        f"the tokenizer pads with its end token {pad[:40]}: if the collator masks padding by that "
        "token, as DataCollatorForLanguageModeling does, the model never learns to stop"
    ]


def _emptiness(adapter: Adapter | None) -> list[str]:
    if adapter is None or adapter.parameters:
        return []
    return [
        "the adapter was saved empty, as some versions do under DeepSpeed ZeRO-3: its file has "
        "nothing to load"
    ]


def _notes(
    steps: Sequence[StepLog], evals: Mapping[str, Sequence[EvalPoint]], likelihood: bool
) -> list[str]:
    notes = []
    if any(step.loss == 0 and math.isnan(step.grad_norm or 0.0) for step in steps):
        notes.append(
            "a train loss of 0 beside a gradient norm of NaN is a NaN that the trainer's filter "
            "hid (logging_nan_inf_filter=False shows it)"
        )
    if not likelihood:
        notes.append(
            "the loss is not a language model's (it is below 0, or rewards are logged): only NaN "
            "and infinity were checked"
        )
    if len(steps) < FEW_LOSSES:
        logged = "no train loss is" if not steps else f"only {len(steps)} train losses are"
        if len(steps) == 1:
            logged = "only 1 train loss is"
        notes.append(f"{logged} logged: most rules need {FEW_LOSSES} (set logging_steps=1)")
    if not evals:
        notes.append("nothing was evaluated, so overfitting can't be seen (set eval_strategy)")
    first = min([s.step for s in steps[:1]] + [points[0].step for points in evals.values()])
    if likelihood and first > FIRST_STEPS:
        notes.append(
            f"the log begins at step {first}, so what was learned before can't be seen (set "
            "logging_steps=10 and eval_on_start)"
        )
    return notes
