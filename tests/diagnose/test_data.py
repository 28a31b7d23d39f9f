"""The rules over the data: each finds its fault, and healthy data has none."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ftloop import data
from pytest_ftloop.diagnose import before_training, diagnose
from pytest_ftloop.diagnose.affixes import (
    edges,
    fixed_prefix,
    fixed_suffix,
    missing_prefix,
    missing_suffix,
)
from pytest_ftloop.diagnose.data import RULES
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.gates import Regression, parse_gate
from pytest_ftloop.records import Example, Finding
from tests.fakes import fake_metrics, fake_training

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


def test_healthy_data_has_no_finding() -> None:
    """A set of labels, its eval set and the usual gates: nothing to say."""
    gates = (parse_gate("pass_rate", ">= 80%"), parse_gate("eval_loss", "<= 1"), Regression())
    assert {} == found(TRAIN, EVAL, *gates)


def test_no_data_no_finding() -> None:
    """Evidence without examples, as curves of another trainer come, has no finding of data."""
    evidence = Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0)
    assert [] == [rule(evidence) for rule in RULES if rule(evidence)]


def test_known_findings_are_not_looked_for_again() -> None:
    """What was found before training is in the iteration's findings, before those of its curves."""
    leaked = EVAL[:30] + TRAIN[:70]
    known = before_training(examples(TRAIN), examples(leaked))
    training = fake_training(evals=(2.0, 1.0, 1.5, 2.0))
    both = {"train": examples(TRAIN), "eval": examples(leaked)}
    evidence = Evidence.of(training, fake_metrics(), fake_metrics(), 5.0, **both)
    kinds = [finding.kind for finding in diagnose(evidence, known)]
    assert kinds == [finding.kind for finding in diagnose(evidence)]
    assert ["leak", "overfitting"] == kinds[:2]
    assert "leak" not in [finding.kind for finding in diagnose(evidence, ())]


# --- templates -----------------------------------------------------------------------------------


def ended(rows_: list[dict[str, Any]], end: str) -> list[dict[str, Any]]:
    return edited(rows_, len(rows_), prompt=lambda p: p.replace("\nintent:", end))


