"""Lift and forgetting on banking77: what the gates say of sane and of wild learning rates.

    python benchmarks/guards.py MODEL_FOLDER --train TRAIN_CSV --test TEST_CSV [--out FOLDER]

Six intents, 400 train and 100 eval rows, three seeds. Two guards of 120 rows each have nothing to
do with banks: `general`, sentences of the standard library's docstrings, whose loss is measured;
and `order`, endings of the embedded corpus's sentences, where the right order of the words must be
likelier than another one. With `--mixed` 100 further endings are among the train rows. Prints the
gates of each loop: `forgetting` of all guards, of `general`, and of the pass rate of `order`.

The sentences are those of the running Python: another version has others.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import random
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest_ftloop

INTENTS = (
    "card_arrival",
    "lost_or_stolen_card",
    "exchange_rate",
    "pin_blocked",
    "top_up_failed",
    "age_limit",
)
TRAIN, EVAL, GUARD, MIXED = 400, 100, 120, 100
LAST = 5
"""Words of an ending."""

RATES = (2e-4, 5e-4, 1e-3, 5e-2)
MODULES = [
    "zipfile",
    "subprocess",
    "datetime",
    "itertools",
    "threading",
    "socket",
    "os",
    "json",
    "email.message",
    "argparse",
    "pathlib",
    "random",
    "statistics",
    "collections",
    "logging",
    "shutil",
    "tarfile",
    "tempfile",
    "typing",
    "http.client",
]

Row = Mapping[str, Any]


def main() -> int:
    """Write the data and one loop per learning rate, run them, print their gates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--train", type=Path, required=True, help="banking77's train.csv")
    parser.add_argument("--test", type=Path, required=True, help="banking77's test.csv")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, metavar="LEARNING_RATE")
    parser.add_argument("--mixed", action="store_true", help="endings among the train rows")
    parser.add_argument("--out", type=Path, help="a folder to keep (default: a temporary one)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_data(folder, chosen.train, chosen.test, mixed=chosen.mixed)
        for rate in chosen.rates:
            file = folder / f"rate-{rate:g}{'-mixed' if chosen.mixed else ''}.ftloop.yaml"
            file.write_text(json.dumps(loop(chosen.model.absolute(), rate)))
            print(f"\n{file.name}\n{gates_of(file)}", flush=True)
    return 0


def loop(model: Path, rate: float) -> dict[str, Any]:
    """A loop's settings."""
    return {
        "model": str(model),
        "data": {
            "train": "train.jsonl",
            "eval": "eval.jsonl",
            "guards": {
                "general": "guard.jsonl",
                "order": {"source": "order.jsonl", "scoring": {"scorer": "choice"}},
            },
        },
        "lora": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        "training": {
            "learning_rate": rate,
            "num_train_epochs": 2,
            "per_device_train_batch_size": 8,
        },
        "gates": {
            "lift": ">= 10 points",
            "lift[eval_loss]": ">= 0.5",
            "forgetting": {},
            "forgetting[general]": {},
            "forgetting[order]": {"metrics": ["pass_rate"]},
        },
        "loop": {"iterations": 1, "seeds": 3},
    }


def gates_of(file: Path) -> str:
    """What a run says of the gates."""
    command = [sys.executable, "-m", "pytest_ftloop", "run", "-v", file.name]
    ran = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    _, found, gates = ran.stdout.partition("\nthresholds:\n")
    return gates if found else ran.stdout + ran.stderr


def write_data(folder: Path, train: Path, test: Path, *, mixed: bool) -> None:
    """Train and eval set and the two guards."""
    rows, ends = questions(train)[:TRAIN], endings()
    if mixed:
        rows += [
            {name: row[name] for name in ("prompt", "completion")} for row in ends[GUARD:][:MIXED]
        ]
    write(folder / "train.jsonl", rows)
    write(folder / "eval.jsonl", questions(test)[:EVAL])
    write(folder / "guard.jsonl", sentences()[:GUARD])
    write(folder / "order.jsonl", ends[:GUARD])


def write(file: Path, rows: Iterable[Row]) -> None:
    """A row per line."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def questions(file: Path) -> list[Row]:
    """Questions of the intents, shuffled."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows: list[Row] = [
            {
                "prompt": f"{row['text'].strip()}\nintent:",
                "completion": f" {row['category'].replace('_', ' ')}",
            }
            for row in csv.DictReader(lines)
            if row["category"] in INTENTS
        ]
    random.Random(0).shuffle(rows)
    return rows


def sentences() -> list[Row]:
    """Plain sentences that open docstrings of the standard library, shuffled."""
    found = list(dict.fromkeys(filter(plain_sentence, docstrings())))
    random.Random(1).shuffle(found)
    return [{"text": text} for text in found]


def docstrings() -> Iterator[str]:
    """First paragraphs, each on one line."""
    for module in map(importlib.import_module, MODULES):
        for name in sorted(vars(module)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # names that are deprecated
                doc = getattr(getattr(module, name), "__doc__", None)
            if isinstance(doc, str):
                yield " ".join(re.split(r"\n\s*\n", doc.strip())[0].split())


def plain_sentence(text: str) -> bool:
    """Whether a text is words alone."""
    return bool(re.fullmatch(r"[A-Z][A-Za-z0-9 ,'\-]{40,140}\.", text))


def endings() -> list[Row]:
    """Sentences of the embedded corpus without their last words, these, and these shuffled."""
    corpus = Path(pytest_ftloop.__file__).with_name("corpus.txt").read_text(encoding="utf-8")
    draw = random.Random(3)
    texts = [
        line
        for line in map(str.strip, corpus.splitlines())
        if 60 <= len(line) < 129 and line.endswith(".") and not set(line) & set(":|")
    ]
    draw.shuffle(texts)
    rows: list[Row] = []
    for words in (text[:-1].split(" ") for text in texts):
        if len(words) > 2 * LAST:
            last = words[-LAST:]
            other = list(last)
            while other == last:
                draw.shuffle(other)
            right, wrong = (f" {' '.join(end)}." for end in (last, other))
            rows.append(
                {
                    "prompt": " ".join(words[:-LAST]),
                    "completion": right,
                    "choices": [right, wrong],
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
