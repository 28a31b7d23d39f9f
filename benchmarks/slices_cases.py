"""The cases of slices.py: tasks with tags, what is planted in them, and what is not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from held_out import library

Row = dict[str, Any]

QUICKSTART = Path(__file__).parent.parent / "examples" / "quickstart" / "data"
TEAMS = {
    "billing": (
        "was charged twice for",
        "need an invoice with our tax number for",
        "would like the money back for",
        "see a wrong amount on the bill for",
    ),
    "delivery": (
        "still wait for the parcel with",
        "got a broken box with",
        "need a later date for the arrival of",
        "found only half of the order of",
    ),
    "repair": (
        "hear a strange noise from",
        "can't switch on",
        "see a crack in the glass of",
        "smell smoke near",
    ),
    "account": (
        "forgot the password for",
        "can't log in to the page of",
        "want to change the email address for",
        "need a second user for",
    ),
    "sales": (
        "look for a bigger version of",
        "would buy forty pieces of",
        "want to compare the models of",
        "ask if there is a discount on",
    ),
}
OPENERS = (
    "hello, I",
    "good morning, we",
    "hi there, my mother and I",
    "sorry to bother you, I",
    "since Monday I",
    "for a week we",
    "dear team, I",
    "just a short note: I",
    "as I told your colleague, I",
    "it is me again, I",
)
GROUPS = {
    "kitchen": ("the washing machine", "the coffee maker", "a set of plates"),
    "outside": ("a garden lamp", "a bicycle", "the front door"),
    "office": ("two chairs", "the printer upstairs", "the new phone"),
    "home": ("the heating", "the blue sofa", "an electric drill"),
}
CHANNELS = ("app", "mail", "phone", "shop")
TOPICS = {
    "delivery": ("late", "lost", "courier", "parcel"),
    "money": ("refund", "price", "charged", "invoice"),
    "account": ("password", "login", "profile", "email"),
}
FILLERS = ("my", "the", "order", "was", "again", "please", "and", "never", "so", "one", "today")


@dataclass(frozen=True)
class Case:
    """One training: its rows, its settings, and what was planted in it.

    `wrong` are the ids of the train examples with a planted wrong label, `failing` the ids of the
    eval examples of the planted group. With `steps` the training stops after so many. `evaluated`
    adds the evaluation points that a loop has, which the rule on many wrong labels needs.
    """

    what: str
    task: str
    seed: int
    train: tuple[Row, ...]
    eval: tuple[Row, ...]
    rate: float
    epochs: int
    wrong: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    steps: int | None = None
    evaluated: bool = False


# --- tasks -------------------------------------------------------------------------------------


def routing(draw: random.Random) -> Row:
    """The team that a request is for, which a phrase decides; tagged by the thing it is about."""
    group, team = draw.choice(list(GROUPS)), draw.choice(list(TEAMS))
    words = [draw.choice(OPENERS), draw.choice(TEAMS[team]), draw.choice(GROUPS[group])]
    return {"prompt": " ".join(words) + "\nteam:", "completion": f" {team}", "tags": [group]}


def topic(draw: random.Random) -> Row:
    """The topic of a few words, which one of them decides; tagged with the channel named first."""
    channel, label = draw.choice(CHANNELS), draw.choice(list(TOPICS))
    words = [*draw.choices(FILLERS, k=draw.randint(2, 6)), draw.choice(TOPICS[label])]
    draw.shuffle(words)
    text = f"{channel}: {' '.join(words)}\ntopic:"
    return {"prompt": text, "completion": f" {label}", "tags": [channel]}


def sentiment(draw: random.Random) -> Row:
    """A message of the quickstart; its own tags and that of the channel it came by."""
    row = draw.choice(MESSAGES)
    channel = draw.choice(CHANNELS)
    return {
        "prompt": f"{channel}: {row['prompt']}",
        "completion": row["completion"],
        "tags": [*row["tags"], channel],
    }


def _messages() -> list[Row]:
    files = (QUICKSTART / f"{name}.jsonl" for name in ("train", "eval", "holdout"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


MESSAGES = _messages()
TASKS: dict[str, Callable[[random.Random], Row]] = {
    "routing": routing,
    "topic": topic,
    "sentiment": sentiment,
}
HELD_OUT: dict[str, Callable[[random.Random], Row]] = {"library": library}
"""Tasks that no rule was mended on."""
SIZES = {"routing": 280, "topic": 240, "sentiment": 360, "library": 280}
EVAL = 150
LONG = 16
"""Epochs for messages that people wrote; seven are enough for the made-up ones."""


def rows_of(task: str, count: int, draw: random.Random) -> list[Row]:
    """So many different rows, with ids."""
    found: dict[str, Row] = {}
    while len(found) < count:
        row = {**TASKS, **HELD_OUT}[task](draw)
        found.setdefault(row["prompt"].rpartition(": ")[2], row)
    return [{"id": f"{n:04d}", **row} for n, row in enumerate(found.values())]


def labels_of(rows: Sequence[Row]) -> list[str]:
    """The labels that occur."""
    return sorted({row["completion"] for row in rows})


# --- cases -------------------------------------------------------------------------------------


def drawn(what: str, task: str, seed: int, draw: random.Random) -> Case:
    """A case with the usual settings and nothing planted."""
    rows = rows_of(task, SIZES[task] + EVAL, draw)
    return Case(what, task, seed, tuple(rows[EVAL:]), tuple(rows[:EVAL]), 8e-3, 7)


def planted(first: int) -> Iterator[Case]:
    """Groups with wrong labels, and groups that are missing."""
    ways = {
        "routing": (one_label_a_tag, next_label, no_label) * 4,
        "topic": (one_label_a_tag, next_label, no_label) * 4,
        "sentiment": (one_label_a_tag, one_label_a_word) * 6,
    }
    seed = first
    for task, several in ways.items():
        for way in several:
            draw = random.Random(f"planted-{task}-{way.__name__}-{seed}")
            yield way(drawn("planted", task, seed, draw), draw)
            seed += 1
    for other in range(seed, seed + 6):
        draw = random.Random(f"planted-half-{other}")
        yield mostly_wrong(drawn("planted", ("routing", "topic")[other % 2], other, draw), draw)


def one_label_a_tag(case: Case, draw: random.Random) -> Case:
    """All train rows of one tag have the same label, as by a tool's default."""
    tag = draw.choice(list(GROUPS) if case.task == "routing" else CHANNELS)
    label = " neutral" if case.task == "sentiment" else draw.choice(labels_of(case.train))
    changed = relabelled(
        case, lambda row: tag in row["tags"], dict.fromkeys(labels_of(case.train), label)
    )
    return replace(changed, what="planted: one label for a tag")


