"""Examples that recur: in both sets, in one, or with another completion."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from pytest_ftloop.core.records import Example
from pytest_ftloop.diagnose.copies import guard_leaks
from pytest_ftloop.diagnose.data import before_training
from tests.diagnose.fakes_data import EVAL, LABELS, TRAIN, edited, examples, found, questions


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


@pytest.mark.parametrize(
    ("of_train", "of_eval", "wanted"),
    [
        (0, 0, []),
        (1, 0, ["1 of 100 rows of the guard g are in the train set: g0 and t0."]),
        (0, 2, ["2 of 100 rows of the guard g are in the eval set: g0 and e0, g1 and e1."]),
        (100, 100, ["100 of 100 rows of the guard g are in the", "100 of 100 rows of the guard g"]),
    ],
)
def test_guard_rows_that_training_sees(of_train: int, of_eval: int, wanted: list[str]) -> None:
    """A guard of what is trained for, or of the eval set, shows nothing of what is lost."""

    def rows(name: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(f"{name}{n}", f"{name}{n}", {}, prompt=f" question {n}", expected=f"a{n}")
            for n in range(count)
        )

    found_ = guard_leaks({"g": rows("g", 100), "h": ()}, rows("t", of_train), rows("e", of_eval))
    assert ["warning"] * len(wanted) == [finding.severity for finding in found_]
    for text, finding in zip(wanted, found_, strict=True):
        assert finding.message.startswith(text)


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
    """Where the library is not installed an info says that none were sought."""
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz", None)
    near = edited(EVAL, 100, prompt=typo, id=lambda i: f"near-{i}")
    finding = found(TRAIN + near, EVAL)["near-duplicates"]
    assert "info" == finding.severity
    assert "Near duplicates were not searched for" in finding.message
    assert "pytest-ftloop[train]" in finding.remedy


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
    began = time.process_time()  # what other processes take does not count
    before_training(train, eval_)
    assert time.process_time() - began < 20  # some 2 s


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


def test_duplicates() -> None:
    """Copies of rows, from a tenth of the set on."""
    copies = [{**row, "id": f"copy-{row['id']}"} for row in TRAIN[:50]]
    finding = found(TRAIN + copies, EVAL)["duplicates"]
    assert ("warning", 50) == (finding.severity, finding.evidence["repeats"])
    assert "(1-000, copy-1-000)" in finding.message
    assert {} == found(TRAIN + copies[:20], EVAL)
