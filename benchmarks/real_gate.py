"""Real A/A: the quickstart trained with many seeds and judged pairwise by the real command.

python benchmarks/real_gate.py [--runs DIR] [--quick] [--train-only] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_ftloop.cache import cache_folder
from pytest_ftloop.config import LoopConfig, read_loop_file
from pytest_ftloop.loop import Loop, Options
from pytest_ftloop.records import Iteration, Settings
from pytest_ftloop.seeds import with_seed

QUICKSTART = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
NAME = "sentiment"
ACCEPTED = {"learning_rate": 3e-3, "num_train_epochs": 6}
"""What `ftloop accept 3` writes into the quickstart's file."""
DRAWN = 20240601
"""The seed of the planted faults: one data set a fault, whatever the training's seed."""

Rows = list[dict[str, Any]]


def main() -> int:
    """Train what is not there yet, judge all pairs, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, help="folder of the runs, to go on from")
    parser.add_argument("--quick", action="store_true", help="three seeds of each")
    parser.add_argument("--train-only", action="store_true", help="judge nothing yet")
    parser.add_argument("--markdown", type=Path, help="write the tables between its marks")
    chosen = parser.parse_args()
    folder = (chosen.runs or cache_folder() / "real-gate").absolute()
    plan = Plan(3, 3, 2) if chosen.quick else Plan()
    train(plan, folder)
    return 0


@dataclass(frozen=True)
class Plan:
    """How many seeds: of the unchanged settings, of each fault, and of those as baselines."""

    unchanged: int = 20
    faulty: int = 9
    baselines: int = 6

    def seeds(self, variant: Variant) -> range:
        """The training seeds of a variant."""
        if variant is UNCHANGED:
            return range(1, self.unchanged + 1)
        return range(101, 101 + self.faulty)


# --- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """The quickstart with its accepted settings, and perhaps a fault in its settings or train set.

    `rows` makes the train set from the quickstart's.
    """

    name: str
    shown: str
    training: dict[str, Any] = field(default_factory=dict)
    rows: Callable[[Rows], Rows] = list

    def write(self, folder: Path) -> LoopConfig:
        """Write the loop file and its data, and read it."""
        (folder / "data").mkdir(parents=True, exist_ok=True)
        lines = (QUICKSTART / "data" / "train.jsonl").read_text("utf-8").splitlines()
        rows = self.rows([json.loads(line) for line in lines])
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / "train.jsonl").write_text(text, "utf-8")
        shutil_copy = (QUICKSTART / "data" / "eval.jsonl").read_bytes()
        (folder / "data" / "eval.jsonl").write_bytes(shutil_copy)
        settings = read_loop_file(QUICKSTART / f"{NAME}.ftloop.yaml").settings
        training = {**settings.training, **ACCEPTED, **self.training}
        file = folder / f"{NAME}.ftloop.yaml"
        file.write_text(loop_text(replace(settings, training=training)), "utf-8")
        return read_loop_file(file)


def loop_text(settings: Settings) -> str:
    """A loop file with these settings; only the regression gate judges it."""
    return (
        "model: tiny\n"
        "data: {train: data/train.jsonl, eval: data/eval.jsonl}\n"
        f"lora: {json.dumps(dict(settings.lora))}\n"
        f"training: {json.dumps(dict(settings.training))}\n"
        "scoring: {scorer: exact}\n"
        "gates: {regression: {}}\n"
        "loop: {iterations: 1}\n"
    )


def flipped(share: float) -> Callable[[Rows], Rows]:
    """A share of the rows gets the other label."""

    def rows(all_rows: Rows) -> Rows:
        chosen = set(
            random.Random(DRAWN).sample(range(len(all_rows)), round(share * len(all_rows)))
        )
        other = {" positive": " negative", " negative": " positive"}
        return [
            {**row, "completion": other[row["completion"]]} if i in chosen else row
            for i, row in enumerate(all_rows)
        ]

    return rows


def half(all_rows: Rows) -> Rows:
    """Every other row, by chance."""
    kept = random.Random(DRAWN).sample(range(len(all_rows)), len(all_rows) // 2)
    return [all_rows[i] for i in sorted(kept)]


UNCHANGED = Variant("unchanged", "nothing changed")
FAULTS = (
    Variant("flipped-10", "10% of the train labels wrong", rows=flipped(0.10)),
    Variant("flipped-25", "25% of the train labels wrong", rows=flipped(0.25)),
    Variant("half", "half of the train set gone", rows=half),
    Variant("slow", "learning rate x 0.1", {"learning_rate": ACCEPTED["learning_rate"] / 10}),
)


def train(plan: Plan, folder: Path) -> dict[str, dict[int, Iteration]]:
    """The trained iterations by variant and seed; those in the folder are not trained again."""
    configs = {v.name: v.write(folder / v.name) for v in VARIANTS}
    runs = [(variant, seed) for variant in VARIANTS for seed in plan.seeds(variant)]
    trained: dict[str, dict[int, Iteration]] = {}
    seconds: list[float] = []
    for done, (variant, seed) in enumerate(runs):
        started = time.perf_counter()
        config = configs[variant.name]
        config = replace(config, settings=with_seed(config.settings, seed))
        log_folder = folder / variant.name / f"seed-{seed}"
        result = Loop(config, Options(explore=False, log_folder=log_folder)).run()
        trained.setdefault(variant.name, {})[seed] = result.best
        if result.trained:
            seconds.append(time.perf_counter() - started)
            left = (len(runs) - done - 1) * sum(seconds) / len(seconds)
            loss, rate = result.best.metrics["eval_loss"], result.best.metrics["pass_rate"]
            told(
                f"{variant.name} seed {seed}: loss {loss:.4f}, pass rate {rate:.1%}, "
                f"{seconds[-1]:.0f} s; {done + 1} of {len(runs)}, about {left / 60:.0f} min left"
            )
    return trained


VARIANTS = (UNCHANGED, *FAULTS)


def told(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