def one_label_a_word(case: Case, draw: random.Random) -> Case:
    """All train rows with one word have the same label."""
    word = draw.choice(words_of(case))
    changed = relabelled(
        case, lambda row: word in words(row), dict.fromkeys(labels_of(case.train), " neutral")
    )
    return replace(changed, what="planted: one label for a word")


def next_label(case: Case, draw: random.Random) -> Case:
    """The train rows with one of the words that decide the label have the next label."""
    labels = labels_of(case.train)
    labels_with: dict[str, set[str]] = {}
    for row in case.train:
        for word in words(row):
            labels_with.setdefault(word, set()).add(row["completion"])
    word = draw.choice([word for word in words_of(case) if len(labels_with.get(word, "")) == 1])
    after = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    changed = relabelled(case, lambda row: word in words(row), after)
    return replace(changed, what="planted: another label for a word")


def no_label(case: Case, draw: random.Random) -> Case:
    """One label is not in the train set."""
    label = draw.choice(labels_of(case.train))
    return replace(
        case,
        what="planted: a label is missing",
        train=tuple(row for row in case.train if row["completion"] != label),
        failing=chosen(case.eval, lambda row: row["completion"] == label),
    )


def mostly_wrong(case: Case, draw: random.Random) -> Case:
    """Two of three train rows of one tag have the next label."""
    tag = draw.choice(list(GROUPS) if case.task == "routing" else CHANNELS)
    labels = labels_of(case.train)
    after = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    inside = chosen(case.train, lambda row: tag in row["tags"])
    wrong = {id_ for id_ in sorted(inside) if draw.random() < 2 / 3}
    train = tuple(
        {**row, "completion": after[row["completion"]]} if row["id"] in wrong else row
        for row in case.train
    )
    failing = chosen(case.eval, lambda row: tag in row["tags"])
    what = "planted: 2 of 3 labels of a tag wrong"
    return replace(case, what=what, train=train, failing=failing)


def relabelled(case: Case, which: Callable[[Row], bool], labels: dict[str, str]) -> Case:
    """The case with other labels in some train rows; such eval rows keep theirs, and will fail."""
    train = tuple(
        {**row, "completion": labels[row["completion"]]} if which(row) else row
        for row in case.train
    )
    return replace(case, train=train, failing=chosen(case.eval, which))


def words_of(case: Case) -> list[str]:
    """Words that 5% to 25% of the prompts contain."""
    counts: dict[str, int] = {}
    for row in case.eval:
        for word in set(words(row)):
            counts[word] = counts.get(word, 0) + 1
    return sorted(w for w, n in counts.items() if 0.05 <= n / len(case.eval) <= 0.25)


def words(row: Row) -> list[str]:
    """The words of a row's prompt, without the question at its end."""
    text = row["prompt"].rpartition("\n")[0]
    return "".join(c if c.isalpha() else " " for c in text).split()


def chosen(rows: Sequence[Row], which: Callable[[Row], bool]) -> frozenset[str]:
    """The ids of the rows that `which` picks."""
    return frozenset(row["id"] for row in rows if which(row))


