"""`make bench-faults`: is the right finding named where a fault is planted, and no error elsewhere?

Each fault is made as a user would make it: in the rows, the settings, the template or the machine.
A tiny base model is then really trained on it by the product's own loop. The right finding should
be among the first two of the last iteration. Of healthy runs, with varied tasks, seeds and
settings, none should have an error. Each kind's first variant is the one to choose thresholds by,
so the share is told without these too.

    python benchmarks/faults.py [--kept DIR] [--only KIND ...] [--verbose]

Trainings are kept in a folder: a second run only diagnoses them again.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import pickle
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import slices
import tasks

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.files import replacing, write_atomically
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import (
    DataSet,
    ExampleResult,
    Finding,
    HoldoutUse,
    Iteration,
    Settings,
)
from pytest_ftloop.loop.inputs import Inputs, data_facts
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.report.markdown import markdown_table

Row = dict[str, Any]
Rows = tuple[Row, ...]


def topic(seed: int) -> tasks.Task:
    """What a few words are about; some keywords tell it."""
    rows = tuple(slices.rows_of("topic", 620, random.Random(f"topic-{seed}")))
    rows = tuple({name: row[name] for name in ("prompt", "completion")} for row in rows)
    return tasks.Task("topic", "tiny", rows[:240], rows[240:320], rows[320:])


def apart(task: tasks.Task) -> tasks.Task:
    """The same without eval rows that differ from a train row in the opener alone."""

    def told(row: Row) -> str:
        return str(row["prompt"]).partition(phrase_of(row))[2] + phrase_of(row)

    known = {told(row) for row in task.train}
    rest = [row for row in (*task.eval, *task.holdout) if told(row) not in known]
    return replace(task, eval=tuple(rest[: len(task.eval)]), holdout=tuple(rest[len(task.eval) :]))


TASKS: dict[str, Callable[[int], tasks.Task]] = {
    "topic": topic,
    "routing": lambda seed: apart(tasks.routing(160, 80, seed, noise=0.0)),
    "hotel": lambda seed: tasks.hotel(160, 80, seed, noise=0.0),
}
NATURAL: dict[str, Callable[[int], tasks.Task]] = {
    "sentiment": lambda seed: tasks.sentiment(480, 80, seed)
}
"""Messages that people wrote: learned in more steps than the others."""

LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
TRAINING = {
    "learning_rate": 5e-3,
    "num_train_epochs": 6,
    "per_device_train_batch_size": 8,
    "activation_checkpointing": False,
}
FIRST = 2
"""Findings of a run that are read: the right one should be among them."""


@dataclass(frozen=True)
class Case:
    """A loop, and the finding that it should lead to (empty: it is healthy).

    `model` is the embedded one, or one of `MODELS`; `machine` names what is wrong with the machine
    or the libraries, one of `MACHINES`. `policy` are the changes that a user's list makes for later
    iterations. `also` are findings that are as right: which one is true of the run, chance decides.
    `before` are loops that are run first, into the same log; with a `holdout` it is
    opened for each of these.
    """

    planted: str
    what: str
    train: Rows
    eval: Rows
    lora: Mapping[str, Any] = field(default_factory=lambda: LORA)
    training: Mapping[str, Any] = field(default_factory=lambda: TRAINING)
    gates: Mapping[str, Any] = field(default_factory=dict)
    model: str = "tiny"
    machine: str = ""
    also: tuple[str, ...] = ()
    policy: tuple[Mapping[str, Any], ...] = ()
    before: tuple[Case, ...] = ()
    holdout: Rows = ()

    def but(self, **changes: Any) -> Case:
        """The same with other settings: names of `LORA` and its like go there."""
        of_lora = {"r", "lora_alpha", "lora_dropout", "target_modules"}
        lora = {name: value for name, value in changes.items() if name in of_lora}
        training = {name: value for name, value in changes.items() if name not in of_lora}
        return replace(self, lora={**self.lora, **lora}, training={**self.training, **training})


# --- faults --------------------------------------------------------------------------------------


def of(planted: str, what: str, task: str, seed: int, rows: int | None = None) -> Case:
    """A task with usual settings, in which nothing is wrong yet."""
    made = {**TASKS, **NATURAL}[task](seed)
    train, eval_ = numbered("t", made.train[:rows]), numbered("e", made.eval)
    case = Case(planted, f"{task}: {what}", train, eval_).but(seed=42 + seed)
    if task in NATURAL and rows is None:
        case = case.but(per_device_train_batch_size=16, num_train_epochs=12)
    return case


def numbered(letter: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """The rows with ids."""
    return tuple({"id": f"{letter}{n:03}", **row} for n, row in enumerate(rows))


def faults(first: int) -> Iterator[Case]:
    """Every planted fault, with data and trainings drawn from this seed on."""
    yield from of_curves(first)
    yield from of_chains(first)
    yield from of_wiring(first)
    yield from of_data(first)
    yield from of_examples(first)


def of_curves(first: int) -> Iterator[Case]:
    """Settings that spoil one run."""
    kind = "non-finite"
    yield of(kind, "plain SGD, no clipping", "hotel", first).but(
        optim="sgd", learning_rate=1e3, max_grad_norm=0.0
    )
    yield of(kind, "learning rate 1e6", "topic", first + 1).but(learning_rate=1e6)
    yield replace(of(kind, "a broken weight in the base", "routing", first + 2), model="broken")
    # What far too high a rate leads to is chance: each of these names it.
    kind = "diverged"
    too_high = ("non-finite", "oscillation")
    late = {"warmup_steps": 0.2, "lr_scheduler_type": "constant_with_warmup"}
    momentum = {"optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0}
    for case in (
        of(kind, "learning rate 0.3 after warmup", "hotel", first).but(learning_rate=0.3, **late),
        of(kind, "learning rate 0.3", "routing", first + 1).but(learning_rate=0.3),
        of(kind, "learning rate 0.3, rank 32", "topic", first + 2).but(
            learning_rate=0.3, r=32, lora_alpha=64
        ),
        of(kind, "learning rate 0.1, batch 2", "topic", first + 3).but(
            learning_rate=0.1, per_device_train_batch_size=2, num_train_epochs=3, **late
        ),
        of(kind, "SGD, learning rate 1, no clipping", "hotel", first + 4).but(
            learning_rate=1.0, **momentum
        ),
    ):
        yield replace(case, also=too_high)
    kind = "oscillation"
    for seed, (task, rate, batch) in enumerate(
        (("routing", 0.1, 8), ("topic", 0.1, 8), ("hotel", 0.08, 4)), first
    ):
        case = of(kind, f"learning rate {rate}, batch {batch}", task, seed)
        case = case.but(learning_rate=rate, per_device_train_batch_size=batch)
        yield replace(case, also=("diverged",))
    kind = "not-learning"
    yield of(kind, "learning rate 2e-5, trl's default", "hotel", first).but(learning_rate=2e-5)
    yield of(kind, "learning rate 5e-6, 3 epochs", "sentiment", first + 1).but(
        learning_rate=5e-6, num_train_epochs=3
    )
    yield of(kind, "learning rate 1e-5, rank 32", "routing", first + 2).but(
        learning_rate=1e-5, r=32, lora_alpha=64
    )
    yield of(kind, "warmup of 100,000 steps", "topic", first + 3).but(warmup_steps=100_000)
    kind = "no-signal"
    yield of(kind, "learning rate 0", "routing", first).but(learning_rate=0.0)
    yield of(kind, "lora_alpha 0", "topic", first + 1).but(lora_alpha=0)
    yield of(kind, "lora_dropout 1", "hotel", first + 2).but(lora_dropout=1.0)
    kind = "underfit"
    yield of(kind, "1 epoch", "hotel", first).but(num_train_epochs=1)
    yield of(kind, "learning rate 5e-4, 2 epochs", "routing", first + 1).but(
        learning_rate=5e-4, num_train_epochs=2
    )
    yield of(kind, "learning rate 3e-4, 3 epochs", "hotel", first + 2).but(
        learning_rate=3e-4, num_train_epochs=3
    )
    kind = "overfitting"
    for seed, (task, rows, epochs, rank) in enumerate(
        (
            ("sentiment", 32, 30, 8),
            ("routing", 24, 30, 8),
            ("hotel", 40, 20, 32),
            ("topic", 30, 25, 16),
            ("sentiment", 100, 20, 16),
        ),
        first,
    ):
        case = of(kind, f"{rows} rows, {epochs} epochs, rank {rank}", task, seed, rows)
        yield replace(
            case.but(num_train_epochs=epochs, r=rank, lora_alpha=2 * rank), also=("overconfidence",)
        )
    kind = "capacity"
    for seed, (rows, module) in enumerate(
        ((300, "c_attn"), (360, "c_attn"), (420, "c_proj")), first
    ):
        yield codes(kind, f"{rows} rows, rank 1 on {module}", rows, seed).but(
            r=1, lora_alpha=2, target_modules=[module], num_train_epochs=10
        )
    kind = "converged"
    yield of(kind, "20 epochs", "hotel", first).but(num_train_epochs=20)
    yield of(kind, "25 epochs, batch 16", "hotel", first + 1).but(
        num_train_epochs=25, per_device_train_batch_size=16
    )
    yield of(kind, "20 epochs", "routing", first + 2).but(num_train_epochs=20)
    kind = "out-of-memory"
    for seed, task in enumerate(TASKS, first):
        yield replace(of(kind, "no memory for 8 rows", task, seed), machine="little memory")


def codes(planted: str, what: str, rows: int, seed: int) -> Case:
    """Facts to learn by heart: the code of each thing on a list, asked for in several ways."""
    draw = random.Random(f"codes-{seed}")
    asked = ("what is the code of {}?", "{}: which code has it?", "please look up the code for {}")
    pairs = [f"{thing} in {room}" for room in tasks.ROOMS for thing in tasks.THINGS]
    things = [f"{pair}, {side}" for pair in pairs for side in ("left", "right", "centre", "back")]
    facts = {
        thing: f" {''.join(draw.choices('BCDFGHKLMNPRSTVWXZ', k=10))}"
        for thing in draw.sample(things, rows)
    }

    def rows_of(ways: int) -> list[Row]:
        return [
            {"prompt": f"{asked[(n + ways) % 3].format(thing)}\ncode:", "completion": code}
            for n, (thing, code) in enumerate(facts.items())
        ]

    train, eval_ = numbered("t", rows_of(0)), numbered("e", rows_of(1)[:60])
    return Case(planted, f"codes: {what}", train, eval_).but(
        seed=42 + seed, per_device_train_batch_size=16
    )


def of_chains(first: int) -> Iterator[Case]:
    """What only several iterations show."""
    kind = "plateau"
    lists: tuple[tuple[Mapping[str, Any], ...], ...] = (
        ({"training.weight_decay": 0.01}, {"training.weight_decay": 0.02}),
        ({"training.adam_epsilon": 1e-7}, {"training.weight_decay": 0.001}),
        ({"training.warmup_steps": 1}, {"training.weight_decay": 0.05}),
    )
    for seed, (task, policy) in enumerate(
        zip(("hotel", "topic", "routing"), lists, strict=True), first
    ):
        yield replace(of(kind, "settings that do nothing", task, seed), policy=policy)
    kind = "eval-worn-out"
    yield fitted_by_hand(of(kind, "eval's wrong labels taught", "hotel", first), 0.3)
    yield fitted_by_hand(of(kind, "eval's wrong labels taught", "routing", first + 1), 0.3)
    yield fitted_by_hand(of(kind, "eval's wrong labels taught", "hotel", first + 2), 0.25)


def fitted_by_hand(case: Case, share: float) -> Case:
    """The train labels are bent towards an eval set whose labels are wrong for some phrases.

    Twice an iteration is accepted as it is better by the eval set; then the third is trained.
    """
    task = TASKS[case.what.partition(":")[0]](case.training["seed"] - 42)
    labels = sorted({row["completion"] for row in case.train})
    after = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    draw = random.Random(f"worn-{case.what}")
    phrases = {phrase_of(row) for row in case.train}
    wrong = set(draw.sample(sorted(phrases), round(share * len(phrases))))
    half = set(sorted(wrong)[::2])

    def bent(rows: Rows, which: set[str]) -> Rows:
        return tuple(
            {**row, "completion": after[row["completion"]]} if phrase_of(row) in which else row
            for row in rows
        )

    case = replace(case, eval=bent(case.eval, wrong), holdout=numbered("h", task.holdout[:150]))
    steps = [replace(case, train=bent(case.train, which)) for which in (set(), half, wrong)]
    return replace(steps[2].but(num_train_epochs=7), before=tuple(steps))


def phrase_of(row: Row) -> str:
    """The phrase of a routing or hotel row."""
    phrases = [p for group in (tasks.TEAMS, tasks.WISHES) for of in group.values() for p in of]
    return next(phrase for phrase in phrases if phrase in row["prompt"])


def of_wiring(first: int) -> Iterator[Case]:
    """Settings and templates that spoil what is learned."""
    kind = "truncated-labels"
    for seed, (task, length) in enumerate({"hotel": 36, "topic": 25, "routing": 38}.items(), first):
        case = of(kind, f"longer answers, max_length {length}", task, seed)
        yield polite(shortest(case)).but(max_length=length)
    kind = "unlearnt-end"
    yield replace(chats(few(of(kind, "a template without end", "hotel", first))), model="endless")
    yield replace(
        chats(few(of(kind, "the end outside of the answer", "topic", first + 1)), whole=True),
        model="end outside",
    ).but(assistant_only_loss=True)
    yield replace(
        few(of(kind, "pad is end, pads masked by id", "routing", first + 2)),
        model="pad is end",
        machine="masks by id",
    )
    kind = "prompt-in-loss"
    yield of(kind, "completion_only_loss false", "hotel", first).but(completion_only_loss=False)
    yield chats(of(kind, "messages", "routing", first + 1), whole=True)
    yield of(kind, "completion_only_loss false", "topic", first + 2).but(completion_only_loss=False)
    kind = "split-prompt"
    for seed, task in enumerate(TASKS, first):
        yield spaced(of(kind, "prompts end with a space", task, seed))


def chats(case: Case, *, whole: bool = False) -> Case:
    """The rows as chats: prompt and completion, or one list of messages."""

    def made(row: Row) -> Row:
        prompt = [{"role": "user", "content": row["prompt"]}]
        answer = [{"role": "assistant", "content": row["completion"].strip()}]
        said = {"messages": prompt + answer} if whole else {"prompt": prompt, "completion": answer}
        return {"id": row["id"], **said}

    return replace(case, train=tuple(map(made, case.train)), eval=tuple(map(made, case.eval)))


def few(case: Case) -> Case:
    """A short eval set, as what never stops takes long to generate."""
    return replace(case, eval=case.eval[:24])


def shortest(case: Case) -> Case:
    """As short an eval set, of the shortest prompts: each keeps some labels."""
    return few(replace(case, eval=tuple(sorted(case.eval, key=lambda row: len(row["prompt"])))))


def polite(case: Case) -> Case:
    """The answers are whole sentences."""

    def made(row: Row) -> Row:
        return {**row, "completion": f"{row['completion']}. We thank you very much for writing!"}

    return replace(case, train=tuple(map(made, case.train)), eval=tuple(map(made, case.eval)))


def spaced(case: Case) -> Case:
    """The space between prompt and completion belongs to the prompt."""

    def made(row: Row) -> Row:
        return {
            **row,
            "prompt": f"{row['prompt']} ",
            "completion": row["completion"].strip(),
        }

    return replace(case, train=tuple(map(made, case.train)), eval=tuple(map(made, case.eval)))


def of_data(first: int) -> Iterator[Case]:
    """Rows that are wrong."""
    kind = "template-mismatch"
    case = of(kind, "eval prompts without their last line", "topic", first)
    yield replace(case, eval=changed(case.eval, lambda row: row["prompt"].rpartition("\n")[0]))
    case = of(kind, "an instruction before train prompts", "hotel", first + 1)
    told = "Answer with one word.\n\n"
    yield replace(case, train=changed(case.train, lambda row: told + row["prompt"]))
    case = of(kind, "another last line in eval", "routing", first + 2)
    yield replace(
        case, eval=changed(case.eval, lambda row: row["prompt"].replace("team:", "Department ->"))
    )
    kind = "leak"
    for seed, (task, count) in enumerate({"hotel": 16, "routing": 5, "topic": 40}.items(), first):
        case = of(kind, f"{count} eval rows in train", task, seed)
        copies = tuple({**row, "id": f"c{row['id']}"} for row in case.eval[:count])
        yield replace(case, train=case.train + copies)
    kind = "near-duplicates"
    edits: tuple[Callable[[str], str], ...] = (
        lambda text: text.replace("\n", ".\n", 1),
        lambda text: text[:1].upper() + text[1:].replace(" the ", " teh ", 1).replace("\n", "!\n"),
        lambda text: text.replace("e", "", 1),
    )
    counts = {"topic": 30, "hotel": 24, "routing": 16}
    for seed, ((task, count), edit) in enumerate(zip(counts.items(), edits, strict=True), first):
        case = of(kind, f"{count} eval rows in train, edited", task, seed)
        copies = tuple(
            {**row, "id": f"c{row['id']}", "prompt": edit(row["prompt"])}
            for row in case.eval[:count]
        )
        yield replace(case, train=case.train + copies)
    kind = "duplicates"
    for seed, (task, share) in enumerate(
        {"routing": 0.3, "topic": 1.0, "hotel": 0.2}.items(), first
    ):
        case = of(kind, f"{share:.0%} of the rows twice", task, seed)
        copies = tuple({**row, "id": f"c{row['id']}"} for row in case.train)
        yield replace(case, train=case.train + copies[: round(share * len(copies))])
    kind = "contradictions"
    for seed, (task, share) in enumerate(
        {"hotel": 0.1, "topic": 0.3, "routing": 0.05}.items(), first
    ):
        case = of(kind, f"{share:.0%} of the rows labelled by a second person", task, seed)
        draw = random.Random(f"second-{seed}")
        some = draw.sample(case.train, round(share * len(case.train)))
        others = tuple({**mislabelled(case, row, draw), "id": f"c{row['id']}"} for row in some)
        yield replace(case, train=case.train + others)
    yield from of_labels(first)
    kind = "empty-completions"
    for seed, (task, share) in enumerate(
        {"topic": 0.05, "hotel": 0.2, "routing": 0.1}.items(), first
    ):
        case = of(kind, f"{share:.0%} of the completions empty", task, seed)
        draw = random.Random(f"empty-{seed}")
        yield replace(
            case,
            train=tuple(
                {**row, "completion": " "} if draw.random() < share else row for row in case.train
            ),
        )
    kind = "small-eval-set"
    sizes = {"hotel": (15, ">= 0.9"), "topic": (25, ">= 0.8"), "routing": (30, ">= 0.85")}
    for seed, (task, (count, bound)) in enumerate(sizes.items(), first):
        case = of(kind, f"{count} eval rows, pass_rate {bound}", task, seed)
        yield replace(case, eval=case.eval[:count], gates={"pass_rate": bound})


def of_labels(first: int) -> Iterator[Case]:
    """Labels that are missing, written otherwise, or too common."""
    kind = "unseen-labels"
    case = of(kind, "a label is not in train", "hotel", first)
    yield without(case, " taxi")
    case = of(kind, "a label is not in train", "routing", first + 1)
    yield without(case, " sales")
    case = of(kind, "eval writes labels in capitals", "topic", first + 2)
    yield replace(
        case,
        eval=tuple({**row, "completion": row["completion"].upper()} for row in case.eval),
    )
    kind = "label-imbalance"
    case = of(kind, "9 of 10 rows are money", "topic", first)
    yield imbalanced(case, " money", 0.9)
    case = of(kind, "85% of the rows are billing", "routing", first + 1)
    yield imbalanced(case, " billing", 0.85)
    case = of(kind, "one row of parking", "hotel", first + 2)
    kept = next(row for row in case.train if row["completion"] == " parking")
    yield replace(
        case,
        train=tuple(r for r in case.train if r["completion"] != " parking" or r is kept),
    )


def imbalanced(case: Case, label: str, share: float) -> Case:
    """Most train rows have one label; so many more are taken from the task's other rows."""
    task = TASKS[case.what.partition(":")[0]](case.training["seed"] - 42)
    known = {row["prompt"] for row in case.train}
    more = [row for row in task.holdout if row["prompt"] not in known]
    pool = [*case.train, *numbered("m", more)]
    common = [row for row in pool if row["completion"] == label]
    rare = [row for row in pool if row["completion"] != label]
    return replace(case, train=(*common, *rare[: round(len(common) * (1 / share - 1))]))


