"""What a trainer's run does not show, and why: the notes under its diagnosis."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pytest_ftloop.diagnose.windows import FIRST_STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pytest_ftloop.core.records import EvalPoint, StepLog
    from pytest_ftloop.diagnose.any_trainer.adapter_file import Adapter

FEW_LOSSES = 12
"""Number of train losses below which most rules on them are silent: then a note says so."""


def pad_is_end(path: Path) -> list[str]:
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


def emptiness(adapter: Adapter | None) -> list[str]:
    """A note if the adapter was saved without its tensors."""
    if adapter is None or adapter.parameters:
        return []
    return [
        "the adapter was saved empty, as some versions do under DeepSpeed ZeRO-3: its file has "
        "nothing to load"
    ]


def notes_of(
    steps: Sequence[StepLog], evals: Mapping[str, Sequence[EvalPoint]], likelihood: bool
) -> list[str]:
    """What is missing in the log: figures, evaluations, its start."""
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