def healthy(first: int) -> Iterator[Case]:
    """Nothing planted. Sizes, learning rates and epochs vary; one in four has 5% wrong labels."""
    for seed in range(first, first + 42):
        task = list(TASKS)[seed % len(TASKS)]
        draw = random.Random(f"healthy-{task}-{seed}")
        case = drawn("healthy", task, seed, draw)
        case = replace(
            case,
            train=case.train[: round(len(case.train) * draw.choice((0.75, 0.9, 1.0)))],
            eval=case.eval[: draw.choice((80, 120, 150))],
            rate=draw.choice((6e-3, 8e-3, 1.2e-2)),
            epochs=draw.choice((6, 8)),
        )
        if seed % 4 == 3:
            noisy = mistaken(case, 0.05, draw)
            case = replace(noisy, what="healthy, 5% noise", eval=with_noise(case.eval, 0.05, draw))
        yield case


def clean(first: int) -> Iterator[Case]:
    """Nothing planted, and enough epochs for messages that people wrote."""
    for seed in range(first, first + 6):
        draw = random.Random(f"clean-{seed}")
        yield replace(drawn("clean, trained long", "sentiment", seed, draw), epochs=LONG)


def stopped_early(first: int) -> Iterator[Case]:
    """Nothing planted, but so few epochs that whole groups are not learned yet."""
    for seed in range(first, first + 12):
        task = ("routing", "topic")[seed % 2]
        draw = random.Random(f"early-{seed}")
        yield replace(drawn("stopped early", task, seed, draw), epochs=draw.choice((2, 3)))


def wrong_labels(first: int) -> Iterator[Case]:
    """A share of the train labels, drawn at random, is wrong."""
    seed = first
    for share in (0.03, 0.05, 0.10):
        for task in TASKS:
            for _ in range(3):
                draw = random.Random(f"wrong-{task}-{seed}")
                case = mistaken(drawn(f"{share:.0%} wrong", task, seed, draw), share, draw)
                yield replace(case, epochs=LONG) if task == "sentiment" else case
                seed += 1


def many_wrong(first: int, task: str) -> Iterator[Case]:
    """From none to four in ten of the train labels are wrong, over 2 to 10 epochs; eval is clean.

    Fewer epochs have more rows, so that the model learns the task. In two cases 10% of the labels
    of both sets are wrong; in two others one label is flipped as a whole, which a failing slice or
    a confusion shows.
    """
    seed = first
    for epochs, rows in {2: 400, 3: 400, 5: 240, 10: 150}.items():
        for share in (0.0, 0.1, 0.2, 0.35):
            draw = random.Random(f"many-{task}-{seed}")
            case = _of_many(f"{share:.0%} wrong", task, seed, draw, rows, epochs)
            yield mistaken(case, share, draw)
            seed += 1
    for rows, wrong in ((96, 40), (150, 50)):
        draw = random.Random(f"many-{task}-{seed}")
        case = _of_many(f"{wrong} of {rows} wrong", task, seed, draw, rows, 10)
        yield mistaken(case, wrong / rows, draw)
        seed += 1
    for epochs, rows in {3: 400, 6: 200}.items():
        draw = random.Random(f"many-{task}-{seed}")
        case = _of_many("10% wrong in both", task, seed, draw, rows, epochs)
        noisy = mistaken(case, 0.1, draw)
        yield replace(noisy, eval=with_noise(case.eval, 0.1, draw))
        draw = random.Random(f"flipped-{task}-{seed}")
        case = _of_many("one label flipped", task, seed, draw, rows, epochs)
        yield one_label_flipped(case, draw)
        seed += 1


def _of_many(what: str, task: str, seed: int, draw: random.Random, rows: int, epochs: int) -> Case:
    made = rows_of(task, rows + EVAL, draw)
    train, eval_ = tuple(made[EVAL:]), tuple(made[:EVAL])
    return Case(what, task, seed, train, eval_, 8e-3, epochs, evaluated=True)


def one_label_flipped(case: Case, draw: random.Random) -> Case:
    """All train rows of one label have another."""
    old, new = draw.sample(labels_of(case.train), 2)
    wrong = chosen(case.train, lambda row: row["completion"] == old)
    changed = relabelled(case, lambda row: row["completion"] == old, {old: new})
    return replace(changed, wrong=wrong)


def mistaken(case: Case, share: float, draw: random.Random) -> Case:
    """The case with this share of the train labels replaced by others."""
    train = with_noise(case.train, share, draw)
    pairs = zip(case.train, train, strict=True)
    return replace(case, train=train, wrong=frozenset(o["id"] for o, n in pairs if o != n))


def with_noise(rows: Sequence[Row], share: float, draw: random.Random) -> tuple[Row, ...]:
    """The rows with this share of the labels replaced by others."""
    labels = labels_of(rows)
    places = set(draw.sample(range(len(rows)), round(share * len(rows))))
    return tuple(
        {**row, "completion": draw.choice([x for x in labels if x != row["completion"]])}
        if place in places
        else row
        for place, row in enumerate(rows)
    )
