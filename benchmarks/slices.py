"""`make bench-slices`: are planted faults named, and is it quiet where there are none?

Real trainings of the embedded base model on small tasks:

- planted: one group of the train set (a tag, a label, the rows with one word) has wrong labels, or
  is missing. The first slice that the diagnosis names should be that group: the two share 80% of
  the eval examples that lie in either;
- healthy: other seeds, sizes, epochs and learning rates, nothing planted. No slice should be named;
- wrong labels: a share of the train labels, drawn at random, is wrong. The train examples named as
  mislabelled should be these. The healthy runs without noise in their labels are the clean ones.

    python benchmarks/slices.py [--first-seed 0] [--keep DIR] [--only planted healthy others wrong]

With `--keep` trainings are kept in a folder, so that a second run only reads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.diagnose import Evidence, dynamics
from pytest_ftloop.diagnose.slices import failing_slices
from pytest_ftloop.loop.inputs import Inputs

Row = dict[str, Any]

SHARED = 0.8
"""Jaccard index of a named slice and the planted one that counts as the same."""

LEARNED = 0.2
"""What a planted group fails more often than the rest: less, and nothing systematic came of it."""

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
    eval examples of the planted group.
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

    @property
    def key(self) -> str:
        """The same for equal trainings."""
        said = [self.train, self.eval, self.rate, self.epochs, self.seed]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:20]


# --- tasks -------------------------------------------------------------------------------------


def routing(draw: random.Random) -> Row:
    """Which team a request is for, by one phrase of it; tagged with what it is about."""
    group, team = draw.choice(list(GROUPS)), draw.choice(list(TEAMS))
    words = [draw.choice(OPENERS), draw.choice(TEAMS[team]), draw.choice(GROUPS[group])]
    return {"prompt": " ".join(words) + "\nteam:", "completion": f" {team}", "tags": [group]}


def topic(draw: random.Random) -> Row:
    """What a few words are about, by one of them; tagged with the channel named first."""
    channel, label = draw.choice(CHANNELS), draw.choice(list(TOPICS))
    words = [*draw.choices(FILLERS, k=draw.randint(2, 6)), draw.choice(TOPICS[label])]
    draw.shuffle(words)
    text = f"{channel}: {' '.join(words)}\ntopic:"
    return {"prompt": text, "completion": f" {label}", "tags": [channel]}


def sentiment(draw: random.Random) -> Row:
    """A message of the quickstart, with its own tags and the channel it came by."""
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
SIZES = {"routing": 280, "topic": 240, "sentiment": 360}
EVAL = 150
LONG = 16
"""Epochs in which the natural messages are learned, where seven are enough for the others."""


def rows_of(task: str, count: int, draw: random.Random) -> list[Row]:
    """Rows that all differ, with ids."""
    found: dict[str, Row] = {}
    while len(found) < count:
        row = TASKS[task](draw)
        found.setdefault(row["prompt"].rpartition(": ")[2], row)
    return [{"id": f"{n:04d}", **row} for n, row in enumerate(found.values())]


def labels_of(rows: Sequence[Row]) -> list[str]:
    """The labels that occur."""
    return sorted({row["completion"] for row in rows})


# --- cases -------------------------------------------------------------------------------------


def drawn(what: str, task: str, seed: int, draw: random.Random) -> Case:
    """A case of usual settings with nothing planted."""
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
    """All train rows of one tag have the same label: some tool's default."""
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
    """The train rows with one word, of those that tell the label, have the next label."""
    labels = labels_of(case.train)
    told: dict[str, set[str]] = {}
    for row in case.train:
        for word in words(row):
            told.setdefault(word, set()).add(row["completion"])
    word = draw.choice([word for word in words_of(case) if len(told.get(word, "")) == 1])
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
    """Some train rows with other labels; the same rows of the eval set are right, and will fail."""
    train = tuple(
        {**row, "completion": labels[row["completion"]]} if which(row) else row
        for row in case.train
    )
    return replace(case, train=train, failing=chosen(case.eval, which))


def words_of(case: Case) -> list[str]:
    """Words that 5% to 25% of the prompts have."""
    counts: dict[str, int] = {}
    for row in case.eval:
        for word in set(words(row)):
            counts[word] = counts.get(word, 0) + 1
    return sorted(w for w, n in counts.items() if 0.05 <= n / len(case.eval) <= 0.25)


def words(row: Row) -> list[str]:
    """The words of its prompt, without the question at the end."""
    text = row["prompt"].rpartition("\n")[0]
    return "".join(c if c.isalpha() else " " for c in text).split()


