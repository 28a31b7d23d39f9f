"""What the tests of real (tiny) training share: a base model, data, a task."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import DataSet, Settings
from pytest_ftloop.data import examples as data
from pytest_ftloop.evaluate.scorers import load_scorer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora_dropout": 0.1}
TRAINING = {
    "learning_rate": 5e-3,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "activation_checkpointing": False,
}
WORDS = {
    "late": "delivery", "lost": "delivery", "courier": "delivery",
    "refund": "money", "price": "money", "charged": "money",
}  # fmt: skip


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows of a task that is learnt in seconds: a word decides the label."""
    chance = random.Random(seed)
    made = []
    for number in range(count):
        word = chance.choice(sorted(WORDS))
        filler = " ".join(
            chance.choice(["my", "the", "order", "was", "again", "please"]) for _ in "123"
        )
        made.append(
            {
                "id": f"{seed}-{number:03d}",
                "prompt": f"{filler} {word}\ntopic:",
                "completion": f" {WORDS[word]}",
                "tags": [word],
            }
        )
    return made


def data_set(rows_: list[dict[str, Any]], role: str) -> DataSet:
    return data.data_set(((row, None) for row in rows_), role, role, data.Columns())


def settings(**training: Any) -> Settings:
    return Settings(lora=LORA, training={**TRAINING, **training})


@pytest.fixture(scope="session")
def tiny(cache: Path) -> Path:
    """The folder of the embedded base model."""
    from pytest_ftloop.train.tiny import tiny_folder

    return tiny_folder(Silent())


@pytest.fixture(scope="session")
def base(tiny: Path) -> Any:
    from pytest_ftloop.train.base import load_base
    from pytest_ftloop.train.quiet import quiet

    with quiet():
        return load_base(str(tiny), {}, None)


@pytest.fixture
def task() -> Callable[..., Any]:
    """Make a task of 48 train and 20 eval rows; keywords replace its fields."""
    from pytest_ftloop.train.task import Task, train_sample

    def make(scoring: Scoring = Scoring(), **changes: Any) -> Any:  # noqa: B008 - frozen
        train, eval_ = data_set(rows(48, 1), "train"), data_set(rows(20, 2), "eval")
        scorer = None if scoring.scorer in {"loss", "choice"} else load_scorer(scoring)
        fields = {
            "train": train,
            "eval": eval_,
            "train_sample": train_sample(train, 16),
            "scoring": scoring,
            "scorer": scorer,
            **changes,
        }
        return Task(**fields)

    return make


@pytest.fixture
def quietly() -> Iterator[None]:
    from pytest_ftloop.train.quiet import quiet

    with quiet():
        yield