def without(case: Case, label: str) -> Case:
    """No train row has the label."""
    return replace(case, train=tuple(r for r in case.train if r["completion"] != label))


def of_examples(first: int) -> Iterator[Case]:
    """Labels that are wrong: here and there, or for a whole group."""
    kind = "mislabelled"
    for seed, (task, share) in enumerate(
        {"hotel": 0.05, "routing": 0.08, "topic": 0.05}.items(), first
    ):
        case = of(kind, f"{share:.0%} of the train labels wrong", task, seed)
        case = case.but(num_train_epochs=10)
        draw = random.Random(f"wrong-{seed}")
        some = set(draw.sample(range(len(case.train)), round(share * len(case.train))))
        yield replace(
            case,
            train=tuple(
                mislabelled(case, row, draw) if place in some else row
                for place, row in enumerate(case.train)
            ),
        )
    kind = "failing-slice"
    groups = {
        "routing": ("the printer upstairs", " sales"),
        "hotel": ("the suite", " key"),
        "topic": ("shop:", " account"),
    }
    for seed, (task, (words, label)) in enumerate(groups.items(), first):
        case = of(kind, f"one label for all rows with {words!r}", task, seed)
        case = case.but(num_train_epochs=10)
        yield replace(
            case,
            train=tuple(
                {**row, "completion": label} if words in row["prompt"] else row
                for row in case.train
            ),
        )


