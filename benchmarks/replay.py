"""What judging a long log costs: 200 iterations, 2,000 examples, one more that is not committed.

    python benchmarks/replay.py                     # make the repository, time the commands
    python benchmarks/replay.py --python X/bin/python   # as installed in another environment
    python benchmarks/replay.py --keep DIR          # keep the repository there, and use it again

Whole commands in processes of their own; wall time and the processor time of the process and of
git, minimum and median, beside an empty Python program and a plain pytest run. Every command is
checked: it exits 0, and none of the heavy libraries is in sys.modules at its end.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.adjust import parent_of_next
from pytest_ftloop.config.gates import Regression
from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.core.metrics import best_metrics
from pytest_ftloop.core.records import (
    ID_LENGTH,
    Adjustment,
    Cost,
    Decision,
    EvalPoint,
    Evaluation,
    Example,
    ExampleResult,
    Finding,
    Iteration,
    Judgement,
    SeedRun,
    StepLog,
)
from pytest_ftloop.data.identity import scoring_identity
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.judgements import current_judgements
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.inputs import Inputs, data_facts
from pytest_ftloop.loop.seeds import CALIBRATION_SEEDS, with_seed

if TYPE_CHECKING:
    from collections.abc import Sequence

ITERATIONS = 200
EXAMPLES = 2_000
TRAIN = 400
JUDGED_EVERY = 10
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "pandas", "numpy", "scipy")
TAGS = ("billing", "delivery", "negation", "question", "refund", "sarcasm", "short", "typo")
TEXT = """
    order parcel refund courier invoice late cold broken thanks please again never still wrong
    charged twice address change cancel account password reset friendly quick slow missing item
"""
WORDS = TEXT.split()
LOOP = f"""\
model: hub/some-model@0123456789abcdef
data: {{train: data/train.jsonl, eval: data/eval.jsonl}}
lora: {{r: 8, lora_alpha: 16, target_modules: all-linear}}
training: {{num_train_epochs: 3, learning_rate: 1.0e-4, per_device_train_batch_size: 8}}
gates:
  eval_loss: "<= 0.9"
  pass_rate: ">= 60%"
  regression: {{}}
