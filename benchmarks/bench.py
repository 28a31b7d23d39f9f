"""`make bench`: what the tool costs, each figure beside the alternative, in one run.

1. per-example evaluation against `trainer.evaluate()`, same model, rows and batch size;
2. a loop of four iterations against four separate plain scripts that also evaluate;
3. a plain pytest run of one trivial test, with and without the plugin.

The two sides of a pair take turns, and the ratio is taken pair by pair: machines are noisy.
Medians are printed with the range. Needs the embedded base model (built on first use).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "examples" / "quickstart"

LOOP = """\
model: tiny
data: {{train: {data}/train.jsonl, eval: {data}/eval.jsonl}}
lora: {{r: 8, lora_alpha: 16, target_modules: all-linear}}
training: {{learning_rate: 5.0e-4, max_steps: {steps}, per_device_train_batch_size: 8,
  activation_checkpointing: false, eval_strategy: "no"}}
loop: {{iterations: 4, patience: 9}}
gates: {{pass_rate: ">= 99%"}}
"""


def main() -> None:
    """Run the three comparisons and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["evaluation", "loop", "pytest"])
    parser.add_argument("--pairs", type=int, help="pairs of each comparison")
    chosen = parser.parse_args()
    for name in chosen.what:
        {"evaluation": evaluation, "loop": loop, "pytest": plain_pytest}[name](chosen.pairs)


def evaluation(pairs: int | None) -> None:
    """Our pass gives per-example figures; the trainer's gives one mean of batch means."""
    out = _python([str(HERE / "evaluation.py"), str(pairs or 10)])
    ours, theirs = json.loads(out.splitlines()[-1])
    _print("evaluation of 120 examples, s", "per example", ours, "trainer.evaluate()", theirs)


def loop(pairs: int | None, steps: int = 60) -> None:
    """Four iterations in one process, against a process each for four plain scripts."""
    ours, theirs = [], []
    for _ in range(pairs or 3):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "bench.ftloop.yaml"
            file.write_text(LOOP.format(data=QUICKSTART / "data", steps=steps))
            command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--ftloop", str(file)]
            env = {**os.environ}
            env.pop("CI", None)
            ours.append(_seconds(command, env=env, fine={0, 1}, cwd=folder))
            records = list(Path(folder).rglob("*.yaml"))
            assert len(records) == 5, records  # the loop file and four iterations
        script = [str(HERE / "plain_script.py"), str(QUICKSTART / "data"), str(steps)]
        theirs.append(sum(_seconds([*script, rate]) for rate in ("5e-4", "2e-3", "4e-3", "8e-3")))
    _print(f"four runs of {steps} steps, s", "one loop", ours, "four plain scripts", theirs)


def plain_pytest(pairs: int | None) -> None:
    """A plain pytest run of one trivial test, with the plugin and without it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_trivial.py").write_text("def test_trivial():\n    pass\n")
        base = ["-m", "pytest", "-q", "-p", "no:cacheprovider", folder]
        without = [*base, "-p", "no:ftloop"]
        _python(base), _python(without)
        ours, theirs = [], []
        for _ in range(pairs or 20):
            # Which goes first is drawn: the second finds warmer caches.
            order = [(ours, base), (theirs, without)]
            random.shuffle(order)
            for times, command in order:
                times.append(_seconds(command))
    _print("plain pytest, s", "with the plugin", ours, "-p no:ftloop", theirs)
    more = [1000 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    print(f"  the plugin costs {statistics.median(more):.1f} ms (median of {len(more)} pairs)\n")


def _print(title: str, one: str, ones: list[float], other: str, others: list[float]) -> None:
    ratios = [a / b for a, b in zip(ones, others, strict=True)]
    rows = [
        (name, statistics.median(times), f"({min(times):.3f} to {max(times):.3f})")
        for name, times in ((one, ones), (other, others), ("ratio", ratios))
    ]
    print(f"{title}\n{tabulate(rows, tablefmt='plain', floatfmt='.3f')}\n", flush=True)


def _seconds(command: list[str], **how: Any) -> float:
    started = time.perf_counter()
    _python(command, **how)
    return time.perf_counter() - started


def _python(
    command: list[str],
    *,
    env: dict[str, str] | None = None,
    fine: frozenset[int] | set[int] = frozenset({0}),
    cwd: str | None = None,
) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=env, cwd=cwd, check=False
    )
    if done.returncode not in fine:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
