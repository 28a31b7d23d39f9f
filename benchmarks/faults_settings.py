"""Faults of settings: of one run (its curves show them), and of several iterations."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import tasks
from faults_cases import TASKS, Case, Row, Rows, numbered, phrase_of, usual


def of_one_run(first: int) -> Iterator[Case]:
    """Settings that spoil one run."""
    kind = "non-finite"
    yield usual(kind, "plain SGD, no clipping", "hotel", first).but(
        optim="sgd", learning_rate=1e3, max_grad_norm=0.0
    )
    yield usual(kind, "learning rate 1e6", "topic", first + 1).but(learning_rate=1e6)
    yield replace(usual(kind, "a broken weight in the base", "routing", first + 2), model="broken")
    # Which of these kinds too high a rate ends in is chance, so each of them is right.
    kind = "diverged"
    too_high = ("non-finite", "oscillation")
    late = {"warmup_steps": 0.2, "lr_scheduler_type": "constant_with_warmup"}
    momentum = {"optim": "sgd", "optim_args": "momentum=0.9", "max_grad_norm": 0.0}
    for case in (
        usual(kind, "learning rate 0.3 after warmup", "hotel", first).but(
            learning_rate=0.3, **late
        ),
        usual(kind, "learning rate 0.3", "routing", first + 1).but(learning_rate=0.3),
        usual(kind, "learning rate 0.3, rank 32", "topic", first + 2).but(
            learning_rate=0.3, r=32, lora_alpha=64
        ),
        usual(kind, "learning rate 0.1, batch 2", "topic", first + 3).but(
            learning_rate=0.1, per_device_train_batch_size=2, num_train_epochs=3, **late
        ),
        usual(kind, "SGD, learning rate 1, no clipping", "hotel", first + 4).but(
            learning_rate=1.0, **momentum
        ),
    ):
        yield replace(case, also=too_high)
    kind = "oscillation"
    for seed, (task, rate, batch) in enumerate(
        (("routing", 0.1, 8), ("topic", 0.1, 8), ("hotel", 0.08, 4)), first
    ):
        case = usual(kind, f"learning rate {rate}, batch {batch}", task, seed)
        case = case.but(learning_rate=rate, per_device_train_batch_size=batch)
        yield replace(case, also=("diverged",))
    kind = "not-learning"
    yield usual(kind, "learning rate 2e-5, trl's default", "hotel", first).but(learning_rate=2e-5)
    yield usual(kind, "learning rate 5e-6, 3 epochs", "sentiment", first + 1).but(
        learning_rate=5e-6, num_train_epochs=3
    )
    yield usual(kind, "learning rate 1e-5, rank 32", "routing", first + 2).but(
        learning_rate=1e-5, r=32, lora_alpha=64
    )
    yield usual(kind, "warmup of 100,000 steps", "topic", first + 3).but(warmup_steps=100_000)
    kind = "no-signal"
    yield usual(kind, "learning rate 0", "routing", first).but(learning_rate=0.0)
    yield usual(kind, "lora_alpha 0", "topic", first + 1).but(lora_alpha=0)
    yield usual(kind, "lora_dropout 1", "hotel", first + 2).but(lora_dropout=1.0)
    kind = "underfit"
    yield usual(kind, "1 epoch", "hotel", first).but(num_train_epochs=1)
    yield usual(kind, "learning rate 5e-4, 2 epochs", "routing", first + 1).but(
        learning_rate=5e-4, num_train_epochs=2
    )
    yield usual(kind, "learning rate 3e-4, 3 epochs", "hotel", first + 2).but(
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
        case = usual(kind, f"{rows} rows, {epochs} epochs, rank {rank}", task, seed, rows)
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
    yield usual(kind, "20 epochs", "hotel", first).but(num_train_epochs=20)
    yield usual(kind, "25 epochs, batch 16", "hotel", first + 1).but(
        num_train_epochs=25, per_device_train_batch_size=16
    )
    yield usual(kind, "20 epochs", "routing", first + 2).but(num_train_epochs=20)
    kind = "out-of-memory"
    for seed, task in enumerate(TASKS, first):
        yield replace(usual(kind, "no memory for 8 rows", task, seed), machine="little memory")


def codes(planted: str, what: str, rows: int, seed: int) -> Case:
    """Facts to memorise: the code of each of `rows` things, asked for in three ways."""
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
    """Faults that only several iterations show."""
    kind = "plateau"
    lists: tuple[tuple[Mapping[str, Any], ...], ...] = (
        ({"training.weight_decay": 0.01}, {"training.weight_decay": 0.02}),
        ({"training.adam_epsilon": 1e-7}, {"training.weight_decay": 0.001}),
        ({"training.warmup_steps": 1}, {"training.weight_decay": 0.05}),
    )
    for seed, (task, policy) in enumerate(
        zip(("hotel", "topic", "routing"), lists, strict=True), first
    ):
        yield replace(usual(kind, "settings that do nothing", task, seed), policy=policy)
    kind = "eval-worn-out"
    yield fitted_by_hand(usual(kind, "eval's wrong labels taught", "hotel", first), 0.3)
    yield fitted_by_hand(usual(kind, "eval's wrong labels taught", "routing", first + 1), 0.3)
    yield fitted_by_hand(usual(kind, "eval's wrong labels taught", "hotel", first + 2), 0.25)


def fitted_by_hand(case: Case, share: float) -> Case:
    """Train labels bent towards an eval set whose labels are wrong for a share of the phrases.

    First none of these phrases has the wrong label in the train set, then half of them, then all.
    Each version is better by the eval set, and the holdout is opened for each.
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
