"""Words contradict the labels of a train set more often than those of a clean eval set."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_ftloop.core.records import Example, Finding
from pytest_ftloop.diagnose import diagnose
from pytest_ftloop.diagnose.data import before_training
from pytest_ftloop.diagnose.label_words import (
    MOST_EXAMPLES,
    Counts,
    Judged,
    Text,
    mislabelled,
    standard_errors,
)
from tests.diagnose.test_label_noise import evidence as of_losses

CUES = {
    "billing": ("invoice", "refund", "price", "card"),
    "delivery": ("parcel", "courier", "late", "lost"),
    "repair": ("broken", "smoke", "noise", "crack"),
}
FILLERS = ("my", "the", "order", "was", "again", "please", "and", "never", "so", "today")


def messages(
    count: int, draw: random.Random, *, role: str = "t", wrong: float = 0.0, vague: float = 0.0
) -> tuple[Example, ...]:
    """Messages whose label one word decides; `wrong` and `vague` are shares.

    A wrong one has another label; a vague one lacks the word. The first ones are wrong.
    """

    def one(number: int) -> Example:
        label = draw.choice(sorted(CUES))
        cue = draw.choice(FILLERS if draw.random() < vague else CUES[label])
        words = [*draw.sample(FILLERS, 5), cue]
        draw.shuffle(words)
        if number < round(wrong * count):
            label = draw.choice(sorted(CUES.keys() - {label}))
        prompt = f"{' '.join(words)} {role}{number}\nteam:"
        return Example(f"{role}{number:04d}", prompt, {}, prompt=prompt, expected=f" {label}")

    return tuple(one(number) for number in range(count))


def found_in(train: Sequence[Example], eval_: Sequence[Example]) -> Finding | None:
    """The finding on these two sets."""
    none = of_losses()
    return mislabelled(replace(none, train=tuple(train), eval=tuple(eval_)))


@pytest.mark.parametrize(
    ("rows", "share"), [(96, 0.4), (150, 0.33), (200, 0.2), (400, 0.1), (400, 0.35)]
)
def test_wrong_labels_are_counted_and_named(rows: int, share: float) -> None:
    """About as many as are wrong are estimated, and most of those named are."""
    for seed in range(5):
        draw = random.Random(seed)
        train = messages(rows, draw, wrong=share)
        found = found_in(train, messages(120, draw, role="e"))
        assert found is not None
        assert ("mislabelled", "warning", False) == (found.kind, found.severity, found.tunable)
        wrong = round(share * rows)
        assert 0.5 * wrong <= found.evidence["doubted"] <= 1.5 * wrong
        named = str(found.evidence["ids"]).split(", ")
        assert 15 <= len(named) <= 20
        assert 0.8 * len(named) <= sum(int(id_[1:]) < wrong for id_ in named)
        assert f"About {found.evidence['doubted']} of {rows} train examples" in found.message


def test_no_healthy_pair_of_sets_is_named() -> None:
    """Sets that are drawn alike, also with vague and wrong examples in both: 0 of 40."""
    for seed in range(40):
        draw = random.Random(seed)
        wrong, vague = draw.choice((0.0, 0.1, 0.3)), draw.choice((0.0, 0.2, 0.6))
        sizes = draw.choice((60, 150, 400)), draw.choice((30, 100))
        train, eval_ = (
            messages(size, draw, role=role, wrong=wrong, vague=vague)
            for size, role in zip(sizes, "te", strict=True)
        )
        assert found_in(train, eval_) is None, seed


def test_a_train_set_with_vaguer_messages_is_no_wrong_one() -> None:
    """Words that say little of the label contradict none."""
    draw = random.Random(0)
    assert found_in(messages(400, draw, vague=0.3), messages(150, draw, role="e")) is None


def test_eval_prompts_of_the_train_set_do_not_count() -> None:
    """A leak makes an eval set easy: with every prompt leaked nothing can be compared."""
    draw = random.Random(0)
    train, eval_ = messages(200, draw, wrong=0.3), messages(100, draw, role="e")
    assert found_in(train, eval_) is not None
    assert found_in((*train, *(replace(x, id=f"c{x.id}") for x in eval_)), eval_) is None


def test_a_hard_label_that_the_eval_set_has_less_of_is_no_wrong_one() -> None:
    """Each label is compared with itself, so the sets may have other shares of the labels."""
    hard, easy = ("hard", 0.4), ("easy", 0.02)

    def judged(label: str, contradicted: float, count: int) -> list[Judged]:
        return [
            Judged(Text(f"{n}", frozenset(), label), 9.0 if n < contradicted * count else -9.0)
            for n in range(count)
        ]

    train = [*judged(*hard, 300), *judged(*easy, 100)]
    eval_ = [*judged(*hard, 10), *judged(*easy, 100)]
    assert abs(standard_errors(train, eval_)) < 0.5
    worse = [*judged("hard", 0.7, 300), *judged(*easy, 100)]
    assert standard_errors(worse, [*judged(*hard, 50), *judged(*easy, 100)]) > 3


def test_standard_errors_are_those_of_a_draw_without_replacement() -> None:
    """8 of 10 against 2 of 10: the hypergeometric variance is 10 x 10 x 10 x 10 / (400 x 19)."""

    def judged(hits: int) -> list[Judged]:
        return [Judged(Text(f"{n}", frozenset(), "a"), 9.0 * (n < hits)) for n in range(10)]

    assert (8 - 5) / math.sqrt(10_000 / 7_600) == pytest.approx(
        standard_errors(judged(8), judged(2))
    )
    assert 0 == standard_errors(judged(10), judged(10))


def test_the_odds_are_those_of_naive_bayes() -> None:
    """A word in each of two examples of one label, and in none of two of the other: 5 to 1."""
    texts = [Text(f"{n}", frozenset({"w"} if n < 2 else {"x"}), "ab"[n // 2]) for n in range(4)]
    counts = Counts.of(texts)
    odds = counts.odds_against(Text("new", frozenset({"w", "unknown"}), "b"))
    assert math.log((2 / 0.5 + 1) / 1) == pytest.approx(odds)
    assert -odds == pytest.approx(counts.odds_against(Text("new", frozenset({"w"}), "a")))
    assert 0 == pytest.approx(counts.odds_against(Text("new", frozenset({"unknown"}), "a")))


def test_of_large_sets_a_part_is_read() -> None:
    """The estimate is of all examples, though not all are read."""
    draw = random.Random(0)
    train = messages(2 * MOST_EXAMPLES, draw, wrong=0.2)
    draw.shuffle(shuffled := list(train))
    found = found_in(shuffled, messages(200, draw, role="e"))
    assert found is not None
    assert 2 * MOST_EXAMPLES == found.evidence["examples"]
    assert 400 == pytest.approx(found.evidence["doubted"], rel=0.25)


def test_what_can_not_be_compared_is_silent() -> None:
    """Open answers, one label, few eval examples, other labels, no words."""
    draw = random.Random(0)
    train, eval_ = messages(200, draw, wrong=0.35), messages(100, draw, role="e")
    assert found_in(train, eval_) is not None
    assert found_in(train, eval_[:19]) is None
    assert found_in(train, ()) is None
    assert found_in((), eval_) is None
    assert found_in([replace(x, expected=f"answer {x.id}") for x in train], eval_) is None
    assert found_in([replace(x, expected="one") for x in train], eval_) is None
    assert found_in(train, [replace(x, expected="other") for x in eval_]) is None
    bare = [[replace(x, prompt=x.id) for x in some] for some in (train, eval_)]
    assert found_in(*bare) is None


def test_it_is_known_before_training_and_stays_whatever_the_run_does() -> None:
    """A run that learned nothing hides what its losses show, not what the data shows."""
    draw = random.Random(0)
    train, eval_ = messages(200, draw, wrong=0.35), messages(100, draw, role="e")
    (found,) = before_training(train, eval_)
    flat = replace(of_losses(), train=train, eval=eval_)
    stuck = replace(flat, adapter_moved=False)
    for e in (flat, stuck):
        assert [found] == [f for f in diagnose(e) if f.kind == "mislabelled"]
    assert "no-signal" in {f.kind for f in diagnose(stuck)}


def test_losses_are_read_where_words_show_nothing() -> None:
    """Without words in common the losses of the training name wrong labels."""
    e = of_losses()
    assert mislabelled(e) is None
    (found,) = (f for f in diagnose(e) if f.kind == "mislabelled")
    assert "train_loss" in found.evidence
