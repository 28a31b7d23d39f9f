"""What it gives to project labelled positions alone, in evaluation and in a training step.

    python benchmarks/labelled.py [--model FOLDER] [--pairs 20]

On the quickstart's rows, with the embedded base or a model in a folder. The two sides take turns;
the ratio is taken pair by pair, of CPU seconds, which other programs disturb less. The training
step is a forward and a backward pass of trl's loss. Differences are of each example's loss, the
step's loss and its gradients. Exits 1 if one is more than rounding.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.evaluate.labelled import UNLABELLED, labelled_alone
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import load_base
from pytest_ftloop.train.prepare import Prepared, build_trainer, evaluator_of
from pytest_ftloop.train.quiet import quiet
from pytest_ftloop.train.tiny import tiny_folder

FILE = Path(__file__).parent.parent / "examples" / "quickstart" / "sentiment.ftloop.yaml"
CLOSE = 1e-4
"""The largest difference that counts as rounding: of an example's summed loss, in nats."""


def main() -> int:
    """Measure both, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model's folder (default: the embedded base)")
    parser.add_argument("--pairs", type=int, default=20)
    chosen = parser.parse_args()
    config = read_loop_file(FILE)
    inputs = Inputs.of(config, None)
    task = inputs.task(config)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        base = load_base(chosen.model or str(tiny_folder(Silent())), {}, None)
        args = sft_config(config.settings, folder, task.locate)
        with base.lent() as loan:
            trainer = build_trainer(loan, args, config.settings, task)
            rows = Prepared.of(trainer, task).eval
            evaluator = evaluator_of(trainer, config.settings)
            batch = next(iter(trainer.get_train_dataloader()))

            def losses() -> torch.Tensor:
                results = evaluator.losses(rows, inputs.eval.examples, Silent())
                return torch.tensor([result.loss for result in results])

            shares = [label != UNLABELLED for row in rows for label in row.labels]
            share = f"{sum(shares) / len(shares):.0%} labelled"
            apart = compared("evaluation", share, losses, trainer.model, chosen.pairs)
            share = f"{(batch['labels'] != UNLABELLED).float().mean().item():.0%} labelled"
            trainer.model.train()
            step = Step(trainer, batch)
            apart = max(apart, compared("training step", share, step, trainer.model, chosen.pairs))
    return 0 if apart <= CLOSE else 1


class Step:
    """A forward and a backward pass without dropout: the loss and all gradients."""

    def __init__(self, trainer: Any, batch: Any) -> None:
        self.trainer, self.batch = trainer, batch
        self.weights = [p for p in trainer.model.parameters() if p.requires_grad]
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0

    def __call__(self) -> torch.Tensor:
        for weight in self.weights:
            weight.grad = None
        loss = self.trainer.compute_loss(self.trainer.model, dict(self.batch))
        loss.backward()
        return torch.cat([loss.detach()[None], *(w.grad.flatten() for w in self.weights)])


def compared(
    name: str, share: str, run: Callable[[], torch.Tensor], model: Any, pairs: int
) -> float:
    """Time a call with every position and with labelled ones, print it, return the difference."""
    seconds: tuple[list[float], list[float]] = ([], [])
    apart = 0.0
    for turn in range(pairs + 1):
        found = {}
        for side in (turn % 2, 1 - turn % 2):  # the second finds warmer caches
            # Ours switched off in the evaluator, so that the side alone decides.
            off = mock.patch("pytest_ftloop.evaluate.evaluator.labelled_alone", ours_off)
            with off, labelled_alone(model) if side else contextlib.nullcontext():
                started = time.process_time()
                found[side] = run()
                spent = time.process_time() - started
            if turn:  # the first is a warm-up
                seconds[side].append(spent)
        apart = max(apart, (found[0] - found[1]).abs().max().item())
    ratios = [every / labelled for every, labelled in zip(*seconds, strict=True)]
    every, labelled = map(statistics.median, seconds)
    print(
        f"{name}, {share}: every position {every:.3f} s, labelled {labelled:.3f} s, ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"largest difference {apart:.0e}",
        flush=True,
    )
    return apart


def ours_off(_model: Any) -> contextlib.AbstractContextManager[None]:
    """In place of `labelled_alone`."""
    return contextlib.nullcontext()


if __name__ == "__main__":
    sys.exit(main())
