"""Per-step losses of a loop's iterations beside those of a plain SFTTrainer script.

    python benchmarks/same_losses.py [LOOP_FILE] [--iterations 3]

The loop runs as pytest --ftloop runs it (evaluating in between, one base model for all). Then, for
its first and its last iteration, a plain script runs in a process of its own, with the iteration's
settings and the loop's data. Exits 1 when any step's loss differs in any bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.progress import Progress, Silent
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Run, Settings

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart" / "sentiment.ftloop.yaml"


def main() -> int:
    """Run both sides and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=QUICKSTART)
    parser.add_argument("--iterations", type=int, default=3, help="at most (default: 3)")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    config = read_loop_file(chosen.file)
    if chosen.plain:
        print(json.dumps(plain(config, json.loads(chosen.plain))))
        return 0
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        options = Options(iterations=chosen.iterations, log_folder=Path(folder), retrain=True)
        Loop(config, options, backend=recorder).run()
    trained = list(enumerate(recorder.trained, 1))
    same = True
    for number, ours in trained[:1] + trained[1:][-1:]:
        losses = in_a_process(chosen.file, ours.settings)
        # A run that the loop ends early has fewer steps; those that it has must be the same.
        wanted = losses[: len(ours.losses)] if ours.ended_early else losses
        same &= wanted == ours.losses
        show(number, ours, wanted)
    return 0 if same else 1


@dataclass(frozen=True)
class Trained:
    """One run of the loop: the stated settings, and the loss of each step in nats per token."""

    settings: dict[str, dict[str, Any]]
    losses: list[float]
    ended_early: str


@dataclass
class Recorder:
    """Makes this machine's backend, and keeps what each of its runs showed."""

    trained: list[Trained] = field(default_factory=list)

    def __call__(self, config: LoopConfig, inputs: Inputs, progress: Progress) -> LocalBackend:
        trained = self.trained

        class Recorded(LocalBackend):
            def train(self, settings: Settings, **how: Any) -> Run:
                run = super().train(settings, **how)
                stated = {"lora": dict(settings.lora), "training": dict(settings.training)}
                losses = [step.loss for step in run.training.steps]
                trained.append(Trained(stated, losses, run.training.ended_early))
                return run

        return Recorded(config, inputs, progress)


def in_a_process(file: Path, settings: dict[str, Any]) -> list[float]:
    """The losses of the plain script, run in a process of its own."""
    command = [sys.executable, __file__, str(file), "--plain", json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the plain script failed:\n{done.stderr[-3000:]}")
    losses: list[float] = json.loads(done.stdout.splitlines()[-1])
    return losses


def plain(config: LoopConfig, settings: dict[str, Any]) -> list[float]:
    """The script people write: nothing of pytest-ftloop but the rows and the embedded model."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from pytest_ftloop.train.tiny import tiny_folder

    rows = [json.dumps(dict(example.row)) for example in Inputs.of(config, None).train.examples]
    folder = config.folder / config.model
    name = str(tiny_folder(Silent())) if config.model == "tiny" else config.model
    model = str(folder) if folder.is_dir() else name
    device = {"use_cpu": not torch.cuda.is_available(), "bf16": torch.cuda.is_available()}
    with tempfile.TemporaryDirectory() as out:
        file = Path(out, "train.jsonl")
        file.write_text("\n".join(rows), encoding="utf-8")
        watched = {
            "output_dir": out,
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            "report_to": "none",
        }
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(**{**device, **settings["training"], **watched}),
            train_dataset=load_dataset("json", data_files=str(file), split="train", cache_dir=out),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(**settings["lora"], task_type="CAUSAL_LM"),
        )
        trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def show(number: int, ours: Trained, wanted: list[float]) -> None:
    """Some steps side by side, and how many of all are equal to the last bit."""
    rate = ours.settings["training"].get("learning_rate")
    equal = sum(a == b for a, b in zip(ours.losses, wanted, strict=False))
    print(f"\niteration {number}, learning_rate {rate}: {equal} of {len(wanted)} steps identical")
    if ours.ended_early:
        print(f"the loop ended it early: {ours.ended_early}")
    last = min(len(wanted), len(ours.losses)) - 1
    steps = sorted(
        {0, 1, 2, last // 4, last // 2, 3 * last // 4, last - 1, last} & {*range(last + 1)}
    )
    rows = [(str(step + 1), repr(ours.losses[step]), repr(wanted[step])) for step in steps]
    heads = ("step", "this loop", "plain script")
    print(tabulate(rows, heads, "plain", stralign="right", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
