"""Time our evaluation and the trainer's in turns on one model; print both lists of seconds as JSON.

python benchmarks/evaluation.py PAIRS
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import load_base
from pytest_ftloop.train.prepare import Prepared, build_trainer
from pytest_ftloop.train.quiet import quiet
from pytest_ftloop.train.tiny import tiny_folder

PAIRS = int(sys.argv[1])
FILE = Path(__file__).parent.parent / "examples" / "quickstart" / "sentiment.ftloop.yaml"

config = read_loop_file(FILE)
inputs = Inputs.of(config, None)
task = inputs.task(config)
with quiet(), tempfile.TemporaryDirectory() as folder:
    base = load_base(str(tiny_folder(Silent())), {}, None)
    args = sft_config(config.settings, folder, task.locate)
    with base.lent() as loan:
        trainer = build_trainer(loan, args, config.settings, task)
        rows = Prepared.of(trainer, task).eval
        evaluator = Evaluator(
            trainer.model,
            trainer.processing_class,
            args.per_device_eval_batch_size,
            trainer.accelerator.autocast,
        )
        prepared = trainer.eval_dataset["eval"]
        ours, theirs = [], []
        for turn in range(PAIRS + 1):
            started = time.perf_counter()
            evaluator.losses(rows, inputs.eval.examples, Silent())
            middle = time.perf_counter()
            # The trainer's own loop over rows already prepared: preparation is on neither side.
            trainer.evaluation_loop(trainer.get_eval_dataloader(prepared), "eval", True)
            ended = time.perf_counter()
            if turn:  # the first is a warm-up
                ours.append(middle - started)
                theirs.append(ended - middle)
print(json.dumps([ours, theirs]))
