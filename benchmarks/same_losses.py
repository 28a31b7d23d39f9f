"""Per-step losses of a loop's iterations beside those of a plain SFTTrainer script.

    python benchmarks/same_losses.py [LOOP_FILE] [--iterations 1 3]

The loop runs as pytest --ftloop runs it (evaluating in between, one base model for all); then each
plain script runs in a process of its own with that iteration's settings, on the loop's data.
Exits 1 when any step's loss differs in any bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.progress import Progress, Silent
from pytest_ftloop.loop.backend import Runner
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart" / "sentiment.ftloop.yaml"


def main() -> int:
    """Run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=QUICKSTART)
    parser.add_argument("--iterations", nargs="+", type=int, default=[1, 3])
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.plain:
        print(json.dumps(plain(read_loop_file(chosen.file), json.loads(chosen.plain))))
        return 0
    config = read_loop_file(chosen.file)
    ours = loop_losses(config, max(chosen.iterations))
    same = True
    for number in chosen.iterations:
        settings, losses = ours[number - 1]
        command = [__file__, str(chosen.file), "--plain", json.dumps(settings)]
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True
        )
        wanted = json.loads(done.stdout.splitlines()[-1])
        same &= wanted == losses
        show(number, settings, losses, wanted)
    return 0 if same else 1


def loop_losses(config: LoopConfig, iterations: int) -> list[tuple[dict[str, Any], list[float]]]:
    """Settings and every step's loss of each iteration of the loop."""
    from pytest_ftloop.train import lora as train

    seen: list[tuple[dict[str, Any], list[float]]] = []

    def recording(inputs: Inputs, config: LoopConfig, progress: Progress) -> Runner:
        run = train.runner(inputs, config, progress)

        def recorded(
            settings: Any, adapter: Path, base_eval_loss: float | None, *, name: str
        ) -> Any:
            done = run(settings, adapter, base_eval_loss, name=name)
            stated = {"lora": dict(settings.lora), "training": dict(settings.training)}
            seen.append((stated, [step.loss for step in done.training.steps]))
            return done

        return recorded

    with tempfile.TemporaryDirectory() as folder:
        options = Options(iterations=iterations, log_folder=Path(folder))
        Loop(config, options, Silent(), runner=recording).run()
    return seen


def plain(config: LoopConfig, settings: dict[str, Any]) -> list[float]:
    """The script people write: nothing of pytest-ftloop but the rows and the embedded model."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from pytest_ftloop.train.tiny import tiny_folder

    rows = [dict(example.row) for example in Inputs.of(config, None).train.examples]
    folder = config.folder / config.model
    model = str(tiny_folder(Silent()) if config.model == "tiny" else folder)
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=out,
                use_cpu=not torch.cuda.is_available(),
                bf16=torch.cuda.is_available(),
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                **settings["training"],
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model),
            peft_config=LoraConfig(**settings["lora"], task_type="CAUSAL_LM"),
        )
        trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def show(number: int, settings: dict[str, Any], ours: list[float], plain_: list[float]) -> None:
    """Some steps side by side, and how many of all are equal to the last bit."""
    rate = settings["training"].get("learning_rate")
    equal = sum(a == b for a, b in zip(ours, plain_, strict=False))
    print(f"\niteration {number}, learning_rate {rate:g}: {equal} of {len(plain_)} steps identical")
    last = len(plain_) - 1
    steps = sorted({0, 1, 2, last // 4, last // 2, 3 * last // 4, last - 1, last})
    rows = [(str(step + 1), repr(ours[step]), repr(plain_[step])) for step in steps]
    heads = ("step", "this loop", "plain script")
    print(tabulate(rows, heads, "plain", stralign="right", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