def changed(rows: Rows, prompt: Callable[[Row], str]) -> Rows:
    """The rows with other prompts."""
    return tuple({**row, "prompt": prompt(row)} for row in rows)


def mislabelled(case: Case, row: Row, draw: random.Random) -> Row:
    """The row with another label of the task."""
    labels = sorted({other["completion"] for other in case.train} - {row["completion"]})
    return {**row, "completion": draw.choice(labels)}


# --- healthy runs --------------------------------------------------------------------------------


def healthy(first: int) -> Iterator[Case]:
    """Nothing planted: other tasks, seeds, rates, ranks, batches, epochs, schedules; some noise."""
    for seed in range(first + 100, first + 124):
        draw = random.Random(f"healthy-{seed}")
        task = ("topic", "routing", "hotel", "sentiment")[seed % 4]
        case = of("", "", task, seed)
        if seed % 8 in {1, 6}:
            noisy = {"routing": tasks.routing, "hotel": tasks.hotel}[task]
            made = apart(noisy(160, 80, seed, noise=0.04))
            case = replace(case, train=numbered("t", made.train), eval=numbered("e", made.eval))
        if seed % 6 == 5:
            case = chats(case)
        rank = draw.choice((4, 8, 16, 32))
        case = case.but(
            r=rank,
            lora_alpha=2 * rank,
            lora_dropout=draw.choice((0.0, 0.0, 0.05, 0.1)),
            learning_rate=draw.choice((2e-3, 3e-3, 5e-3, 8e-3)),
            num_train_epochs=draw.choice((10, 12) if task in NATURAL else (5, 6, 8)),
            per_device_train_batch_size=16 if task in NATURAL else draw.choice((4, 8, 16)),
            lr_scheduler_type=draw.choice(("linear", "linear", "cosine", "constant")),
            warmup_steps=draw.choice((0, 0, 0.1)),
        )
        rows = draw.choice((120, 160, 160)) if task not in NATURAL else None
        said = {**case.lora, **case.training}
        told = " ".join(
            f"{name}={said[name]}" for name in ("learning_rate", "num_train_epochs", "r")
        )
        yield replace(case, what=f"{task}: seed {seed}, {told}", train=case.train[:rows])


