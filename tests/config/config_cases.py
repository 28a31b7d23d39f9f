"""What the tests of `config` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.from_python import from_python

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.config.loop_config import LoopConfig

    Write = Callable[[str, str | bytes], Path]

DATA = "data: {train: a.jsonl, eval: b.jsonl}\n"  # one line: what follows begins on line 2


FULL = """\
# A comment.
name: feelings
model: gpt2
data:
  train: data/train.jsonl
  eval: {hub: owner/name, split: test, revision: abc}
  id: key
  tags: [label, length]
  keep: answers
  train_sample: 10
lora: {r: 4, target_modules: [c_attn]}
training:
  learning_rate: 2e-4
  num_train_epochs: 1.5
  max_steps: -1
  packing: false
  dataset_text_field: body
scoring: {scorer: loss, threshold: 2}
gates:
  eval_loss: "<= 3.4"
  pass_rate[negation]: ">= 80%"
loop: {iterations: 6, patience: 3, metric: pass_rate, time_budget_s: 60}
"""


# from Python


def python(**settings: Any) -> LoopConfig:
    given = {"name": "t", "train": "a.jsonl", "eval": "b.jsonl", **settings}
    return from_python(folder=Path("f"), source="test_x.py", **given)
