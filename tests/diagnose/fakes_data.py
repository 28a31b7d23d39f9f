"""A healthy set of labels that the tests of the rules over data plant their faults in."""

from __future__ import annotations

import random
from typing import Any

from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.data import examples as data
from pytest_ftloop.diagnose.data import before_training

LABELS = ("billing", "delivery", "account", "other")
NOUNS = [
    "card",
    "parcel",
    "refund",
    "order",
    "account",
    "price",
    "address",
    "invoice",
    "driver",
    "login",
    "code",
]
VERBS = [
    "lost",
    "changed",
    "delayed",
    "blocked",
    "charged",
    "cancelled",
    "doubled",
    "opened",
    "returned",
    "closed",
]
WHENS = ["since monday", "for a week", "again", "after the update", "this morning", "abroad"]


def questions(count: int, seed: int) -> list[str]:
    """Different questions in a few shapes."""
    chance = random.Random(seed)
    shapes = (
        "my {n} was {v} {w}, what now?",
        "why was the {n} {v} {w}",
        "the {n} and the {m} were {v} {w}!",
        "please tell me who {v} the {n} of the {m}",
    )
    made: dict[str, None] = {}
    while len(made) < count:
        n, m = chance.sample(NOUNS, 2)
        shape = chance.choice(shapes)
        made[shape.format(n=n, m=m, v=chance.choice(VERBS), w=chance.choice(WHENS))] = None
    return list(made)


def rows(count: int, seed: int, **change: Any) -> list[dict[str, Any]]:
    """Rows of a healthy set of labels; train and eval of different seeds share no question."""
    chance = random.Random(seed)
    start = 0 if seed == 1 else 300
    return [
        {
            "id": f"{seed}-{number:03d}",
            "prompt": f"{question}\nintent:",
            "completion": f" {chance.choice(LABELS)}",
            **change,
        }
        for number, question in enumerate(questions(start + count, 7)[start:])
    ]


def examples(rows_: list[dict[str, Any]]) -> tuple[Example, ...]:
    """The rows as examples."""
    return data.data_set(((row, None) for row in rows_), "train", "x", data.Columns()).examples


def found(
    train: list[dict[str, Any]], eval_: list[dict[str, Any]], *gates: Any
) -> dict[str, Finding]:
    """What the rules find, by kind."""
    return {f.kind: f for f in before_training(examples(train), examples(eval_), gates)}


def edited(rows_: list[dict[str, Any]], count: int, **change: Any) -> list[dict[str, Any]]:
    """The rows with a change in the first `count`; a function gets the old value."""
    return [
        row | {k: v(row[k]) if callable(v) else v for k, v in change.items()} if i < count else row
        for i, row in enumerate(rows_)
    ]


TRAIN, EVAL = rows(200, 1), rows(100, 2)