@pytest.mark.parametrize(
    "end", ["\nlabel:", "", " intent:", "\nintent: ", "\nintent:\n", " ->", "\n\n### Answer:"]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_prompts_that_end_otherwise(end: str, swapped: bool) -> None:
    """Prompts of one set end otherwise than all of the other's: an error, whichever is which."""
    sets = (TRAIN, ended(EVAL, end))
    finding = found(*(sets[::-1] if swapped else sets))["template-mismatch"]
    assert ("error", False) == (finding.severity, finding.tunable)
    assert finding.message.startswith(("The train prompts end with", "The eval prompts end with"))


def test_some_prompts_of_another_template() -> None:
    """Where some eval prompts have the template after all, it is a warning with their share."""
    mixed = ended(EVAL[:60], "\nlabel:") + EVAL[60:]
    finding = found(TRAIN, mixed)["template-mismatch"]
    assert "warning" == finding.severity
    assert finding.message == r"The train prompts end with '\nintent:'; of the eval ones 40% do."
    assert {} == found(TRAIN, ended(EVAL[:40], "\nlabel:") + EVAL[40:])


def chats(rows_: list[dict[str, Any]], system: str = "") -> list[dict[str, Any]]:
    said = [{"role": "system", "content": system}] if system else []
    return [
        {
            "id": row["id"],
            "messages": [
                *said,
                {"role": "user", "content": row["prompt"].removesuffix("\nintent:")},
                {"role": "assistant", "content": row["completion"].strip()},
            ],
        }
        for row in rows_
    ]


def test_system_message_in_one_set_only() -> None:
    """A system message that the other set lacks, or another one, is another template."""
    system = "You name the intent."
    assert {} == found(chats(TRAIN, system), chats(EVAL, system))
    for other in ("", "You are a helpful assistant."):
        finding = found(chats(TRAIN, system), chats(EVAL, other))["template-mismatch"]
        assert finding.message.startswith("The train prompts begin with 'system: You name the int")
        assert "error" == finding.severity


def test_questions_are_no_template() -> None:
    """That one set's texts are all questions, and not the other's, is no template."""
    asked = [{**row, "prompt": f"{row['prompt'][:-8].rstrip('?!')}?\nintent:"} for row in TRAIN]
    said = [{**row, "prompt": f"{row['prompt'][:-8].rstrip('?!')}.\nintent:"} for row in EVAL]
    assert {} == found(asked, said)
    bare = [[{**r, "prompt": r["prompt"][:-8]} for r in rows_] for rows_ in (asked, said)]
    assert {} == found(*bare)


@pytest.mark.parametrize(
    ("completion", "words"),
    [
        (lambda c: c.strip(), "The train completions begin with ' '; of the eval ones 0% do."),
        (lambda c: f"{c}.", "The train completions end without marks or spaces"),
        (lambda c: f'{{"intent": "{c.strip()}"}}', "The train completions begin with ' '"),
    ],
)
def test_completions_of_another_form(completion: Any, words: str) -> None:
    """Marks and spaces around the completions that differ between the sets are a warning."""
    finding = found(TRAIN, edited(EVAL, 100, completion=completion))["template-mismatch"]
    assert "warning" == finding.severity
    assert finding.message.startswith(words)


def test_few_rows_tell_no_template() -> None:
    """Under 10 examples a common end may be chance."""
    assert {} == found(TRAIN, ended(EVAL[:9], "\nlabel:"))
    assert ["template-mismatch"] == list(found(TRAIN, ended(EVAL[:10], "\nlabel:")))


@given(st.lists(st.text("ab\n:", max_size=6), min_size=1), st.floats(0.05, 1.0))
def test_fixed_affixes_are_what_so_many_have(texts: list[str], share: float) -> None:
    """At least that share of the texts has the affix; one longer by a character fewer have."""
    for affix, has in ((fixed_prefix, str.startswith), (fixed_suffix, str.endswith)):
        part = affix(texts, share)
        assert sum(has(text, part) for text in texts) >= share * len(texts)
        for longer in {text[: len(part) + 1] for text in texts if len(text) > len(part)}:
            if affix is fixed_prefix:
                assert sum(text.startswith(longer) for text in texts) < share * len(texts)


@given(st.text("ab:", max_size=6), st.lists(st.text("ab:", max_size=6), min_size=1))
def test_missing_affixes_are_what_half_lack(affix: str, texts: list[str]) -> None:
    """Half of the texts have what is not missing, and it is part of the affix."""
    missing = missing_prefix(affix, texts)
    assert affix.endswith(missing)
    kept = affix.removesuffix(missing) if missing else affix
    assert 2 * sum(text.startswith(kept) for text in texts) >= len(texts)
    assert missing == missing_suffix(affix[::-1], [text[::-1] for text in texts])[::-1]


def test_edges() -> None:
    """The marks around a text; a text of marks alone is both."""
    assert [(' {"', '"}'), ("", ""), ("??", "??"), ("", "")] == [
        edges(text) for text in (' {"a"}', "a b", "??", "")
    ]


# --- one set in the other ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "severity"), [(0, None), (1, "warning"), (9, "warning"), (10, "error")]
)
def test_eval_examples_in_train(count: int, severity: str | None) -> None:
    """Examples in both sets are named; from a tenth of the eval set on it is an error."""
    copies = [{**row, "id": f"copy-{row['id']}"} for row in EVAL[:count]]
    finding = found(TRAIN + copies, EVAL).get("leak")
    assert severity == (finding.severity if finding else None)
    if finding:
        assert f"{count} of 100 eval examples" in finding.message
        assert "2-000 and copy-2-000" in finding.message
        assert finding.message.count(" and copy-") == min(count, 3)


def test_leak_of_plain_texts() -> None:
    """Plain text is compared whole."""
    texts = [[{"text": row["prompt"]} for row in rows_] for rows_ in (TRAIN, EVAL)]
    assert {} == found(*texts)
    assert "error" == found(texts[0] + texts[1][:20], texts[1])["leak"].severity


def test_leak_in_a_large_eval_set_is_an_info() -> None:
    """One example of many is not worth a warning at each run."""
    large = [{"prompt": f"question {n} of many", "completion": f"answer {n}"} for n in range(2000)]
    assert "info" == found(large[:1000], large[999:])["leak"].severity


def typo(prompt: str) -> str:
    return prompt.replace("e", "3", 1).upper().replace("\nINTENT:", "\nintent:")


