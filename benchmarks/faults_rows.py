"""Faults of the data: of templates and tokens, of rows, of labels."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from faults_cases import TASKS, Case, Row, Rows, chats, few, numbered, usual


def of_wiring(first: int) -> Iterator[Case]:
    """Settings and templates that spoil which tokens are learned."""
    kind = "truncated-labels"
    for seed, (task, length) in enumerate({"hotel": 36, "topic": 25, "routing": 38}.items(), first):
        case = usual(kind, f"longer answers, max_length {length}", task, seed)
        yield polite(shortest(case)).but(max_length=length)
    kind = "unlearnt-end"
    yield replace(
        chats(few(usual(kind, "a template without end", "hotel", first))), model="endless"
    )
    yield replace(
        chats(few(usual(kind, "the end outside of the answer", "topic", first + 1)), whole=True),
        model="end outside",
    ).but(assistant_only_loss=True)
    yield replace(
        few(usual(kind, "pad is end, pads masked by id", "routing", first + 2)),
        model="pad is end",
        machine="masks by id",
    )
    kind = "prompt-in-loss"
    yield usual(kind, "completion_only_loss false", "hotel", first).but(completion_only_loss=False)
    yield chats(usual(kind, "messages", "routing", first + 1), whole=True)
    yield usual(kind, "completion_only_loss false", "topic", first + 2).but(
        completion_only_loss=False
    )
    kind = "split-prompt"
    for seed, task in enumerate(TASKS, first):
        yield spaced(usual(kind, "prompts end with a space", task, seed))


def shortest(case: Case) -> Case:
    """The case with the 24 eval rows of the shortest prompts, which keep some of their labels."""
    return few(replace(case, eval=tuple(sorted(case.eval, key=lambda row: len(row["prompt"])))))


def polite(case: Case) -> Case:
    """The case with a whole sentence as each answer."""

    def made(row: Row) -> Row:
        return {**row, "completion": f"{row['completion']}. We thank you very much for writing!"}

    return replace(case, train=tuple(map(made, case.train)), eval=tuple(map(made, case.eval)))


def spaced(case: Case) -> Case:
    """The case with the space between prompt and completion at the end of the prompt."""

    def made(row: Row) -> Row:
        return {
            **row,
            "prompt": f"{row['prompt']} ",
            "completion": row["completion"].strip(),
        }

    return replace(case, train=tuple(map(made, case.train)), eval=tuple(map(made, case.eval)))


def of_data(first: int) -> Iterator[Case]:
    """Rows that are copied, contradict each other, or look different in train and eval set."""
    kind = "template-mismatch"
    case = usual(kind, "eval prompts without their last line", "topic", first)
    yield replace(case, eval=changed(case.eval, lambda row: row["prompt"].rpartition("\n")[0]))
    case = usual(kind, "an instruction before train prompts", "hotel", first + 1)
    instruction = "Answer with one word.\n\n"
    yield replace(case, train=changed(case.train, lambda row: instruction + row["prompt"]))
    case = usual(kind, "another last line in eval", "routing", first + 2)
    yield replace(
        case, eval=changed(case.eval, lambda row: row["prompt"].replace("team:", "Department ->"))
    )
    kind = "leak"
    for seed, (task, count) in enumerate({"hotel": 16, "routing": 5, "topic": 40}.items(), first):
        case = usual(kind, f"{count} eval rows in train", task, seed)
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
        case = usual(kind, f"{count} eval rows in train, edited", task, seed)
        copies = tuple(
            {**row, "id": f"c{row['id']}", "prompt": edit(row["prompt"])}
            for row in case.eval[:count]
        )
        yield replace(case, train=case.train + copies)
    kind = "duplicates"
    for seed, (task, share) in enumerate(
        {"routing": 0.3, "topic": 1.0, "hotel": 0.2}.items(), first
    ):
        case = usual(kind, f"{share:.0%} of the rows twice", task, seed)
        copies = tuple({**row, "id": f"c{row['id']}"} for row in case.train)
        yield replace(case, train=case.train + copies[: round(share * len(copies))])
    kind = "contradictions"
    for seed, (task, share) in enumerate(
        {"hotel": 0.1, "topic": 0.3, "routing": 0.05}.items(), first
    ):
        case = usual(kind, f"{share:.0%} of the rows labelled by a second person", task, seed)
        draw = random.Random(f"second-{seed}")
        some = draw.sample(case.train, round(share * len(case.train)))
        others = tuple({**mislabelled(case, row, draw), "id": f"c{row['id']}"} for row in some)
        yield replace(case, train=case.train + others)
    yield from of_labels(first)
    kind = "empty-completions"
    for seed, (task, share) in enumerate(
        {"topic": 0.05, "hotel": 0.2, "routing": 0.1}.items(), first
    ):
        case = usual(kind, f"{share:.0%} of the completions empty", task, seed)
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
        case = usual(kind, f"{count} eval rows, pass_rate {bound}", task, seed)
        yield replace(case, eval=case.eval[:count], gates={"pass_rate": bound})


def of_labels(first: int) -> Iterator[Case]:
    """Labels that are missing, spelt differently, or too frequent."""
    kind = "unseen-labels"
    case = usual(kind, "a label is not in train", "hotel", first)
    yield without(case, " taxi")
    case = usual(kind, "a label is not in train", "routing", first + 1)
    yield without(case, " sales")
    case = usual(kind, "eval writes labels in capitals", "topic", first + 2)
    yield replace(
        case,
        eval=tuple({**row, "completion": row["completion"].upper()} for row in case.eval),
    )
    kind = "label-imbalance"
    case = usual(kind, "9 of 10 rows are money", "topic", first)
    yield imbalanced(case, " money", 0.9)
    case = usual(kind, "85% of the rows are billing", "routing", first + 1)
    yield imbalanced(case, " billing", 0.85)
    case = usual(kind, "one row of parking", "hotel", first + 2)
    kept = next(row for row in case.train if row["completion"] == " parking")
    yield replace(
        case,
        train=tuple(r for r in case.train if r["completion"] != " parking" or r is kept),
    )


def imbalanced(case: Case, label: str, share: float) -> Case:
    """The case with `share` of its train rows under one label, filled up from the holdout."""
    task = TASKS[case.what.partition(":")[0]](case.training["seed"] - 42)
    known = {row["prompt"] for row in case.train}
    more = [row for row in task.holdout if row["prompt"] not in known]
    pool = [*case.train, *numbered("m", more)]
    common = [row for row in pool if row["completion"] == label]
    rare = [row for row in pool if row["completion"] != label]
    return replace(case, train=(*common, *rare[: round(len(common) * (1 / share - 1))]))


def without(case: Case, label: str) -> Case:
    """The case without the train rows of a label."""
    return replace(case, train=tuple(r for r in case.train if r["completion"] != label))


def of_examples(first: int) -> Iterator[Case]:
    """Wrong labels, at random or for a whole group."""
    kind = "mislabelled"
    for seed, (task, share) in enumerate(
        {"hotel": 0.05, "routing": 0.08, "topic": 0.05}.items(), first
    ):
        case = usual(kind, f"{share:.0%} of the train labels wrong", task, seed)
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
        case = usual(kind, f"one label for all rows with {words!r}", task, seed)
        case = case.but(num_train_epochs=10)
        yield replace(
            case,
            train=tuple(
                {**row, "completion": label} if words in row["prompt"] else row
                for row in case.train
            ),
        )


def changed(rows: Rows, prompt: Callable[[Row], str]) -> Rows:
    """The rows with the prompts that `prompt` makes of them."""
    return tuple({**row, "prompt": prompt(row)} for row in rows)


def mislabelled(case: Case, row: Row, draw: random.Random) -> Row:
    """The row with another of the task's labels."""
    labels = sorted({other["completion"] for other in case.train} - {row["completion"]})
    return {**row, "completion": draw.choice(labels)}
