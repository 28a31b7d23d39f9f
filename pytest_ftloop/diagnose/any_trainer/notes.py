"""What a trainer's run does not show, and why: the notes under its diagnosis."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from pytest_ftloop.core.bounds import read_bytes, read_json
from pytest_ftloop.diagnose.any_trainer.series import is_policy
from pytest_ftloop.diagnose.windows import FIRST_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_ftloop.core.records import EvalPoint, Finding, StepLog
    from pytest_ftloop.diagnose.any_trainer.adapter_file import Adapter
    from pytest_ftloop.diagnose.any_trainer.series import Series

FEW_LOSSES = 12
"""Number of train losses below which most rules on them are silent: then a note says so."""

APART = 3.0
"""Times the train loss, from its first entries on, from which on a single eval loss is named: no
model is that much better on rows that it has not seen yet."""

UNSEEN = "nothing was evaluated, so overfitting can't be seen (set eval_strategy)"

_UNLIKE = "the loss is not a language model's (it is below 0, or rewards or preferences are logged)"


def pad_is_end(path: Path) -> list[str]:
    """A note if the tokenizer beside a state pads with its end token."""
    try:
        config = read_json(read_bytes(path))
    except (OSError, ValueError):
        return []
    tokens = [config.get(k) for k in ("pad_token", "eos_token")] if isinstance(config, dict) else []
    pad, end = [t.get("content") if isinstance(t, dict) else t for t in tokens] or (None, None)
    if not isinstance(pad, str) or pad != end:
        return []
    return [
        f"the tokenizer pads with its end token {pad[:40]}: if the collator masks padding by that "
        "token, as DataCollatorForLanguageModeling does, the model never learns to stop"
    ]


def emptiness(adapter: Adapter | None) -> list[str]:
    """A note if the adapter was saved without its tensors."""
    if adapter is None or adapter.parameters:
        return []
    return [
        "the adapter was saved empty, as some versions do under DeepSpeed ZeRO-3: its file has "
        "nothing to load"
    ]


def notes_of(
    steps: Sequence[StepLog],
    evals: Mapping[str, Sequence[EvalPoint]],
    series: Mapping[str, Series],
    *,
    likelihood: bool,
) -> list[str]:
    """What is missing in the log: figures, evaluations, its start."""
    notes = []
    if any(step.loss == 0 and math.isnan(step.grad_norm or 0.0) for step in steps):
        notes.append(
            "a train loss of 0 beside a gradient norm of NaN is a NaN that the trainer's filter "
            "hid (logging_nan_inf_filter=False shows it)"
        )
    if not likelihood:
        notes.append(_what_is_judged(series))
    if len(steps) < FEW_LOSSES and not (is_policy(series) and not steps):
        logged = "no train loss is" if not steps else f"only {len(steps)} train losses are"
        if len(steps) == 1:
            logged = "only 1 train loss is"
        notes.append(f"{logged} logged: most rules need {FEW_LOSSES} (set logging_steps=1)")
    if not evals and not is_policy(series):
        notes.append(UNSEEN)
    if not is_policy(series):
        once = (_evaluated_once(name, points, steps) for name, points in evals.items())
        notes += [note for note in once if note]
    starts = [s.step for s in steps[:1]] + [points[0].step for points in evals.values()]
    first = min(starts, default=0)
    if likelihood and first > FIRST_STEPS:
        notes.append(
            f"the log begins at step {first}, so what was learned before can't be seen (set "
            "logging_steps=10 and eval_on_start)"
        )
    return notes


def still_true(notes: Sequence[str], findings: Sequence[Finding]) -> tuple[str, ...]:
    """The notes, without those that a finding contradicts."""
    seen = any(finding.kind in ("memorising", "memorised-preferences") for finding in findings)
    return tuple(note for note in notes if not (seen and note == UNSEEN))


def _what_is_judged(series: Mapping[str, Series]) -> str:
    if is_policy(series):
        checked = "the spread of rewards, each reward function, clipping"
        rest = "whether the rewards are right, and the distance to the reference (kl)"
    elif any(key.endswith(("rewards/margins", "margin", "rewards/chosen")) for key in series):
        checked = "margins, ranking accuracy, the eval loss"
        rest = "the likelihood of the answers"
    else:
        return f"{_UNLIKE}: only NaN and infinity were checked"
    return f"{_UNLIKE}: NaN and infinity, {checked} were checked; {rest} can't be seen"


def _evaluated_once(name: str, points: Sequence[EvalPoint], steps: Sequence[StepLog]) -> str | None:
    """A note that one evaluation does not show overfitting, with how it compares with the train."""
    after = [point for point in points if point.step > 0]
    if len(points) != 1 or not after or not math.isfinite(after[0].eval_loss):
        return None
    of = f" of the eval set {name[:40]}" if name else ""
    note = f"there is one evaluation{of} only, so overfitting can't be told (set eval_strategy)"
    losses = [step.loss for step in steps if step.step <= after[0].step and step.loss > 0]
    if len(losses) < 3 or not all(map(math.isfinite, losses)):
        return note
    first, last, loss = fmean(losses[:3]), fmean(losses[-3:]), after[0].eval_loss
    if loss > APART * first and loss > APART * last:
        note += (
            f"; its loss of {loss:.3g} is {loss / fmean(losses):.0f} times the train loss, which "
            f"began there ({first:.3g}) and ended at {last:.3g}: the run may have gone on from a "
            "model trained on these rows"
        )
    return note
