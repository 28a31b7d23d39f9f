"""The figures of a trainer's log by name, and the metrics among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_ftloop.diagnose.any_trainer.found import CHECKPOINT
from pytest_ftloop.diagnose.scores import Better, Score, direction, is_overall, words_of

Series = tuple[tuple[int, float], ...]
"""One figure over a run: (step, value), by step."""

WEIGHTS = (
    *("wer", "cer", "exact", "f1", "iou", "miou", "dice", "map", "bleu", "sacrebleu", "chrf"),
    *("rouge1", "rougel", "accuracy"),
)
"""Which metric decides where several are logged and the trainer states none: the first of these."""

NO_METRICS = frozenset(
    {"loss", "runtime", "second", "perplexity", "ppl", "entropy", "tokens", "time"}
    | {"reward", "rewards"}
)
"""Words of figures that say nothing about answers, or the same as the loss."""


@dataclass(frozen=True)
class Choice:
    """The best checkpoint that the trainer's state names: `best_metric` and where it was reached.

    `key` is the logged figure, as `eval_wer`; "" if no figure at `step` equals the best metric.
    `better` is the direction that the trainer went by, None if the points don't show it.
    """

    key: str
    value: float
    step: int
    better: Better | None


def series_of(entries: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """Every finite number of a log, by name; of several at one step the first."""
    found: dict[str, dict[int, float]] = {}
    for entry in entries:
        for key, value in entry.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                try:
                    number = float(value)
                except OverflowError:
                    continue
                if math.isfinite(number):
                    found.setdefault(key, {}).setdefault(entry["step"], number)
    return {key: tuple(sorted(points.items())) for key, points in found.items() if key != "step"}


def is_policy(logged: Mapping[str, Series]) -> bool:
    """Whether a policy learns from rewards of its own completions: GRPO, RLOO, PPO."""
    return any(
        name in logged or key_starts(logged, start)
        for name, start in (("reward", "completions/"), ("reward_std", "objective/"))
    )


def key_starts(logged: Mapping[str, Series], start: str) -> bool:
    """Whether any figure's name begins so."""
    return any(key.startswith(start) for key in logged)


def choice_of(state: Mapping[str, Any], series: Mapping[str, Series]) -> Choice | None:
    """The best checkpoint that a state names; None if it names none."""
    value, step = state.get("best_metric"), state.get("best_global_step")
    name = CHECKPOINT.search(str(state.get("best_model_checkpoint") or ""))
    if name:
        step = int(name[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or type(step) is not int:
        return None
    if not math.isfinite(value):
        return None
    equal = [key for key, of in series.items() if _is_chosen(key, dict(of).get(step), value)]
    # Several figures can be equal, as micro F1 and accuracy are: one with a known direction.
    key = min(equal, key=lambda of: direction(of) is None, default="")
    values = [of for _, of in series.get(key, ())]
    low, high = min(values, default=value), max(values, default=value)
    better: Better | None = None
    if low < high and value in (low, high):
        better = "lower" if value == low else "higher"
    return Choice(key, float(value), step, better)


def scores_of(
    series: Mapping[str, Series], eval_set: str, others: Iterable[str], choice: Choice | None
) -> tuple[Score, ...]:
    """The metrics of one eval set, the one that decides first.

    That is the one that the trainer chose by, else by `WEIGHTS`. `others` are the names of the
    other eval sets. A metric of unknown direction is left out, and a part's (one class's F1) where
    there is an overall one.
    """
    start = f"eval_{eval_set}_" if eval_set else "eval_"
    apart = tuple(f"eval_{name}_" for name in others if name and name != eval_set)
    rows = rows_of(series, eval_set)
    found = []
    for key, points in series.items():
        name = key.removeprefix(start)
        if name == key or key.startswith(apart) or words_of(name) & NO_METRICS:
            continue
        chosen = choice is not None and choice.key == key
        better = direction(name) or (choice.better if choice and chosen else None)
        if better and name != "mean_token_accuracy":
            found.append((not chosen, not is_overall(name), _weight(name), key, better, points))
    found.sort(key=lambda of: of[:3])
    overall = [of for of in found if not of[1] or not of[0]]
    return tuple(Score(key, better, points, rows) for *_, key, better, points in overall or found)


def rows_of(series: Mapping[str, Series], eval_set: str) -> int:
    """The rows of an eval set: its runtime times its rows per second; 0 if they are not logged."""
    start = f"eval_{eval_set}_" if eval_set else "eval_"
    seconds, rates = (series.get(start + of, ()) for of in ("runtime", "samples_per_second"))
    if not seconds or not rates or seconds[0][0] != rates[0][0]:
        return 0
    rows = seconds[0][1] * rates[0][1]
    return round(rows) if 0 <= rows < 10**12 else 0


def _is_chosen(key: str, at: float | None, value: float) -> bool:
    return key.startswith("eval_") and at is not None and math.isclose(at, value, rel_tol=1e-9)


def _weight(name: str) -> int:
    words = words_of(name)
    return next((n for n, word in enumerate(WEIGHTS) if word in words), len(WEIGHTS))