loop: {{iterations: {ITERATIONS + 1}, patience: {ITERATIONS + 1}}}
"""
ENVIRONMENT = {
    "device": "NVIDIA A10G", "machine": "x86_64", "peft": "0.21.2", "precision": "bf16",
    "python": "3.11.7", "threads": "8", "torch": "2.13.0+cu128", "transformers": "5.23.0",
    "trl": "1.16.0",
}  # fmt: skip


def main() -> None:
    """Make the repository, then time each command without and with calibration seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="runs of each command (default: 7)")
    parser.add_argument(
        "--python", default=sys.executable, type=os.path.abspath, help="the interpreter to time"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the repositories here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (chosen.keep or Path(temporary)).absolute()
        plain, seeded = folder / "plain", folder / "seeded"
        if not plain.is_dir():
            make_repository(plain)
            shutil.copytree(plain, seeded)
            add_seed_runs(seeded)
        for title, root in (("one seed", plain), (f"{CALIBRATION_SEEDS} seeds", seeded)):
            print(f"{ITERATIONS} iterations, {EXAMPLES} examples, {title}: s")
            print(f"  {'':34}  wall min  median   cpu min  median")
            for name, command in commands():
                timed(chosen.python, command, root)
                runs = [timed(chosen.python, command, root) for _ in range(chosen.runs)]
                wall, cpu = zip(*runs, strict=True)
                figures = (min(wall), statistics.median(wall), min(cpu), statistics.median(cpu))
                print(f"  {name:34}" + "".join(f"{figure:9.3f}" for figure in figures), flush=True)
            print()


def commands() -> list[tuple[str, list[str]]]:
    """Each command by its name: what follows the interpreter."""
    # Whatever other plugins an environment has is not ours to measure.
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    ftloop = ["-m", "pytest_ftloop"]
    return [
        ("python -c pass", ["-c", "pass"]),
        ("pytest test_trivial.py", [*pytest, "test_trivial.py"]),
        ("pytest --ftloop-replay", [*pytest, "--ftloop-replay", "topic.ftloop.yaml"]),
        ("ftloop gate", [*ftloop, "gate"]),
        ("ftloop diff", [*ftloop, "diff"]),
    ]


def timed(python: str, command: list[str], root: Path) -> tuple[float, float]:
    """Wall and processor seconds of one run."""
    env = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("GIT", "PYTHON"))}
    env |= {
        "FTLOOP_CACHE": str(root / ".cache"),
        "PYTHONPATH": str(root / "checked"),
        # Compiled once, as an installed package is, and nothing is written into its folder.
        "PYTHONPYCACHEPREFIX": str(root / ".cache/compiled"),
    }
    started = time.perf_counter()
    process = subprocess.Popen(
        [python, *command], cwd=root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{said[-3000:]}")
    return wall, used.ru_utime + used.ru_stime


# --- the repository ----------------------------------------------------------------------------


def make_repository(root: Path) -> None:
    """A loop with its data and log, committed but for the last iteration."""
    rng = random.Random(0)
    (root / "data").mkdir(parents=True)
    (root / "topic.ftloop.yaml").write_text(LOOP)
    (root / "test_trivial.py").write_text("def test_trivial():\n    pass\n")
    (root / ".gitignore").write_text("__pycache__/\n.cache/\nchecked/\n")
    for role, count in (("train", TRAIN), ("eval", EXAMPLES)):
        lines = [f"{json.dumps(row(role, number, rng))}\n" for number in range(count)]
        (root / f"data/{role}.jsonl").write_text("".join(lines))
    (root / "checked").mkdir()
    (root / "checked/sitecustomize.py").write_text(CHECK)
    config = read_loop_file(root / "topic.ftloop.yaml")
    inputs = Inputs.of(config, None)
    log = ImprovementLog(root / "improvement_log/topic")
    runs = Runs(inputs.eval.examples, inputs.train.examples[:256], rng)
    chain: list[Iteration] = []
    for number in range(1, ITERATIONS + 2):
        if number == ITERATIONS + 1:
            commit(root)
        chain.append(log.append(iteration(config, inputs, chain, number, runs)))
        if number <= ITERATIONS and number % JUDGED_EVERY == 1 % JUDGED_EVERY:
            judge(log, chain)
        print(f"\r{number} iterations made", end="", file=sys.stderr)
    print(file=sys.stderr)


def row(role: str, number: int, rng: random.Random) -> dict[str, Any]:
    """A customer's message and the answer wanted."""
    message = " ".join(rng.choices(WORDS, k=rng.randint(12, 40)))
    answer = " ".join(rng.choices(WORDS, k=rng.randint(3, 12)))
    tags = rng.sample(TAGS, rng.choice((0, 1, 1, 2)))
    row_ = {"id": f"{role[0]}{number:05d}", "prompt": f"{message}\nanswer:", "tags": tags}
    return row_ | {"completion": f" {answer}"}


class Runs:
    """Made-up results: each example has a difficulty of its own, each run some luck."""

    def __init__(
        self, examples: Sequence[Example], sample: Sequence[Example], rng: random.Random
    ) -> None:
        self.examples, self.sample, self.rng = examples, sample, rng
        self.hard = {e.id: rng.gauss(0, 1) for e in (*examples, *sample)}

    def evaluation(self, skill: float) -> Evaluation:
        """What a model of this skill shows."""
        luck = self.rng.gauss(0, 0.02)
        sample = self._results(self.sample, skill + 0.1 + luck)
        return Evaluation(self._results(self.examples, skill + luck), sample, sample, 5.0)

    def _results(self, examples: Sequence[Example], skill: float) -> tuple[ExampleResult, ...]:
        return tuple(self._result(example, skill) for example in examples)

    def _result(self, example: Example, skill: float) -> ExampleResult:
        expected = (example.expected or "").strip()
        tokens = len(expected.split()) + 2
        margin = skill - self.hard[example.id] + self.rng.gauss(0, 0.3)
        passed = margin > 0
        output = expected if passed else f"{expected.rpartition(' ')[0]} {WORDS[tokens]}"
        loss = tokens * math.exp(-margin / 2)
        correct = tokens if passed else tokens - 1
        return ExampleResult(
            example.id,
            example.content,
            example.tags,
            loss,
            tokens,
            correct,
            passed,
            expected,
            output,
        )


def iteration(
    config: LoopConfig, inputs: Inputs, chain: Sequence[Iteration], number: int, runs: Runs
) -> Iteration:
    """The next iteration of the chain, as the loop would have logged it."""
    parent = parent_of_next(chain, config.loop.metric) if chain else None
    adjustments = chain[-1].decision.next if chain else ()
    settings = config.settings if parent is None else parent.settings.adjusted(adjustments)
    fingerprint = inputs.fingerprint(config, settings)
    # Quick progress, then less and less; the candidate after the last one is a little better.
    evaluation = runs.evaluation(1 - math.exp(-number / 40) + 0.05 * (number > ITERATIONS))
    metrics = best_metrics(evaluation)
    rate = settings.get("training.learning_rate")
    following = Adjustment(
        "training.learning_rate", rate, round(1e-4 + number * 1e-6, 9), "a higher rate may gain"
    )
    steps = tuple(
        StepLog(step, 1 + 3 * math.exp(-step / 30), runs.rng.uniform(0.5, 3), rate)
        for step in range(1, 151)
    )
    points = tuple(
        EvalPoint(50 * n, float(n), metrics["eval_loss"] + 0.1 * (3 - n), 0.8) for n in (1, 2, 3)
    )
    loss = metrics["eval_loss"]
    finding = Finding(
        "plateau",
        "info",
        f"The run converged: in its last quarter the eval loss stayed at {loss:.3f}.",
        {"eval_before": loss + 0.01, "eval_last": loss, "train_last": metrics["train_loss"]},
        "More epochs bring nothing: look at the failing examples, or at the data.",
    )
    last = number > ITERATIONS
    return Iteration(
        loop=config.name,
        number=number,
        id=fingerprint[:ID_LENGTH],
        fingerprint=fingerprint,
        parent=parent.id if parent else None,
        adjustments=adjustments,
        model=inputs.model,
        settings=settings,
        group=inputs.group(config, settings),
        scoring=scoring_identity(config.scoring, config.folder),
        data={"train": data_facts(inputs.train), "eval": data_facts(inputs.eval)},
        metrics=metrics,
        final={name: metrics[name] for name in ("eval_loss", "train_loss", "overfit_gap")},
        base={"eval_loss": evaluation.base_eval_loss},
        facts={
            "steps": 150, "planned_steps": 150, "best_step": 150, "steps_per_epoch": 50,
            "trainable_parameters": 1_000_000, "labelled_tokens": 4_000, "vocabulary": 50_257,
            "dropped_examples": 0, "ended_early": "", "recoveries": [],
        },
        steps=steps,
        evals=points,
        findings=(finding, replace(finding, kind="failing-tag")),
        failing=tuple(sorted(r.id for r in evaluation.examples if not r.passed)),
        decision=Decision("stop", "iterations", "201 of 201 iterations done", (following,))
        if last
        else Decision("adjust", "adjust", following.because, (following,)),
        environment=ENVIRONMENT,
        cost=Cost(seconds=round(runs.rng.uniform(300, 400), 3), steps=150, tokens=500_000),
        examples=evaluation.examples,
    )  # fmt: skip


def judge(log: ImprovementLog, chain: Sequence[Iteration]) -> None:
    """The gate's judgement of the last iteration. It replaces the last one that passed."""
    current = current_judgements(log.view.judgements())
    new = chain[-1]
    if not current:
        log.append_judgement(
            Judgement("topic", new.id, None, "gate", "first", True, "nothing before it", ())
        )
        return
    old = next(i for i in chain if i.id == current[0].candidate)
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), Regression())
    over = tuple(judgement.name for judgement in current) if verdict.ok else ()
    log.append_judgement(
        Judgement(
            "topic",
            new.id,
            old.id,
            "gate",
            verdict.kind,
            verdict.ok,
            verdict.because,
            over,
            verdict.as_record(),
        )
    )