# --- trainings -----------------------------------------------------------------------------------

ENDLESS = (
    "{% for m in messages %}{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)
END_OUTSIDE = (
    "{% for m in messages %}{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"
)


def broken(model: Any, _: Any) -> None:
    """One weight of the last layer is infinite, as after a bad conversion."""
    next(reversed(list(model.parameters()))).data[0] = float("inf")


def endless(_: Any, tokenizer: Any) -> None:
    """The chat template has no end of turn."""
    tokenizer.chat_template = ENDLESS


def end_outside(_: Any, tokenizer: Any) -> None:
    """The chat template's end of turn does not belong to the answer."""
    tokenizer.chat_template = END_OUTSIDE


def pad_is_end(_: Any, tokenizer: Any) -> None:
    """As so many scripts do."""
    tokenizer.pad_token = tokenizer.eos_token


MODELS: dict[str, Callable[[Any, Any], None]] = {
    "broken": broken,
    "endless": endless,
    "end outside": end_outside,
    "pad is end": pad_is_end,
}


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Training steps of over 4 rows do not fit into memory."""
    import torch
    from trl import SFTTrainer

    real = SFTTrainer.training_step

    def short(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["input_ids"]) > 4:
            raise torch.OutOfMemoryError("planted")
        return real(trainer, model, inputs, *args, **kwargs)

    with patch.object(SFTTrainer, "training_step", short):
        yield


@contextlib.contextmanager
def masks_by_id() -> Iterator[None]:
    """The collator masks pads by their id, and so the ends with them."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collate = DataCollatorForLanguageModeling.torch_call

    def by_id(self: Any, examples: Any) -> Any:
        batch = collate(self, examples)
        batch["labels"][batch["input_ids"] == self.pad_token_id] = -100
        return batch

    with patch.object(DataCollatorForLanguageModeling, "torch_call", by_id):
        yield


MACHINES: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "": contextlib.nullcontext,
    "little memory": little_memory,
    "masks by id": masks_by_id,
}


