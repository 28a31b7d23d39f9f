"""Slices that fail are named, by the simplest name, and nothing is named where none does."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.records import Example, ExampleResult, TrainedExample
from pytest_ftloop.diagnose import Evidence
from pytest_ftloop.diagnose.slices import Failures, Losses, failing_slices, findings, measure_of
from tests.fakes import fake_example, fake_iteration, fake_metrics, fake_training

WORDS = ("red", "green", "blue", "warm", "cold", "old", "new", "big", "small", "far")


def examples(count: int = 100, role: str = "e", **columns: Any) -> tuple[Example, ...]:
    """Examples of six words each, four labels in turn, the tag 'a' in one of five."""
    chance = random.Random(role)
    return tuple(
        Example(
            f"{role}{n:04d}",
            f"content-{n}",
            {},
            tags=("a",) if n % 5 == 0 else (),
            prompt=" ".join(chance.choices(WORDS, k=6)),
            expected=f"label {n % 4}",
        )
        for n in range(count)
    )


def results(rows: tuple[Example, ...], failing: Any, loss: Any = lambda e: 0.5) -> Any:
    """What the examples showed; `failing` and `loss` by example."""
    return tuple(
        fake_example(
            e.id,
            not failing(e),
            content=e.content,
            tags=e.tags,
            expected=e.expected,
            loss=4 * loss(e),
            tokens=4,
        )
        for e in rows
    )


def evidence(
    rows: tuple[Example, ...], shown: tuple[ExampleResult, ...], **fields: Any
) -> Evidence:
    metrics = fake_metrics()
    of = Evidence.of(fake_training(), metrics, metrics, 5.0)
    return replace(of, eval=rows, results=shown, **fields)


def names(e: Evidence) -> list[str]:
    return [found.group.name for found in failing_slices(e)]


def some(e: Example) -> bool:
    """One example of ten, whatever it is."""
    return int(e.id[1:]) % 10 == 3


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        ("tagged 'a'", lambda e: "a" in e.tags),
        ("that expect 'label 2'", lambda e: e.expected == "label 2"),
        ("with the word 'cold'", lambda e: "cold" in (e.prompt or "").split()),
        ("with the words 'old new'", lambda e: " old new " in f" {e.prompt} "),
    ],
)
def test_a_failing_group_is_named(name: str, failing: Any) -> None:
    """By its tag, label, word or pair of words, although others fail here and there."""
    rows = examples(400)
    assert [name] == names(evidence(rows, results(rows, lambda e: failing(e) or some(e))))


@pytest.mark.parametrize("end", [slice(1, 3), slice(10, 14)])
def test_short_or_long_prompts_are_named(end: slice) -> None:
    """A quarter of the prompts that is shorter, or longer, than the rest and fails."""
    rows = tuple(
        replace(e, prompt=" ".join(f"w{e.id}{k}" for k in range(12 if n % 4 == 0 else 7)))
        for n, e in enumerate(examples(100))
    )
    rows = tuple(
        replace(e, prompt=" ".join((e.prompt or "").split()[:2])) if n % 4 == 1 else e
        for n, e in enumerate(rows)
    )
    failing = lambda e: len((e.prompt or "").split()) in range(100)[end]  # noqa: E731
    rows = tuple(replace(e, expected="same", tags=()) for e in rows)
    (name,) = names(evidence(rows, results(rows, failing)))
    assert name in {"with prompts of up to 2 words", "with prompts of 12 words or more"}


def test_scattered_failures_are_seldom_a_slice() -> None:
    """Thirty of a hundred fail by chance: in at most 5% of 200 draws some group stands out."""
    rows = examples(100)
    draws = [random.Random(seed).sample([e.id for e in rows], 30) for seed in range(200)]
    named = [
        names(evidence(rows, results(rows, lambda e, ids=set(ids): e.id in ids))) for ids in draws
    ]
    assert sum(map(bool, named)) <= 10


def test_where_most_fail_no_slice_does() -> None:
    """A model that fails 70% of the rest has another problem."""
    rows = examples(200)
    shown = results(rows, lambda e: "a" in e.tags or int(e.id[1:]) % 10 < 7)
    assert [] == names(evidence(rows, shown))


def test_a_small_difference_is_not_worth_a_word() -> None:
    """40% against 20% is certain in 5,000 examples, and still no finding."""
    rows = examples(5000)
    chance = random.Random(0)
    shown = results(rows, lambda e: chance.random() < (0.4 if "a" in e.tags else 0.2))
    assert [] == names(evidence(rows, shown))


@pytest.mark.parametrize(
    ("count", "inside", "others", "is_named"),
    [
        (1000, 0.30, 0.02, True),  # p = 1e-29
        (5000, 0.18, 0.02, True),  # 16 points, 9 times
        (5000, 0.16, 0.02, False),  # 14 points
        (5000, 0.40, 0.12, False),  # 28 points, but only 3 times
        (100, 0.30, 0.02, False),  # p = 7e-4: chance in some of many eval sets of this size
    ],
)
def test_a_difference_that_is_many_times_and_sure(
    count: int, inside: float, others: float, is_named: bool
) -> None:
    """Under 35 points it takes 15, four times the others' rate, and a certainty beyond doubt."""
    # Words that all differ, so that the tag is the only group.
    rows = tuple(
        replace(e, prompt=f"only{n}", expected=f"x{n}") for n, e in enumerate(examples(count))
    )
    tagged = [e.id for e in rows if e.tags]
    others_ = [e.id for e in rows if not e.tags]
    ids = {*tagged[: round(inside * len(tagged))], *others_[: round(others * len(others_))]}
    e = evidence(rows, results(rows, lambda e: e.id in ids))
    assert isinstance(measure_of(e.results), Failures)
    assert (["tagged 'a'"] if is_named else []) == names(e)


