"""`make bench-parallel`: trainings by two worker processes, against the same in turn.

1. seeds: `ftloop calibrate` of an iteration in the log, until it has 1 + 5 runs;
2. list: `ftloop run` of a loop whose list has five entries after its own settings;
3. rules: `ftloop run` of a loop whose rules have five iterations from a rate that is too low;
4. loops: two loop files, by `pytest -n 2` against `pytest`;
5. stall: two `ftloop run` of two folders at once, each with torch's default threads (the others
   have one thread each, by OMP_NUM_THREADS), against one after the other;
6. together: two loop files of one iteration each, by one `ftloop run`.

Each side is a process, as a user starts it, so that imports and starting workers count. The sides
take turns. The two logs must be equal but for the cost.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tabulate import tabulate
from tasks import sentiment

SEEDS = 6
RATES = (1e-3, 2e-3, 3e-3, 4e-3, 6e-3)
UNLIKE = re.compile(r"^(cost|environment):.*\n(  .*\n)*", re.MULTILINE)
"""What may differ in two records of one training. So the hash in their names does, too."""


def main() -> None:
    """Run the comparisons and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="any of the six (default: all)")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of each (default: 3)")
    parser.add_argument("--steps", type=int, default=400, help="of each training (default: 400)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="runs to calibrate with")
    chosen = parser.parse_args()
    sides = {
        "seeds": seeds,
        "list": entries,
        "rules": rules,
        "loops": loops,
        "stall": stall,
        "together": together,
    }
    if unknown := set(chosen.what) - set(sides):
        parser.error(f"wanted some of {', '.join(sides)}, found {', '.join(unknown)}")
    table = []
    for name in chosen.what or sides:
        for _ in range(chosen.pairs):
            one, log = sides[name](chosen, at_once=False)
            two, other = sides[name](chosen, at_once=True)
            assert log == other, f"{name}: the logs differ"
            table.append((name, f"{one:.1f}", f"{two:.1f}", two / one))
    print(tabulate(table, ("what", "in turn, s", "two at once, s", "ratio"), floatfmt=".2f"))
    for name in dict.fromkeys(row[0] for row in table):
        ratios = [row[3] for row in table if row[0] == name]
        print(f"{name}: ratio {statistics.median(ratios):.2f} (median of {len(ratios)})")


def seeds(chosen: argparse.Namespace, *, at_once: bool) -> tuple[float, dict[str, str]]:
    """Calibrate a loop whose iteration is in the log."""
    with _Folder(chosen.steps) as folder:
        folder.write("x", "{iterations: 1}")
        folder.run("-m", "pytest_ftloop", "run", "-q")
        parallel = "2" if at_once else "1"
        command = ("calibrate", "--seeds", str(chosen.seeds), "--parallel", parallel)
        return folder.run("-m", "pytest_ftloop", *command), folder.log()


def entries(chosen: argparse.Namespace, *, at_once: bool) -> tuple[float, dict[str, str]]:
    """Run a loop with a list of settings."""
    with _Folder(chosen.steps) as folder:
        listed = ", ".join(f"{{training.learning_rate: {rate}}}" for rate in RATES)
        folder.write("x", f"{{policy: [{listed}]}}")
        parallel = "2" if at_once else "1"
        took = folder.run("-m", "pytest_ftloop", "run", "-q", "--parallel", parallel)
        return took, folder.log()


def rules(chosen: argparse.Namespace, *, at_once: bool) -> tuple[float, dict[str, str]]:
    """Run a loop whose next settings depend on results, so that workers can only guess them."""
    with _Folder(chosen.steps) as folder:
        folder.write("x", "{iterations: 5, patience: 9}")
        parallel = "2" if at_once else "1"
        took = folder.run("-m", "pytest_ftloop", "run", "-q", "--parallel", parallel)
        return took, folder.log()


def loops(chosen: argparse.Namespace, *, at_once: bool) -> tuple[float, dict[str, str]]:
    """Run two loops in a pytest run."""
    with _Folder(chosen.steps) as folder:
        for name in ("x", "y"):
            folder.write(name, "{iterations: 1}")
        more = ("-n", "2") if at_once else ()
        return folder.run("-m", "pytest", "-q", "--ftloop", *more), folder.log()


def stall(chosen: argparse.Namespace, *, at_once: bool) -> tuple[float, dict[str, str]]:
    """Run two loops that know nothing of each other."""
    command = ("-m", "pytest_ftloop", "run", "-q")
    with _Folder(chosen.steps) as one, _Folder(chosen.steps) as two:
        for folder in (one, two):
            folder.write("x", "{iterations: 1}")
        started = time.perf_counter()
        with ThreadPoolExecutor(2 if at_once else 1) as pool:
            list(pool.map(lambda folder: folder.run(*command, threads=None), (one, two)))
        return time.perf_counter() - started, {**one.log(), "two": str(two.log())}


def together(chosen: argparse.Namespace, *, at_once: bool) -> tuple[float, dict[str, str]]:
    """Run two loops, which train different adapters, in one process."""
    with _Folder(chosen.steps) as folder:
        for name, rate in (("x", 5e-4), ("y", 1e-3)):
            folder.write(name, "{iterations: 1}", rate)
        parallel = "2" if at_once else "1"
        took = folder.run("-m", "pytest_ftloop", "run", "-q", "--parallel", parallel)
        return took, folder.log()


class _Folder:
    """A folder with loops and a cache of its own, which is warm."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __enter__(self) -> _Folder:
        self.root = Path(tempfile.mkdtemp(prefix="ftloop-bench-"))
        task = sentiment(eval_=60)
        for role, rows in (("train", task.train), ("eval", task.eval)):
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            (self.root / f"{role}.jsonl").write_text(text, encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root)

    def write(self, name: str, loop: str, rate: float = 5e-4) -> None:
        (self.root / f"{name}.ftloop.yaml").write_text(
            f"model: tiny\n"
            f"data: {{train: train.jsonl, eval: eval.jsonl}}\n"
            f"lora: {{r: 8, lora_alpha: 16}}\n"
            f"training: {{learning_rate: {rate}, max_steps: {self._steps}, "
            f"per_device_train_batch_size: 8}}\n"
            f"scoring: {{scorer: loss, threshold: 1.0}}\n"
            f"loop: {loop}\n",
            encoding="utf-8",
        )

    def run(self, *command: str, threads: int | None = 1) -> float:
        """Run Python here, with so many threads or torch's default; the seconds that it took."""
        left_out = {"CI", "OMP_NUM_THREADS"}
        env = {name: value for name, value in os.environ.items() if name not in left_out}
        if threads is not None:
            env["OMP_NUM_THREADS"] = str(threads)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - started
        assert done.returncode == 0, done.stdout + done.stderr
        return took

    def log(self) -> dict[str, str]:
        """The logs without what may differ."""
        log = self.root / "improvement_log"
        return {
            re.sub(r"-[0-9a-f]{4}(?=\.)", "", path.relative_to(log).as_posix()): UNLIKE.sub(
                "", path.read_text(encoding="utf-8")
            )
            for path in sorted(log.rglob("*"))
            if path.is_file()
        }


if __name__ == "__main__":
    main()