def test_near_duplicates() -> None:
    """A typo and other case hide no copy; under a tenth of the eval set nothing is said."""
    near = edited(EVAL, 100, prompt=typo, id=lambda i: f"near-{i}")
    finding = found(TRAIN + near[:30], EVAL)["near-duplicates"]
    assert "warning" == finding.severity
    assert 30 <= finding.evidence["eval_examples"] < 40  # some are near to others as they are
    assert "2-000 and near-2-000" in finding.message
    assert "near-duplicates" not in found(TRAIN + near[:3], EVAL)


def test_alike_with_other_answers_are_no_duplicates() -> None:
    """Questions that differ in a digit and in their answer are meant so."""
    sums = [
        {"prompt": f"what is the sum of {n} and {n + 7}?", "completion": f" {2 * n + 7}"}
        for n in range(10, 99)
    ]
    assert {} == found(sums[::2], sums[1::2])


def test_near_duplicates_without_rapidfuzz(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is not installed the rule is silent."""
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz", None)
    near = edited(EVAL, 100, prompt=typo, id=lambda i: f"near-{i}")
    assert "near-duplicates" not in found(TRAIN + near, EVAL)


def test_large_sets_take_seconds() -> None:
    """Twenty thousand train and five thousand eval examples, long texts among them."""
    chance = random.Random(3)
    words = questions(500, 5)

    def many(count: int, id_: str) -> tuple[Example, ...]:
        return examples(
            [
                {
                    "id": f"{id_}{n}",
                    "prompt": " ".join(chance.sample(words, 1 + 20 * (n % 10 == 0))) + f" {n}",
                    "completion": f" {n % 50}",
                }
                for n in range(count)
            ]
        )

    train, eval_ = many(20_000, "t"), many(5_000, "e")
    began = time.perf_counter()
    before_training(train, eval_)
    assert time.perf_counter() - began < 20  # some 2 s on one idle core


# --- rows of one set -----------------------------------------------------------------------------


def relabelled(rows_: list[dict[str, Any]], count: int, prefix: str) -> list[dict[str, Any]]:
    """Copies of rows with the next label in place of their own."""
    return [
        {
            **row,
            "id": f"{prefix}{row['id']}",
            "completion": f" {LABELS[(LABELS.index(row['completion'].strip()) + 1) % 4]}",
        }
        for row in rows_[:count]
    ]


@pytest.mark.parametrize(
    ("count", "severity"), [(1, None), (2, None), (20, "warning"), (60, "error")]
)
def test_contradictions_in_train(count: int, severity: str | None) -> None:
    """The same prompt with another label can't be learned; a fifth of such rows is an error."""
    finding = found(TRAIN + relabelled(TRAIN, count, "x"), EVAL).get("contradictions")
    assert severity == (finding.severity if finding else None)
    if finding:
        assert f"{count} of {200 + count} train examples" in finding.message
        assert "1-000 and x1-000" in finding.message


def test_contradictions_between_train_and_eval() -> None:
    """An eval example with a train prompt and another label is named with it."""
    finding = found(TRAIN, EVAL[:70] + relabelled(TRAIN, 30, "x"))["contradictions"]
    assert "error" == finding.severity
    assert "30 of 100 eval examples" in finding.message
    assert "x1-000 and 1-000" in finding.message


def test_long_answers_do_not_contradict() -> None:
    """One prompt may have many long completions."""
    stories = [{"prompt": "tell a story", "completion": f"{n} " * 40} for n in range(50)]
    assert "contradictions" not in found(stories, stories[:10])


def test_empty_completions() -> None:
    """White space is no completion; a few are a warning, half of a set an error."""
    finding = found(edited(TRAIN, 10, completion=" "), EVAL)["empty-completions"]
    assert ("warning", 10) == (finding.severity, finding.evidence["train_examples"])
    assert "10 of 200 train examples (1-000, 1-001, 1-002, ...)" in finding.message
    half = found(TRAIN, edited(EVAL, 50, completion="\n"))["empty-completions"]
    assert ("error", 50) == (half.severity, half.evidence["eval_examples"])
    assert "empty-completions" not in found(edited(TRAIN, 1, completion=" "), EVAL)


def test_duplicates() -> None:
    """Copies of rows, from a tenth of the set on."""
    copies = [{**row, "id": f"copy-{row['id']}"} for row in TRAIN[:50]]
    finding = found(TRAIN + copies, EVAL)["duplicates"]
    assert ("warning", 50) == (finding.severity, finding.evidence["repeats"])
    assert "(1-000, copy-1-000)" in finding.message
    assert {} == found(TRAIN + copies[:20], EVAL)


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "gate", "severity"),
    [
        (1, "80%", None),
        (15, "80%", "warning"),
        (15, "90%", "error"),
        (20, "50%", "error"),
    ],
)
def test_labels_that_train_lacks(count: int, gate: str, severity: str | None) -> None:
    """Labels of eval alone; an error from a fifth on, or where a gate is out of reach."""
    rate = parse_gate("pass_rate", f">= {gate}")
    finding = found(TRAIN, edited(EVAL, count, completion=" refund"), rate).get("unseen-labels")
    assert severity == (finding.severity if finding else None)
    if finding:
        assert f"{count} of 100 eval examples expect 1 label" in finding.message
        assert finding.message.endswith("'refund'.")


