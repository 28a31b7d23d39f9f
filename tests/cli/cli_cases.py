"""What the tests of `cli` share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Capture = pytest.CaptureFixture[str]


Write = Callable[[str, str | bytes], Path]


LOOP = """\
data: {train: train.jsonl, eval: eval.jsonl}
gates: {eval_loss: "<= 1.0", pass_rate: ">= 50%"}
loop: {iterations: 2}
"""


TRAIN = '{"id": "t1", "prompt": "is it?", "completion": " yes"}\n'


EVAL = '{"id": "e1", "prompt": "is it so?", "completion": " yes"}\n'
