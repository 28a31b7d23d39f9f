"""A repository with a long log that nobody trained, for replay.py and diagnosis.py."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checked import CHECK

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
    from collections.abc import Callable, Sequence

TRAIN = 400
JUDGED_EVERY = 10
TAGS = ("billing", "delivery", "negation", "question", "refund", "sarcasm", "short", "typo")
TEXT = """
    order parcel refund courier invoice late cold broken thanks please again never still wrong
    charged twice address change cancel account password reset friendly quick slow missing item
"""
WORDS = TEXT.split()
LOOP = """\
model: hub/some-model@0123456789abcdef
data: {train: data/train.jsonl, eval: data/eval.jsonl}
lora: {r: 8, lora_alpha: 16, target_modules: all-linear}
training: {num_train_epochs: 3, learning_rate: 1.0e-4, per_device_train_batch_size: 8}
gates:
  eval_loss: "<= 0.9"
  pass_rate: ">= 60%"
  regression: {}
loop: {iterations: LIMIT, patience: LIMIT}
"""
ENVIRONMENT = {
    "device": "NVIDIA A10G", "machine": "x86_64", "peft": "0.21.2", "precision": "bf16",
    "python": "3.11.7", "threads": "8", "torch": "2.13.0+cu128", "transformers": "5.23.0",
    "trl": "1.16.0",
}  # fmt: skip


def loop_text(limit: int) -> str:
    """The loop file, for a chain of at most `limit` iterations."""
    return LOOP.replace("LIMIT", str(limit))


def make_repository(root: Path, iterations: int, examples: int) -> None:
    """A loop with its data and log; one more iteration is not committed."""
    add = make_loop(root, iterations, examples, random.Random(0))
    _add_tools(root)
    commit(root)
    add()


def make_many(root: Path, loops: int, iterations: int, examples: int) -> None:
    """Loops with small data and logs, in folders of their own, all committed."""
    for number in range(loops):
        make_loop(root / f"loop-{number:02}", iterations, examples, random.Random(number))
    _add_tools(root)
    commit(root)


def make_loop(
    root: Path, iterations: int, examples: int, rng: random.Random
) -> Callable[[], object]:
    """A loop with its data and log; returns what adds one more iteration to the log."""
    (root / "data").mkdir(parents=True)
    (root / "topic.ftloop.yaml").write_text(loop_text(iterations + 1))
    for role, count in (("train", TRAIN), ("eval", examples)):
        lines = [f"{json.dumps(row(role, number, rng))}\n" for number in range(count)]
        (root / f"data/{role}.jsonl").write_text("".join(lines))
    config = read_loop_file(root / "topic.ftloop.yaml")
    inputs = Inputs.of(config, None)
    log = ImprovementLog(root / "improvement_log/topic")
    runs = Runs(inputs.eval.examples, inputs.train.examples[:256], rng)
    chain: list[Iteration] = []
    for number in range(1, iterations + 1):
        chain.append(
            log.append(iteration(config, inputs, chain, number, runs, number / iterations))
        )
        if number % JUDGED_EVERY == 1 % JUDGED_EVERY:
            judge(log, chain)
        print(f"\r{number} iterations made", end="", file=sys.stderr)
    print(file=sys.stderr)
    return lambda: log.append(
        iteration(config, inputs, chain, iterations + 1, runs, 1.0, is_last=True)
    )


def _add_tools(root: Path) -> None:
    (root / "test_trivial.py").write_text("def test_trivial():\n    pass\n")
    (root / ".gitignore").write_text("__pycache__/\n.cache/\nchecked/\n")
    (root / "checked").mkdir()
    (root / "checked/sitecustomize.py").write_text(CHECK)


def row(role: str, number: int, rng: random.Random) -> dict[str, Any]:
    """A customer's message and the expected answer."""
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
        """The results of a model with this skill."""
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
    config: LoopConfig,
    inputs: Inputs,
    chain: Sequence[Iteration],
    number: int,
    runs: Runs,
    progress: float,
    *,
    is_last: bool = False,
) -> Iteration:
    """The next iteration of the chain, as the loop would have logged it.

    `progress` is the share of all iterations. The skill rises fast at first, then less and less;
    that of the last iteration is a little higher again.
    """
    parent = parent_of_next(chain, config.loop.metric or "eval_loss") if chain else None
    adjustments = chain[-1].decision.next if chain else ()
    settings = config.settings if parent is None else parent.settings.adjusted(adjustments)
    fingerprint = inputs.fingerprint(config, settings)
    evaluation = runs.evaluation(1 - math.exp(-5 * progress) + 0.05 * is_last)
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
        decision=Decision("stop", "iterations", "all iterations done", (following,))
        if is_last
        else Decision("adjust", "adjust", following.because, (following,)),
        environment=ENVIRONMENT,
        cost=Cost(seconds=round(runs.rng.uniform(300, 400), 3), steps=150, tokens=500_000),
        examples=evaluation.examples,
    )  # fmt: skip


def judge(log: ImprovementLog, chain: Sequence[Iteration]) -> None:
    """Log the gate's judgement of the last iteration, over the last one that passed."""
    known = log.view.judgements()
    standing = current_judgements(known)
    new = chain[-1]
    if not standing:
        log.append_judgement(
            Judgement("topic", new.id, None, "gate", "first", True, "nothing before it", ())
        )
        return
    old = next(i for i in chain if i.id == standing[0].candidate)
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), Regression())
    over = tuple(head.name for head in standing) if verdict.ok else ()
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
    """Add and commit the seeds that `ftloop calibrate` trains of the accepted iteration."""
    rng = random.Random(1)
    config = read_loop_file(root / "topic.ftloop.yaml")
    inputs = Inputs.of(config, None)
    log = ImprovementLog(root / "improvement_log/topic")
    standing = current_judgements(log.view.judgements())[0].candidate
    known = next(iteration for iteration in log.read() if iteration.id == standing)
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
    """Commit what is there, in a new repository if there is none."""
    options = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    made = [] if (root / ".git").is_dir() else [["init", "--quiet"]]
    for arguments in (*made, ["add", what], ["commit", "--quiet", "--message", "log"]):
        subprocess.run(["git", *options, *arguments], cwd=root, check=True)