@dataclass(frozen=True)
class Kept:
    """One training: what the loop gets of it, and its results on the holdout, if there is one."""

    run: Any
    holdout: tuple[ExampleResult, ...]


class Trainer:
    """Trains each settings of each case once."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept
        self.trained = 0

    def findings(self, case: Case) -> Sequence[Finding]:
        """What the loop's last iteration finds."""
        with tempfile.TemporaryDirectory() as folder:
            for earlier in case.before:
                self._open_holdout(earlier, self._play(earlier, folder), folder)
            return self._play(case, folder).findings

    def _play(self, case: Case, folder: str) -> Iteration:
        config = self._config(case, folder)
        options = Options(iterations=1 + len(case.policy))
        return Loop(config, options, runner=self._runner(case)).run().chain[-1]

    def _runner(self, case: Case) -> Any:
        """What the loop is given in place of the runner that trains each time."""
        return lambda *_: lambda wanted, *_, **__: self._trained(case, wanted).run

    def _open_holdout(self, case: Case, done: Iteration, folder: str) -> None:
        config = self._config(case, folder)
        results = self._trained(case, done.settings).holdout
        held = DataSet("holdout", "holdout", (), hashlib.sha256(_said(case.holdout)).hexdigest())
        Loop(config).log.append_holdout_use(
            HoldoutUse(
                loop=config.name,
                iteration=done.id,
                fingerprint=done.fingerprint,
                scoring=done.scoring,
                data=data_facts(held),
                metrics={"eval_loss": token_mean_loss(results)},
                environment=done.environment,
                examples=results,
            )
        )

    def _trained(self, case: Case, wanted: Settings) -> Kept:
        said = [case.model, case.machine, case.train, case.eval, case.holdout]
        key = hashlib.sha256(_said([*said, wanted.lora, wanted.training])).hexdigest()[:20]
        path = self.kept / f"{key}.pickle"
        if not path.is_file():
            made = self._train(case, wanted)
            self.trained += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, pickle.dumps(made))
        found = pickle.loads(path.read_bytes())  # written by this very program
        assert isinstance(found, Kept)
        return found

    def _train(self, case: Case, wanted: Settings) -> Kept:
        from pytest_ftloop.loop.backend import lora_measure, lora_runner

        with tempfile.TemporaryDirectory() as folder, MACHINES[case.machine]():
            config, adapter = self._config(case, folder), Path(folder) / "adapter"
            inputs = Inputs.of(config, None)
            run = lora_runner(inputs, config, Silent())(wanted, adapter, None, name="case")
            results: tuple[ExampleResult, ...] = ()
            if case.holdout:
                rows = Inputs.of(replace(config, eval=list(case.holdout)), None).eval.examples
                held = DataSet("holdout", "", rows, "")
                results = lora_measure(inputs, config, held, wanted, adapter, Silent())
        return Kept(run, results)

    def _config(self, case: Case, folder: str) -> LoopConfig:
        return from_python(
            folder=Path(folder),
            source="benchmark",
            name="case",
            model="tiny" if case.model == "tiny" else str(self._model(case.model)),
            train=list(case.train),
            eval=list(case.eval),
            lora=dict(case.lora),
            training=dict(case.training),
            scoring={"scorer": "exact"},
            gates=dict(case.gates),
            loop={"patience": 99, "policy": list(case.policy) or "rules"},
        )

    def _model(self, name: str) -> Path:
        """The embedded model with something wrong, made when first asked for."""
        folder = self.kept.resolve() / "models" / name.replace(" ", "-")
        if not folder.is_dir():
            from transformers import AutoModelForCausalLM, AutoTokenizer

            from pytest_ftloop.train.tiny import tiny_folder

            source = tiny_folder(Silent())
            model = AutoModelForCausalLM.from_pretrained(source)
            tokenizer = AutoTokenizer.from_pretrained(source)
            MODELS[name](model, tokenizer)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with replacing(folder) as making:
                model.save_pretrained(making)
                tokenizer.save_pretrained(making)
        return folder