def test_label_in_another_case() -> None:
    """A label that train writes in another case is shown as train writes it."""
    upper = found(TRAIN, edited(EVAL, 100, completion=str.upper))["unseen-labels"]
    assert "error" == upper.severity
    assert "(train writes '" in upper.message


def test_numbers_and_free_text_are_no_labels() -> None:
    """A number not seen in train can be computed, an answer not seen can be written."""
    counts = [{**row, "completion": f" {n % 20}"} for n, row in enumerate(TRAIN)]
    more = [{**row, "completion": f" {n % 30}"} for n, row in enumerate(EVAL)]
    assert {} == found(counts, more)
    told = [{**row, "completion": f" {row['prompt'][:20]}"} for row in TRAIN]
    assert "unseen-labels" not in found(told, EVAL)


def test_label_imbalance() -> None:
    """One label for nearly all rows, or hardly any row for a label that eval asks for."""
    finding = found(edited(TRAIN, 180, completion=" other"), EVAL)["label-imbalance"]
    assert "warning" == finding.severity
    assert finding.message.startswith("The label 'other' has 18")
    rare = [row for row in TRAIN if row["completion"] != " billing"]
    rare.append(next(row for row in TRAIN if row["completion"] == " billing"))
    finding = found(rare, EVAL)["label-imbalance"]
    assert finding.message.startswith(f"The label 'billing' has 1 of {len(rare)} train examples")


# --- the eval set --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gates", "count", "points"),
    [
        ([("pass_rate", ">= 50%")], 90, 10),
        ([("pass_rate", ">= 50%")], 100, None),
        ([("pass_rate", ">= 90%")], 30, 11),
        ([("pass_rate", ">= 90%")], 40, None),
        ([("eval_loss", "<= 1")], 10, None),
        ([("pass_rate[a]", ">= 80%")], 19, 17),
        ([("pass_rate[a]", ">= 80%")], 20, None),
        ([], 20, 8),
        ([], 60, None),
    ],
)
def test_eval_set_too_small_for_its_gates(
    gates: list[tuple[str, str]], count: int, points: int | None
) -> None:
    """What a gate's examples can't show is said in points, as an info."""
    asked = [parse_gate(*gate) for gate in gates] or [Regression()]
    tagged = [{**row, "tags": ["a"] if n < count else []} for n, row in enumerate(EVAL)]
    eval_ = tagged if gates and "[" in gates[0][0] else tagged[:count]
    finding = found(TRAIN, eval_, *asked).get("small-eval-set")
    assert (points is None) == (finding is None)
    if finding:
        assert "info" == finding.severity
        assert f"too few to show a difference under {points} points" in finding.message


# --- whatever the data ---------------------------------------------------------------------------

TEXTS = st.text(max_size=12) | st.sampled_from(["a", "b", " a", "\n", "a:\nb:"])


@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40),
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40),
)
def test_any_data_is_judged(train: list[tuple[str, str]], eval_: list[tuple[str, str]]) -> None:
    """Whatever the texts, findings are short, plain and untunable, and the same each time."""
    sets = [
        tuple(
            Example(f"i{n}", "", {"prompt": p, "completion": c}, (), p, c)
            for n, (p, c) in enumerate(rows_)
        )
        for rows_ in (train, eval_)
    ]
    findings = before_training(sets[0], sets[1], (Regression(),))
    assert findings == before_training(sets[0], sets[1], (Regression(),))
    for finding in findings:
        assert not finding.tunable
        assert len(finding.message) < 500
        assert all(isinstance(value, int | float | str) for value in finding.evidence.values())
