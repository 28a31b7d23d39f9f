"""`make bench`: what the tool costs, each figure beside the alternative, in one run.

1. evaluation: figures per example, against `trainer.evaluate()`, on one model, rows and batch size;
2. loop: four iterations, by one process and by two workers, against four plain scripts in turn,
   which train as many steps and also evaluate;
3. pytest: a plain run of one trivial test, with and without the plugin;
4. up-to-date: `pytest --ftloop` on the quickstart's committed log, against that trivial test.

The two sides of a pair take turns, and the ratio is taken pair by pair: machines are noisy.
Medians are printed with the range. Needs the embedded base model (built on first use). The runs of
3 and 4 fail when they import torch or another heavy library.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from checked import CHECK
from tabulate import tabulate

from pytest_ftloop.log import ImprovementLog

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "examples" / "quickstart"

RATES = (5e-4, 2e-3, 4e-3, 8e-3)
"""Learning rates of the four runs; nothing else differs between them."""

LOOP = """\
model: tiny
data: {{train: {data}/train.jsonl, eval: {data}/eval.jsonl}}
lora: {{r: 8, lora_alpha: 16, target_modules: all-linear}}
training: {{learning_rate: {first}, max_steps: {steps}, per_device_train_batch_size: 8,
  activation_checkpointing: false, eval_strategy: "no"}}
loop: {{iterations: 4, patience: 9, policy: {policy}}}
gates: {{pass_rate: ">= 99%"}}
"""


def main() -> None:
    """Run the comparisons and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    comparisons = {"evaluation": 10, "loop": 3, "pytest": 20, "up-to-date": 10}  # pairs
    parser.add_argument("what", nargs="*", help=f"of {', '.join(comparisons)} (default: all)")
    parser.add_argument("--pairs", type=int, help="pairs of each comparison")
    parser.add_argument("--steps", type=int, default=60, help="of each training (default: 60)")
    chosen = parser.parse_args()
    if unknown := set(chosen.what) - set(comparisons):
        parser.error(f"wanted some of {', '.join(comparisons)}, found {', '.join(unknown)}")
    for name in chosen.what or comparisons:
        pairs = chosen.pairs or comparisons[name]
        if name == "loop":
            loop(pairs, chosen.steps)
        else:
            {"evaluation": evaluation, "pytest": plain_pytest, "up-to-date": up_to_date}[name](
                pairs
            )


def evaluation(pairs: int) -> None:
    """Our pass gives figures per example; the trainer's gives one mean of batch means."""
    out = _python([str(HERE / "evaluation.py"), str(pairs)])
    ours, theirs = json.loads(out.splitlines()[-1])
    _print("evaluation of 120 examples, s", "per example", ours, "trainer.evaluate()", theirs)


def loop(pairs: int, steps: int) -> None:
    """Four iterations by one process and by two workers, against four plain scripts in turn."""
    sides: dict[str, list[float]] = {"one process": [], "loop.parallel: 2": []}
    theirs = []
    for _ in range(pairs):
        for parallel, (_name, ours) in enumerate(sides.items(), start=1):
            with tempfile.TemporaryDirectory() as made:
                ours.append(_seconds(partial(_loop, Path(made), steps, parallel)))
        with tempfile.TemporaryDirectory() as made:
            theirs.append(_seconds(partial(_scripts, Path(made), steps)))
    for name, ours in sides.items():
        title = f"four trainings of {steps} steps, s"
        _print(title, f"one loop, {name}", ours, "four plain scripts", theirs)


def _loop(folder: Path, steps: int, parallel: int) -> None:
    """Run the loop, and check that it trained as many steps as the four scripts."""
    file = folder / "bench.ftloop.yaml"
    policy = json.dumps([{"training.learning_rate": rate} for rate in RATES[1:]])
    data = QUICKSTART / "data"
    file.write_text(LOOP.format(data=data, first=RATES[0], steps=steps, policy=policy))
    # Hypothesis is here for our own tests, and takes a second of any pytest run.
    without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    how = ("-q", *without, "--ftloop", "--ftloop-parallel", str(parallel))
    _python(["-m", "pytest", *how, str(file)], folder, {0, 1})
    iterations = ImprovementLog(folder / "improvement_log" / "bench").read()
    trained = [(i.settings.get("training.learning_rate"), i.cost.steps) for i in iterations]
    assert trained == [(rate, steps) for rate in RATES], trained


def _scripts(folder: Path, steps: int) -> None:
    """Run the plain script at each rate; it fails where it does not train that many steps."""
    for rate in RATES:
        script = [str(HERE / "plain_script.py"), str(QUICKSTART / "data"), str(steps), str(rate)]
        _python(script, folder)


def plain_pytest(pairs: int) -> None:
    """A plain pytest run of one trivial test, with the plugin and without it."""
    with tempfile.TemporaryDirectory() as made:
        folder = _trivial(Path(made))
        base = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_trivial.py"]
        ours, theirs = _in_turns(
            pairs,
            lambda: _python(base, folder),
            lambda: _python([*base, "-p", "no:ftloop"], folder),
        )
    _print("plain pytest, s", "with the plugin", ours, "-p no:ftloop", theirs)
    more = [1000 * (one - other) for one, other in zip(ours, theirs, strict=True)]
    print(f"  the plugin costs {statistics.median(more):.1f} ms (median of {len(more)} pairs)\n")


def up_to_date(pairs: int) -> None:
    """`pytest --ftloop` where nothing is to be trained, against a plain run of one trivial test."""
    with tempfile.TemporaryDirectory() as made:
        folder = _trivial(Path(made))
        shutil.copytree(QUICKSTART, folder / "quickstart")
        base = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
        ours, theirs = _in_turns(
            pairs,
            lambda: _python([*base, "--ftloop", "quickstart"], folder),
            lambda: _python([*base, "test_trivial.py"], folder),
        )
    _print("an up-to-date loop, s", "pytest --ftloop", ours, "a trivial test", theirs)


def _trivial(folder: Path) -> Path:
    """The folder, with a trivial test and what looks for heavy imports."""
    (folder / "test_trivial.py").write_text("def test_trivial():\n    pass\n")
    (folder / "checked").mkdir()
    (folder / "checked" / "sitecustomize.py").write_text(CHECK)
    return folder


def _in_turns(
    pairs: int, ours: Callable[[], object], theirs: Callable[[], object]
) -> tuple[list[float], list[float]]:
    """The seconds of each, after one run of both that warms the caches up."""
    ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        # Which goes first is drawn: the second finds warmer caches.
        order = [(times[0], ours), (times[1], theirs)]
        random.shuffle(order)
        for of_side, run in order:
            of_side.append(_seconds(run))
    return times


def _print(title: str, one: str, ones: list[float], other: str, others: list[float]) -> None:
    ratios = [a / b for a, b in zip(ones, others, strict=True)]
    rows = [
        (name, statistics.median(times), f"({min(times):.3f} to {max(times):.3f})")
        for name, times in ((one, ones), (other, others), ("ratio", ratios))
    ]
    print(f"{title}\n{tabulate(rows, tablefmt='plain', floatfmt='.3f')}\n", flush=True)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _python(command: list[str], folder: Path | None = None, fine: set[int] | None = None) -> str:
    """What a Python process printed that ended with one of the exit codes `fine` (default: 0)."""
    env = {name: value for name, value in os.environ.items() if name != "CI"}
    if folder is not None:
        env["PYTHONPATH"] = str(folder / "checked")
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
        check=False,
    )
    if done.returncode not in (fine or {0}):
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