def _said(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True, default=dict).encode()


# --- what is said --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What was found in a case."""

    case: Case
    findings: Sequence[Finding]

    @property
    def first(self) -> list[str]:
        """The kinds that are read."""
        return [finding.kind for finding in self.findings[:FIRST]]

    @property
    def right(self) -> bool:
        """Whether what was planted is among them."""
        return self.place < FIRST

    @property
    def place(self) -> int:
        """Where what was planted is named; `FIRST`: it is not."""
        right = (self.case.planted, *self.case.also)
        return next((place for place, kind in enumerate(self.first) if kind in right), FIRST)


def table(outcomes: Sequence[Outcome]) -> str:
    """By planted kind: how often it is named first, second, or not, and what else is."""
    heads = ["planted", "runs", "named first", "second", "not", "others among the first two"]
    rows = []
    for kind in dict.fromkeys(outcome.case.planted for outcome in outcomes):
        some = [outcome for outcome in outcomes if outcome.case.planted == kind]
        places = [o.place for o in some]
        others = Counter(other for o in some for other in o.first if other != kind)
        counts = [str(places.count(place)) for place in range(FIRST + 1)]
        said = ", ".join(f"`{other}` {count}" for other, count in others.most_common())
        rows.append([f"`{kind}`", str(len(some)), *counts, said])
    return markdown_table(heads, rows, right=range(1, 5), escape=str, compact=True)


