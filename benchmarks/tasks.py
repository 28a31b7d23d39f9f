"""Small fine-tuning tasks for the benchmarks: rows of prompt and completion, split by a seed.

`sentiment` is the quickstart's messages; `routing`, `hotel` and `library` are built from phrases
(no rule was mended on the last one); `banking` is the intents of a CSV file (`text,category`, as
PolyAI published them) that the user has.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import held_out

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart" / "data"

LONGEST = 55

Row = dict[str, str]


@dataclass(frozen=True)
class Task:
    """A task's rows: to train on, to choose by, and to measure once at the end."""

    name: str
    model: str
    train: tuple[Row, ...]
    eval: tuple[Row, ...]
    holdout: tuple[Row, ...]

    def smaller(self, rows: int) -> Task:
        """The same task with fewer train rows."""
        return Task(f"{self.name}-{rows}", self.model, self.train[:rows], self.eval, self.holdout)


def sentiment(train: int = 160, eval_: int = 100, seed: int = 0, model: str = "tiny") -> Task:
    """The quickstart's messages, its three files mixed."""
    rows: list[Row] = []
    for file in ("train", "eval", "holdout"):
        lines = (QUICKSTART / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
        rows += [
            {"prompt": row["prompt"], "completion": row["completion"]}
            for row in map(json.loads, lines)
        ]
    return _split("sentiment", model, rows, train, eval_, seed)


def routing(train: int = 160, eval_: int = 100, seed: int = 0, noise: float = 0.04) -> Task:
    """The team of a shop that a request is for."""
    rows = _requests(TEAMS, ("I", "we", "since Monday I"), THINGS, "team", seed, noise)
    return _split("routing", "tiny", rows, train, eval_, seed)


def hotel(train: int = 160, eval_: int = 100, seed: int = 0, noise: float = 0.04) -> Task:
    """The subject of a hotel guest's message."""
    rows = _requests(WISHES, ("please,", "hello,", "excuse me,"), ROOMS, "about", seed, noise)
    return _split("hotel", "tiny", rows, train, eval_, seed)


def library(train: int = 160, eval_: int = 100, seed: int = 0) -> Task:
    """The desk of a library that a message is for."""
    draw = random.Random(f"library-{seed}")
    rows: dict[str, Row] = {}
    while len(rows) < train + eval_ + 300:
        row = held_out.library(draw)
        rows.setdefault(row["prompt"], {name: row[name] for name in ("prompt", "completion")})
    return _split("library", "tiny", list(rows.values()), train, eval_, seed)


def _requests(
    phrases: Mapping[str, Sequence[str]],
    openers: Sequence[str],
    ends: Sequence[str],
    asked: str,
    seed: int,
    noise: float,
) -> list[Row]:
    """Every opener with every phrase and end; the phrase alone decides the label.

    A share `noise` of the completions is another label, as in labels that people gave.
    """
    draw = random.Random(f"{asked}-{seed}")
    labels = list(phrases)
    return [
        {
            "prompt": f"{opener} {phrase} {end}\n{asked}:",
            "completion": f" {draw.choice(labels) if draw.random() < noise else label}",
        }
        for label in labels
        for phrase in phrases[label]
        for opener in openers
        for end in ends
    ]


def banking(
    file: Path, intents: Sequence[str], train: int = 160, eval_: int = 100, model: str = "tiny"
) -> Task:
    """Some intents from a CSV file with the columns text and category.

    Questions of up to `LONGEST` characters: a few long ones would make each step three times as
    long.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [
            {
                "prompt": f"{row['text'].strip()}\nintent:",
                "completion": f" {row['category'].replace('_', ' ')}",
            }
            for row in csv.DictReader(lines)
            if row["category"] in intents and len(row["text"].strip()) <= LONGEST
        ]
    if not rows:
        raise SystemExit(f"{file} has none of the intents {', '.join(intents)}")
    return _split("banking", model, rows, train, eval_, 0)


def _split(name: str, model: str, rows: list[Row], train: int, eval_: int, seed: int) -> Task:
    shuffled = list(rows)
    random.Random(f"{name}-{seed}").shuffle(shuffled)
    held = shuffled[train + eval_ :][:300]
    return Task(name, model, tuple(shuffled[:train]), tuple(shuffled[train:][:eval_]), tuple(held))


TEAMS = {
    "billing": (
        "was charged twice for",
        "need an invoice with our tax number for",
        "would like the money back for",
        "see a wrong amount on the bill for",
        "can't pay by card for",
        "have a question on the price of",
    ),
    "delivery": (
        "still wait for the parcel with",
        "got a broken box with",
        "need a later date for the arrival of",
        "found only half of the order of",
        "want to follow the way of",
        "gave a wrong address for",
    ),
    "repair": (
        "hear a strange noise from",
        "can't switch on",
        "see a crack in the glass of",
        "smell smoke near",
        "need a spare part for",
        "get an error code from",
    ),
    "account": (
        "forgot the password for",
        "can't log in to the page of",
        "want to change the email address for",
        "need a second user for",
        "would like to close the profile for",
        "never got the code to confirm",
    ),
    "sales": (
        "look for a bigger version of",
        "would buy forty pieces of",
        "want to compare the models of",
        "ask if there is a discount on",
        "need an offer for",
        "wonder when you will have again",
    ),
}
THINGS = (
    "the washing machine",
    "a garden lamp",
    "the coffee maker",
    "two office chairs",
    "the heating in our hall",
    "a set of plates",
    "the blue sofa",
    "my son's bicycle",
    "the printer upstairs",
    "an electric drill",
    "the new phone",
    "our front door",
)
WISHES = {
    "towels": (
        "bring two more towels to",
        "there is nothing to dry my hands in",
        "the bath mat is missing in",
        "we need fresh linen for",
    ),
    "breakfast": (
        "can we eat early tomorrow, this is",
        "send eggs and coffee up to",
        "is there food without milk for",
        "when does the buffet open, asks",
    ),
    "departure": (
        "we leave at noon from",
        "may we stay until two in",
        "prepare the bill of",
        "keep our bags after we go from",
    ),
    "internet": (
        "what is the password of the network in",
        "the signal is weak in",
        "my laptop does not connect in",
        "pages load so slowly in",
    ),
    "parking": (
        "is there a place for a van of",
        "the garage gate stays shut for",
        "where do I put the car of",
        "my number plate is not known, I am in",
    ),
    "noise": (
        "people sing all night beside",
        "the lift rattles next to",
        "somebody drills above",
        "a dog barks under",
    ),
    "taxi": (
        "order a cab at six for",
        "how do we get to the station from",
        "a driver should fetch us, we are in",
        "is there a bus to the airport, asks",
    ),
    "key": (
        "the card does not open",
        "I locked myself out of",
        "we lost the chip for",
        "the door will not shut at",
    ),
}
ROOMS = (
    "room 12",
    "room 7 on the second floor",
    "the suite",
    "our double room",
    "number 31",
    "the family room",
    "room 204",
    "the room by the pool",
    "the small single",
    "our rooms",
)