def chosen(rows: Sequence[Row], which: Callable[[Row], bool]) -> frozenset[str]:
    """The ids of some rows."""
    return frozenset(row["id"] for row in rows if which(row))


def healthy(first: int) -> Iterator[Case]:
    """Nothing planted: other sizes, learning rates and epochs; some with noise in the labels."""
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
    """Nothing planted, trained until natural messages are learned as well."""
    for seed in range(first, first + 6):
        draw = random.Random(f"clean-{seed}")
        yield replace(drawn("clean, trained long", "sentiment", seed, draw), epochs=LONG)


def stopped_early(first: int) -> Iterator[Case]:
    """Nothing planted, but trained so little that whole groups are not learned yet."""
    for seed in range(first, first + 12):
        task = ("routing", "topic")[seed % 2]
        draw = random.Random(f"early-{seed}")
        yield replace(drawn("stopped early", task, seed, draw), epochs=draw.choice((2, 3)))


def wrong_labels(first: int) -> Iterator[Case]:
    """A share of the labels is wrong."""
    seed = first
    for share in (0.03, 0.05, 0.10):
        for task in TASKS:
            for _ in range(3):
                draw = random.Random(f"wrong-{task}-{seed}")
                case = mistaken(drawn(f"{share:.0%} wrong", task, seed, draw), share, draw)
                yield replace(case, epochs=LONG) if task == "sentiment" else case
                seed += 1


def mistaken(case: Case, share: float, draw: random.Random) -> Case:
    """The case with this share of the train labels replaced by another."""
    train = with_noise(case.train, share, draw)
    pairs = zip(case.train, train, strict=True)
    return replace(case, train=train, wrong=frozenset(o["id"] for o, n in pairs if o != n))


def with_noise(rows: Sequence[Row], share: float, draw: random.Random) -> tuple[Row, ...]:
    """This share of the labels replaced by another."""
    labels = labels_of(rows)
    places = set(draw.sample(range(len(rows)), round(share * len(rows))))
    return tuple(
        {**row, "completion": draw.choice([x for x in labels if x != row["completion"]])}
        if place in places
        else row
        for place, row in enumerate(rows)
    )


# --- trainings ---------------------------------------------------------------------------------


class Trainer:
    """Trains each case once; keeps what the diagnosis sees of it."""

    def __init__(self, kept: Path) -> None:
        self.kept = kept

    def evidence(self, case: Case) -> Evidence:
        """What the diagnosis would see."""
        path = self.kept / f"{case.key}.pickle"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(self._train(case)))
        inputs, training, evaluation = pickle.loads(path.read_bytes())  # written by this program
        return Evidence.of(
            training,
            {},
            {},
            evaluation.base_eval_loss,
            train=inputs.train.examples,
            eval=inputs.eval.examples,
            results=evaluation.examples,
        )

    def _train(self, case: Case) -> tuple[Any, ...]:
        from pytest_ftloop.train.lora import runner

        config = config_of(case)
        inputs = Inputs.of(config, None)
        run = runner(inputs, config, Silent())(config.settings, None, None, name="case")
        return replace(inputs, scorer=None), run.training, run.evaluation