def share(outcomes: Sequence[Outcome]) -> str:
    """How many of them are right."""
    right = sum(outcome.right for outcome in outcomes)
    return f"{right} of {len(outcomes)} ({right / max(len(outcomes), 1):.1%})"


def of_healthy(outcomes: Sequence[Outcome]) -> str:
    """How many healthy runs have findings of each severity, and which."""
    rows = []
    for severity in ("error", "warning", "info"):
        kinds = [[f.kind for f in o.findings if f.severity == severity] for o in outcomes]
        counts = Counter(kind for of_run in kinds for kind in set(of_run))
        said = ", ".join(f"`{kind}` {count}" for kind, count in counts.most_common()) or "-"
        rows.append([severity, f"{sum(map(bool, kinds))} of {len(outcomes)}", said])
    heads = ["healthy runs with", "runs", "findings"]
    return markdown_table(heads, rows, right=[1], escape=str, compact=True)


def main() -> None:
    """Train what is not kept, diagnose all, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, default=Path(".bench/faults"), help="the trainings")
    parser.add_argument("--first-seed", type=int, default=0, help="of data and trainings")
    parser.add_argument("--only", nargs="*", metavar="KIND", help="of these planted kinds")
    parser.add_argument("--verbose", action="store_true", help="each run's findings")
    chosen = parser.parse_args()
    trainer = Trainer(chosen.kept)
    outcomes: list[Outcome] = []
    first = chosen.first_seed
    for case in (*faults(first), *healthy(first)):
        if chosen.only and (case.planted or "healthy") not in chosen.only:
            continue
        outcome = Outcome(case, trainer.findings(case))
        outcomes.append(outcome)
        if chosen.verbose or (case.planted and not outcome.right):
            show(outcome)
    planted = [outcome for outcome in outcomes if outcome.case.planted]
    kinds = dict.fromkeys(outcome.case.planted for outcome in planted)
    firsts = [next(o for o in planted if o.case.planted == kind) for kind in kinds]
    print(table(planted))
    print(f"\nRight among the first {FIRST}: {share(planted)}", end="; ")
    print(f"without each kind's first: {share([o for o in planted if o not in firsts])}.\n")
    print(of_healthy([outcome for outcome in outcomes if not outcome.case.planted]))
    print(f"\n{trainer.trained} trained now, the others read.", file=sys.stderr)


def show(outcome: Outcome) -> None:
    """One run's findings, as they are read."""
    print(f"{outcome.case.planted or 'healthy'}: {outcome.case.what}", file=sys.stderr)
    for finding in outcome.findings:
        print(f"    {finding.severity}: {finding.kind}: {finding.message}", file=sys.stderr)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