@pytest.mark.parametrize(
    ("word", "said", "others"),
    [
        ("हिन्दी", "with the word '{}'", ["मुझे", "में", "उत्तर", "किताब", "पानी"]),
        ("退款", "with the words '{}'", list("我你他好书水家人大小中国")),
    ],
)
def test_a_word_of_any_script_is_named(word: str, said: str, others: list[str]) -> None:
    """A Hindi word with its marks; a Chinese one of two characters, which stand in a row."""
    chance, blank = random.Random(0), " " if said.startswith("with the word '") else ""
    rows = []
    for n, e in enumerate(examples(200)):
        parts = chance.choices(others, k=7)
        parts[3] = word if n % 7 == 0 else "".join(chance.choices(others, k=1 if blank else 2))
        rows.append(replace(e, prompt=blank.join(parts), expected="x", tags=()))
    shown = results(tuple(rows), lambda e: word in (e.prompt or ""))
    (found,) = failing_slices(evidence(tuple(rows), shown))
    assert said.format(word) in (found.group.name, *found.also)


def test_of_two_names_the_simpler_one_is_named() -> None:
    """A word that comes with a tag's examples only is told beside the tag, not as a slice."""
    rows = tuple(
        replace(e, prompt=f"{e.prompt} zebra") if "a" in e.tags else e for e in examples(100)
    )
    e = evidence(rows, results(rows, lambda e: "a" in e.tags))
    (found,) = failing_slices(e)
    assert "tagged 'a'" == found.group.name
    assert "with the word 'zebra'" in found.also
    assert "with the word 'zebra'" in findings(e)[0].evidence["nearly_the_same"]


def test_slices_of_their_own_are_all_named_the_surest_first() -> None:
    """Two groups that overlap little are two slices."""
    rows = examples(400)
    shown = results(rows, lambda e: "a" in e.tags or e.expected == "label 1")
    assert ["that expect 'label 1'", "tagged 'a'"] == names(evidence(rows, shown))


def test_no_more_than_three() -> None:
    """Of many slices the three surest."""
    rows = tuple(
        replace(e, tags=(f"t{n % 20}",), expected=f"x{n}") for n, e in enumerate(examples(1000))
    )
    shown = results(rows, lambda e: e.tags[0] in {f"t{n}" for n in range(8)})
    assert ["tagged 't0'", "tagged 't1'", "tagged 't2'"] == names(evidence(rows, shown))


def test_one_of_two_labels_is_no_slice() -> None:
    """Of two labels the failing one says only to which the model leans."""
    rows = tuple(replace(e, expected=f"label {n % 2}") for n, e in enumerate(examples(100)))
    shown = results(rows, lambda e: e.expected == "label 1")
    assert [] == names(evidence(rows, shown))


def test_losses_tell_where_all_pass() -> None:
    """Nothing fails, but one tag's loss lies far above."""
    rows = examples(100)
    shown = results(rows, lambda e: False, lambda e: 2.0 if "a" in e.tags else 0.3)
    e = evidence(rows, shown)
    assert isinstance(measure_of(shown), Losses)
    assert ["tagged 'a'"] == names(e)
    assert "loss 2.00" in findings(e)[0].message
    low = results(rows, lambda e: False, lambda e: 0.6 if "a" in e.tags else 0.3)
    assert [] == names(evidence(rows, low))


def test_losses_tell_where_all_fail_or_nothing_is_scored() -> None:
    """All fail, or nothing is scored: the losses are left."""
    rows = examples(100)
    fails = results(rows, lambda e: True, lambda e: 4.0 if "a" in e.tags else 1.0)
    unscored = tuple(replace(row, passed=None) for row in fails)
    assert ["tagged 'a'"] == names(evidence(rows, fails)) == names(evidence(rows, unscored))