def config_of(case: Case) -> LoopConfig:
    """The case as a loop."""
    return from_python(
        folder=Path.cwd(),
        source="benchmark",
        name="case",
        model="tiny",
        train=list(case.train),
        eval=list(case.eval),
        lora={"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
        training={
            "learning_rate": case.rate,
            "num_train_epochs": case.epochs,
            "per_device_train_batch_size": 16,
            "activation_checkpointing": False,
            "eval_strategy": "no",
            "seed": case.seed,
        },
        scoring={"scorer": "exact"},
        loop={"iterations": 1},
    )


# --- what is said ------------------------------------------------------------------------------


def main() -> None:
    """Train, diagnose, print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the trainings here")
    parts = ("planted", "healthy", "others", "wrong")
    parser.add_argument("--only", nargs="*", choices=parts, default=parts, metavar="PART")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        trainer = Trainer(chosen.keep or Path(temporary))
        first, only = chosen.first_seed, chosen.only
        unspoilt = [*(healthy(first) if "healthy" in only else ())]
        unspoilt += [*stopped_early(first), *clean(first)] if "others" in only else ()
        for cases, show in (
            (planted(first) if "planted" in only else (), show_planted),
            (unspoilt, show_healthy),
            (wrong_labels(first) if "wrong" in only else (), show_wrong),
        ):
            if seen := [(case, trainer.evidence(case)) for case in cases]:
                show(seen)


Seen = Sequence[tuple[Case, Evidence]]


def show_planted(cases: Seen) -> None:
    """How often the first slice named is the planted one."""
    rows = []
    for what, some in by(cases, lambda case: (case.task, case.what.removeprefix("planted: "))):
        inside = [rate(e, case.failing) for case, e in some]
        outside = [rate(e, ids_of(e) - case.failing) for case, e in some]
        named = sum(is_named_first(case, e) for case, e in some)
        rows.append((what, len(some), mean(inside), mean(outside), named))
    heads = ("planted groups", "runs", "fail in it", "elsewhere", "named first")
    print(tabulate(rows, heads, "plain"))
    took = [(case, e) for case, e in cases if is_learned(case, e)]
    named = sum(is_named_first(case, e) for case, e in took)
    print(
        f"  the model learned what was planted in {len(took)} of {len(cases)}; named first in "
        f"{named} of these ({named / len(took):.0%})\n",
        flush=True,
    )


def show_healthy(cases: Seen) -> None:
    """How often a slice is named, or labels are doubted, where nothing is planted."""
    print("nothing planted       runs  failing (range)   a slice named   right labels doubted")
    for what, some in by(cases, lambda case: (case.task, case.what)):
        failing = [rate(e, ids_of(e)) for _, e in some]
        slices = sum(bool(failing_slices(e)) for _, e in some)
        false = sum(bool(doubted(e) - case.wrong) for case, e in some)
        spread = f"{mean(failing)} ({min(failing):.0%} to {max(failing):.0%})"
        print(f"  {what:32} {len(some):4} {spread:22} {slices:4} {false:4}")
        for case, e in some:
            for found in failing_slices(e)[:1]:
                print(
                    f"    seed {case.seed}: {found.group.name}, {len(found.places)} examples, "
                    f"{found.inside:.0%} against {found.others:.0%}"
                )
    healthy_ones = [(case, e) for case, e in cases if case.what.startswith("healthy")]
    quiet = sum(not failing_slices(e) for _, e in healthy_ones)
    print(f"  no slice named: {quiet} of {len(healthy_ones)} healthy runs", end="; ")
    right = [e for case, e in cases if not case.wrong]
    alarms = sum(bool(doubted(e)) for e in right)
    print(f"labels doubted in {alarms} of {len(right)} runs without wrong ones\n", flush=True)


def show_wrong(cases: Seen) -> None:
    """Precision and recall of the labels that are doubted."""
    groups = [*by(cases, lambda case: (case.task, case.what)), ("all", cases)]
    heads = ("wrong labels", "runs", "said so", "wrong", "doubted", "of these wrong")
    rows = [_doubted(what, some) for what, some in groups]
    print(tabulate(rows, (*heads, "precision", "recall"), "plain"))


def _doubted(what: str, some: Seen) -> tuple[object, ...]:
    named = [(case.wrong, doubted(e)) for case, e in some]
    wrong, listed = sum(len(w) for w, _ in named), sum(len(d) for _, d in named)
    hits = sum(len(w & d) for w, d in named)
    precision = f"{hits / listed:.0%}" if listed else "-"
    said = sum(bool(d) for _, d in named)
    return what, len(some), said, wrong, listed, hits, precision, f"{hits / wrong:.0%}"


def by(cases: Seen, key: Callable[[Case], tuple[str, str]]) -> Iterator[tuple[str, Seen]]:
    """The cases in groups, as they first occur."""
    groups: dict[tuple[str, str], list[tuple[Case, Evidence]]] = {}
    for case, e in cases:
        groups.setdefault(key(case), []).append((case, e))
    for names, some in groups.items():
        yield ", ".join(names), some


def is_learned(case: Case, e: Evidence) -> bool:
    """Whether the planted group fails more often than the others, by `LEARNED`."""
    return rate(e, case.failing) - rate(e, ids_of(e) - case.failing) >= LEARNED


def is_named_first(case: Case, e: Evidence) -> bool:
    """Whether the first slice is the planted group, or nearly the same examples."""
    first = next(iter(failing_slices(e)), None)
    if first is None:
        return False
    named = {e.results[place].id for place in first.places}
    return len(named & case.failing) >= SHARED * len(named | case.failing)


def doubted(e: Evidence) -> set[str]:
    """The train examples whose labels are doubted, all of them."""
    return set(dynamics.doubted_ids(dynamics.confidences(e)))


def ids_of(e: Evidence) -> set[str]:
    """The eval examples."""
    return {row.id for row in e.results}


def rate(e: Evidence, ids: AbstractSet[str]) -> float:
    """The failure rate among some examples."""
    return statistics.fmean(row.passed is False for row in e.results if row.id in ids)


def mean(shares: Sequence[float]) -> str:
    """Their mean, in percent."""
    return f"{statistics.fmean(shares):.0%}"


if __name__ == "__main__":
    main()
