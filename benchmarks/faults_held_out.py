"""The cases of faults.py on a base and a task that no rule was mended on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import tasks
from faults_cases import LORA, TRAINING, Case, numbered
from faults_rows import mislabelled, without


def usual(planted: str, what: str, seed: int, base: str, rows: int = 200) -> Case:
    """The task with the usual settings; nothing is wrong yet."""
    made = tasks.library(400, 80, seed)
    train, eval_ = numbered("t", made.train[:rows]), numbered("e", made.eval)
    case = Case(planted, f"library on {base}: {what}", train, eval_, LORA, TRAINING, model=base)
    return case.but(seed=42 + seed)


def of_held_out(first: int, base: str) -> Iterator[Case]:
    """Faults of settings, rows and labels."""
    too_high = replace(usual("diverged", "learning rate 0.3", first, base), also=("non-finite",))
    yield too_high.but(learning_rate=0.3)
    yield usual("non-finite", "learning rate 1e6", first + 1, base).but(learning_rate=1e6)
    yield usual("not-learning", "learning rate 2e-5", first + 2, base).but(learning_rate=2e-5)
    yield usual("no-signal", "learning rate 0", first + 3, base).but(learning_rate=0.0)
    yield usual("underfit", "1 epoch, 1e-3", first + 4, base).but(
        num_train_epochs=1, learning_rate=1e-3
    )
    few = usual("overfitting", "24 rows, 30 epochs", first + 5, base, rows=24)
    yield replace(few, also=("overconfidence",)).but(num_train_epochs=30)
    case = usual("leak", "16 eval rows in train", first + 6, base)
    copies = tuple({**row, "id": f"c{row['id']}"} for row in case.eval[:16])
    yield replace(case, train=case.train + copies)
    yield without(usual("unseen-labels", "a label is not in train", first + 7, base), " cards")
    case = usual("failing-slice", "one label for all rows with 'no hurry'", first + 8, base)
    flipped = tuple(
        {**row, "completion": " rooms"} if "no hurry" in row["prompt"] else row
        for row in case.train
    )
    yield replace(case, train=flipped)
    for place, (share, rows, epochs) in enumerate(
        ((0.35, 400, 3), (0.2, 400, 2), (0.2, 200, 6), (0.1, 200, 8))
    ):
        what = f"{share:.0%} of {rows} train labels wrong, {epochs} epochs"
        case = usual("mislabelled", what, first + 9 + place, base, rows).but(
            num_train_epochs=epochs
        )
        draw = random.Random(f"held-out-{first + place}")
        wrong = set(draw.sample(range(rows), round(share * rows)))
        train = tuple(
            mislabelled(case, row, draw) if number in wrong else row
            for number, row in enumerate(case.train)
        )
        yield replace(case, train=train)


def healthy_held_out(first: int, base: str) -> Iterator[Case]:
    """Nothing planted; rows, epochs and learning rates vary."""
    settings = ((400, 3, 5e-3), (200, 6, 5e-3), (150, 8, 3e-3), (300, 4, 8e-3))
    for place, (rows, epochs, rate) in enumerate(settings):
        what = f"{rows} rows, {epochs} epochs, {rate:g}"
        case = usual("", what, first + 200 + place, base, rows)
        yield case.but(num_train_epochs=epochs, learning_rate=rate)
