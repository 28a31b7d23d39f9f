"""The entries of a trainer's log: checked, in the order of the steps, as losses and evaluations."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.records import EvalPoint, StepLog
from pytest_ftloop.diagnose.any_trainer.found import count, number, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_EVAL_LOSS = re.compile(r"eval_(?:(.+)_)?loss")
_ACCURACIES = ("mean_token_accuracy", "accuracy")
_FIGURES = ("loss", "grad_norm", "learning_rate", "epoch", "train_runtime")

Entry = dict[str, Any]

OBJECTIVES = ("objective/", "eval_objective/")
"""How the names of the figures begin that PPO and trl's online trainers log."""


def read_entry(item: object, name: str, path: Path) -> Entry:
    """One entry of the log, with the figures that are used checked and converted to float."""
    if not isinstance(item, dict):
        raise wrong(path, name, "an object", item)
    entry: Entry = dict(item)
    for key in _figures_in(item):
        if item[key] is None:
            del entry[key]
        else:
            entry[key] = number(item[key], f"{name}.{key}", path)
    if not math.isfinite(entry.get("epoch", 0.0)):
        del entry["epoch"]
    if _is_kept(entry):
        entry["step"] = count(item, "step", path, f"{name}.step")
    return entry


def _is_kept(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is of the training or of an evaluation, which may have no loss.

    PPO logs no loss but objectives; a trainer that only generates logs metrics and a runtime.
    """
    keys = entry.keys()
    return "loss" in keys or "eval_runtime" in keys or bool(eval_names(entry)) or is_ppo(keys)


def is_ppo(keys: Iterable[str]) -> bool:
    """Whether the names are those of trl's PPO and online trainers."""
    return any(key.startswith(OBJECTIVES) for key in keys)


def _figures_in(item: Mapping[str, Any]) -> list[str]:
    """The keys that are used. The other ones may hold anything a trainer or its user logs."""
    sets = eval_names(item)
    read = [eval_key(of, what) for of in (*sets, "") for what in ("loss", *_ACCURACIES)]
    return [key for key in dict.fromkeys((*_FIGURES, *read)) if key in item]


def as_it_went_on(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of the training and of evaluations, by step.

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
        if _is_kept(entry):
            kept.append(entry)
    return sorted(kept, key=lambda entry: entry["step"])


def train_steps(entries: Sequence[Entry]) -> tuple[StepLog, ...]:
    """The logged train losses, each the mean over the steps since the last entry."""
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


def eval_points(entries: Sequence[Entry]) -> dict[str, tuple[EvalPoint, ...]]:
    """The evaluation points per eval set.

    The first one at a step counts. A later one is of other weights (load_best_model_at_end), or of
    another set that was passed to `evaluate`.
    """
    sets: dict[str, dict[int, EvalPoint]] = {}
    for entry in entries:
        for name in eval_names(entry):
            point = EvalPoint(
                step=entry["step"],
                epoch=entry.get("epoch", 0.0),
                eval_loss=entry[eval_key(name, "loss")],
                token_accuracy=_accuracy(entry, name),
            )
            sets.setdefault(name, {}).setdefault(entry["step"], point)
    return {name: tuple(points.values()) for name, points in sets.items()}


def eval_names(entry: Mapping[str, Any]) -> list[str]:
    """The names of the eval sets that an entry is about; "" for a single set.

    A user's own metric may end in `loss` too, but only an eval set has a runtime.
    """
    found = [match for key in entry if (match := _EVAL_LOSS.fullmatch(key))]
    names = [match[1] or "" for match in found]
    if "" in names:
        return [""]
    return [name for name in names if eval_key(name, "runtime") in entry]


def eval_key(name: str, what: str) -> str:
    """The name of a figure of an eval set: `eval_loss`, `eval_far_loss`."""
    return f"eval_{name}_{what}" if name else f"eval_{what}"


def _accuracy(entry: Entry, name: str) -> float:
    """The token accuracy, which trl logs under one name for all eval sets; else any accuracy.

    NaN if it is missing, or not between 0 and 1.
    """
    keys = [eval_key(of, what) for of in (name, "") for what in _ACCURACIES]
    found: float = next((entry[key] for key in keys if key in entry), math.nan)
    return found if 0 <= found <= 1 else math.nan