def add_seed_runs(root: Path) -> None:
    """`ftloop calibrate` of the accepted iteration, committed."""
    rng = random.Random(1)
    config = read_loop_file(root / "topic.ftloop.yaml")
    inputs = Inputs.of(config, None)
    log = ImprovementLog(root / "improvement_log/topic")
    accepted = current_judgements(log.view.judgements())[0].candidate
    known = next(iteration for iteration in log.read() if iteration.id == accepted)
    runs = Runs(inputs.eval.examples, inputs.train.examples[:256], rng)
    for seed in range(known.seed + 1, known.seed + CALIBRATION_SEEDS):
        evaluation = runs.evaluation(1)
        log.append_seed_run(
            SeedRun(
                loop=known.loop,
                iteration=known.id,
                seed=seed,
                role="calibration",
                fingerprint=inputs.fingerprint(config, with_seed(known.settings, seed)),
                group=known.group,
                scoring=known.scoring,
                data=known.data,
                metrics=best_metrics(evaluation),
                environment=known.environment,
                cost=known.cost,
                examples=evaluation.examples,
            )
        )
    commit(root, "improvement_log/topic/seeds")


def commit(root: Path, what: str = ".") -> None:
    """Commit it; the repository is made where there is none."""
    options = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    made = [] if (root / ".git").is_dir() else [["init", "--quiet"]]
    for arguments in (*made, ["add", what], ["commit", "--quiet", "--message", "log"]):
        subprocess.run(["git", *options, *arguments], cwd=root, check=True)


CHECK = f"""\
import atexit, os, sys

def check():
    found = [name for name in {HEAVY!r} if name in sys.modules]
    if found:
        print("imported:", *found, flush=True)
        os._exit(70)

atexit.register(check)
"""
"""A `sitecustomize` of the timed processes: a heavy library may come only at the end."""


if __name__ == "__main__":
    main()
