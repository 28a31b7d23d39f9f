"""The cases of faults.py: what one is, the tasks they are made of, and the healthy ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import slices_cases
import tasks

Row = dict[str, Any]
Rows = tuple[Row, ...]


def topic(seed: int) -> tasks.Task:
    """What a few words are about; one of them is a keyword of the label."""
    rows = tuple(slices_cases.rows_of("topic", 620, random.Random(f"topic-{seed}")))
    rows = tuple({name: row[name] for name in ("prompt", "completion")} for row in rows)
    return tasks.Task("topic", "tiny", rows[:240], rows[240:320], rows[320:])


def apart(task: tasks.Task) -> tasks.Task:
    """The task without the eval rows that differ from a train row in nothing but the opener."""

    def without_opener(row: Row) -> str:
        return str(row["prompt"]).partition(phrase_of(row))[2] + phrase_of(row)

    known = {without_opener(row) for row in task.train}
    rest = [row for row in (*task.eval, *task.holdout) if without_opener(row) not in known]
    return replace(task, eval=tuple(rest[: len(task.eval)]), holdout=tuple(rest[len(task.eval) :]))


TASKS: dict[str, Callable[[int], tasks.Task]] = {
    "topic": topic,
    "routing": lambda seed: apart(tasks.routing(160, 80, seed, noise=0.0)),
    "hotel": lambda seed: tasks.hotel(160, 80, seed, noise=0.0),
}
NATURAL: dict[str, Callable[[int], tasks.Task]] = {
    "sentiment": lambda seed: tasks.sentiment(480, 80, seed)
}
"""Messages that people wrote. They take more steps to learn than the others."""

LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
TRAINING = {
    "learning_rate": 5e-3,
    "num_train_epochs": 6,
    "per_device_train_batch_size": 8,
    "activation_checkpointing": False,
}


@dataclass(frozen=True)
class Case:
    """A loop, and the kind of finding that it should lead to (empty: it is healthy).

    `model` is the embedded base model, or the name of a damaged one in `faults_machines.MODELS`;
    `machine` names what is wrong with the machine or the libraries, in `MACHINES` there. `policy`
    lists the changes of later iterations, as a user's list does. `also` are kinds that are equally
    right, because chance decides which of them is true of the run. `before` are loops that run
    first and write the same log; a `holdout` is opened once after each of them.
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
        """The case with other settings, of LoRA or of the training by their names."""
        of_lora = {"r", "lora_alpha", "lora_dropout", "target_modules"}
        lora = {name: value for name, value in changes.items() if name in of_lora}
        training = {name: value for name, value in changes.items() if name not in of_lora}
        return replace(self, lora={**self.lora, **lora}, training={**self.training, **training})


def usual(planted: str, what: str, task: str, seed: int, rows: int | None = None) -> Case:
    """A task with the usual settings; nothing is wrong yet."""
    made = {**TASKS, **NATURAL}[task](seed)
    train, eval_ = numbered("t", made.train[:rows]), numbered("e", made.eval)
    case = Case(planted, f"{task}: {what}", train, eval_).but(seed=42 + seed)
    if task in NATURAL and rows is None:
        case = case.but(per_device_train_batch_size=16, num_train_epochs=12)
    return case


def numbered(letter: str, rows: Sequence[Mapping[str, Any]]) -> Rows:
    """The rows, with ids from `<letter>000` on."""
    return tuple({"id": f"{letter}{n:03}", **row} for n, row in enumerate(rows))


def phrase_of(row: Row) -> str:
    """The phrase that decides the label of a routing or hotel row."""
    phrases = [p for group in (tasks.TEAMS, tasks.WISHES) for of in group.values() for p in of]
    return next(phrase for phrase in phrases if phrase in row["prompt"])


def chats(case: Case, *, whole: bool = False) -> Case:
    """The rows as chats of two turns: prompt and completion, or `whole`, one list of messages."""

    def made(row: Row) -> Row:
        prompt = [{"role": "user", "content": row["prompt"]}]
        answer = [{"role": "assistant", "content": row["completion"].strip()}]
        chat = {"messages": prompt + answer} if whole else {"prompt": prompt, "completion": answer}
        return {"id": row["id"], **chat}

    return replace(case, train=tuple(map(made, case.train)), eval=tuple(map(made, case.eval)))


def few(case: Case) -> Case:
    """The case with 24 eval rows: an output that never ends takes long to generate."""
    return replace(case, eval=case.eval[:24])


def healthy(first: int) -> Iterator[Case]:
    """Nothing planted. Tasks, seeds and settings vary; some tasks have 4% of wrong labels."""
    for seed in range(first + 100, first + 124):
        draw = random.Random(f"healthy-{seed}")
        task = ("topic", "routing", "hotel", "sentiment")[seed % 4]
        case = usual("", "", task, seed)
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
        stated = {**case.lora, **case.training}
        shown = " ".join(
            f"{name}={stated[name]}" for name in ("learning_rate", "num_train_epochs", "r")
        )
        yield replace(case, what=f"{task}: seed {seed}, {shown}", train=case.train[:rows])