def test_a_loss_that_is_not_finite_says_nothing() -> None:
    """With NaN among the losses there are no ranks; failures still count."""
    rows = examples(100)
    shown = results(rows, lambda e: True, lambda e: float("nan") if "a" in e.tags else 1.0)
    assert measure_of(shown) is None
    assert () == findings(evidence(rows, shown))
    failures = results(rows, lambda e: "a" in e.tags, lambda e: float("nan"))
    assert isinstance(measure_of(failures), Failures)
    assert ["tagged 'a'"] == names(evidence(rows, failures))


def test_without_the_examples_tags_and_labels_are_left() -> None:
    """Prompts are not known from results alone."""
    rows = examples(100)
    assert ["tagged 'a'"] == names(evidence((), results(rows, lambda e: "a" in e.tags)))


def test_the_finding_has_its_figures() -> None:
    """Rates, sizes, p, ids with the highest loss first, and what the train set has of it."""
    rows = examples(100)
    loss = {"e0035": 3.0, "e0010": 2.0}
    shown = results(rows, lambda e: "a" in e.tags or some(e), lambda e: loss.get(e.id, 0.5))
    (finding,) = findings(evidence(rows, shown, train=examples(50, "t")))
    assert "warning" == finding.severity
    assert finding.evidence["slice"] == "tagged 'a'"
    assert finding.evidence["examples"] == 20
    assert finding.evidence["failure_rate"] == 1.0
    assert finding.evidence["others_failure_rate"] == pytest.approx(10 / 80)
    assert finding.evidence["ids"] == "e0035, e0010, e0000"
    assert finding.evidence["train_examples"] == 10
    assert (finding.evidence["iterations_seen"], finding.evidence["iterations"]) == (1, 1)
    assert "Check the labels of the 10 train examples" in finding.remedy


@pytest.mark.parametrize(
    ("loss", "remedy"),
    [
        (0.1, "Check the labels of the 10 train examples tagged 'a': the model learned them"),
        (1.0, "The 10 train examples tagged 'a' are not learned either: train longer"),
    ],
)
def test_what_training_made_of_it_tells_the_remedy(loss: float, remedy: str) -> None:
    """Learned and yet failing: the labels say something else. Not learned: that comes first."""
    rows, train = examples(100), examples(50, "t")
    trained = tuple(TrainedExample(x.id, (3.0, loss if "a" in x.tags else 0.1)) for x in train)
    shown = results(rows, lambda e: "a" in e.tags)
    (finding,) = findings(evidence(rows, shown, train=train, trained=trained))
    assert finding.remedy.startswith(remedy)
    assert finding.evidence["train_confidence"] == pytest.approx(math.exp(-loss))


def test_a_slice_that_training_lacks_needs_examples() -> None:
    """Where the train set has none, its labels are not what to look at."""
    rows = examples(100)
    shown = results(rows, lambda e: "a" in e.tags)
    train = tuple(replace(e, tags=()) for e in examples(50, "t"))
    (finding,) = findings(evidence(rows, shown, train=train))
    assert "Add train examples tagged 'a': there are 0 of 50." == finding.remedy


@pytest.mark.parametrize(("before", "seen", "severity"), [(True, 2, "warning"), (False, 1, "info")])
def test_earlier_iterations_confirm_it(before: bool, seen: int, severity: str) -> None:
    """What was bad before as well is a warning; what was not may be this iteration's luck."""
    rows = examples(100)
    shown = results(rows, lambda e: "a" in e.tags)
    old = results(rows, lambda e: ("a" in e.tags and before) or some(e))
    unscored = tuple(replace(row, passed=None) for row in old)
    history = (fake_iteration(1, examples=unscored), fake_iteration(2, examples=old))
    (finding,) = findings(evidence(rows, shown, history=history))
    assert (seen, 2) == (finding.evidence["iterations_seen"], finding.evidence["iterations"])
    assert severity == finding.severity


def test_long_ids_are_cut() -> None:
    """An id that is a whole text is not repeated to its end."""
    rows = tuple(replace(e, id=e.id + "x" * 15_000) for e in examples(100))
    (finding,) = findings(evidence(rows, results(rows, lambda e: "a" in e.tags)))
    assert len(finding.message) < 400


def test_user_text_is_cut() -> None:
    """A tag of a page's length is a short name, in one line."""
    rows = tuple(replace(e, tags=tuple("x" * 300 + "\n" for _ in e.tags)) for e in examples(100))
    (finding,) = findings(evidence(rows, results(rows, lambda e: bool(e.tags))))
    assert len(finding.message) < 200
    assert "\n" not in finding.message


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_the_order_of_examples_changes_nothing(chance: random.Random, count: int) -> None:
    """The same examples in any order give the same findings; any outcome gives some."""
    rows = examples(60)
    failing = {e.id for e in chance.sample(rows, count)}
    shown = list(results(rows, lambda e: e.id in failing))
    in_order = findings(evidence(rows, tuple(shown)))
    chance.shuffle(shown)
    assert in_order == findings(evidence(rows, tuple(shown)))
