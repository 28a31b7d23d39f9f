"""Train examples that do worse than the eval examples, though trained on, have wrong labels."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from pytest_ftloop.core.records import EvalPoint, Example, ExampleResult, TrainedExample
from pytest_ftloop.diagnose import Evidence, dynamics
from pytest_ftloop.diagnose.label_noise import label_noise, suspects
from tests.fakes import fake_metrics, fake_training

TOKENS = 4
STEPS = 50
"""Optimiser's steps per epoch."""
LOW, HIGH = 0.2, 2.0
"""Losses per token of what was learned, and of what contradicts it."""


def trained(count: int, wrong: int, passes: int, seed: int = 0) -> tuple[TrainedExample, ...]:
    """Examples that are learned by half per pass, but for the first `wrong` ones."""
    draw = random.Random(seed)

    def one(number: int) -> TrainedExample:
        level = HIGH if number < wrong else LOW
        losses = [2.0, *(level * draw.uniform(0.5, 1.5) / 1.2**n for n in range(1, passes))]
        correct = [0, *(3 if number < wrong else 4 for _ in losses[1:])]
        steps = tuple(epoch * STEPS + number % STEPS for epoch in range(passes))
        return TrainedExample(f"t{number:03d}", tuple(losses), TOKENS, steps, tuple(correct))

    return tuple(one(number) for number in range(count))


def results(count: int, wrong: int, seed: int = 1) -> tuple[ExampleResult, ...]:
    """Eval examples at the best point."""
    draw = random.Random(seed)
    return tuple(
        ExampleResult(
            f"e{n:03d}",
            "",
            (),
            TOKENS * draw.uniform(0.5, 1.5) * (HIGH if n < wrong else LOW),
            TOKENS,
            3 if n < wrong else 4,
        )
        for n in range(count)
    )


def examples(ids: Iterable[str], labels: Sequence[str] = ("left", "right")) -> tuple[Example, ...]:
    """Examples of these labels in turn."""
    return tuple(
        Example(id_, id_, {}, prompt="p", expected=labels[n % len(labels)])
        for n, id_ in enumerate(ids)
    )


def evidence(
    count: int = 200,
    wrong: int = 70,
    passes: int = 3,
    eval_loss: float = 0.2,
    eval_wrong: int = 0,
    accuracy: float = 0.99,
) -> Evidence:
    metrics = fake_metrics()
    training = fake_training(trained=trained(count, wrong, passes))
    evals = tuple(
        EvalPoint(step, step / STEPS, eval_loss, accuracy)
        for step in range(STEPS // 2, passes * STEPS + 1, STEPS // 2)
    )
    training = replace(training, evals=evals)
    of_eval = results(100, eval_wrong)
    return Evidence.of(
        training,
        metrics,
        metrics,
        2.0,
        results=of_eval,
        train=examples(x.id for x in training.trained),
        eval=examples(x.id for x in of_eval),
    )


@pytest.mark.parametrize("passes", [2, 3, 6])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.35])
def test_wrong_labels_in_number_are_counted(passes: int, share: float) -> None:
    """A share that training contradicts, with a clean eval set: about as many are named."""
    wrong = round(200 * share)
    found = label_noise(evidence(wrong=wrong, passes=passes))
    assert found is not None
    assert ("mislabelled", "warning", False) == (found.kind, found.severity, found.tunable)
    assert wrong == found.evidence["doubted"]
    named = str(found.evidence["ids"]).split(", ")
    assert 20 == len(named)
    assert all(int(id_[1:]) < wrong for id_ in named)
    assert f"About {wrong} of 200 train examples ({share:.0%}) look mislabelled" in found.message


def test_a_healthy_run_is_below_its_eval_loss() -> None:
    """No wrong labels: the examples that were trained on do no worse than the others."""
    assert label_noise(evidence(wrong=0)) is None


def test_equally_wrong_eval_labels_hide_wrong_train_labels() -> None:
    """If the eval set does as badly, the task may be hard: that is no evidence on labels."""
    assert label_noise(evidence(wrong=70, eval_loss=0.83, eval_wrong=35, accuracy=0.91)) is None


def test_a_higher_loss_with_as_many_right_answers_is_no_wrong_label() -> None:
    """Less certain answers are no contradicted ones."""
    e = evidence(wrong=70)
    right = tuple(replace(x, correct=(0, *[TOKENS] * (len(x.losses) - 1))) for x in e.trained)
    assert label_noise(replace(e, trained=right)) is None


def test_chance_is_not_named() -> None:
    """Of 100 sets whose train and eval examples are drawn alike, none is named."""
    named = []
    for seed in range(100):
        draw = random.Random(seed)
        share = draw.uniform(0.05, 0.3)
        e = evidence(wrong=0)
        of_train = trained(200, 0, 3, seed)
        hard = {x.id for x in of_train if draw.random() < share}
        of_train = tuple(
            replace(x, losses=tuple(5 * loss for loss in x.losses), correct=(3, 3, 3))
            if x.id in hard
            else x
            for x in of_train
        )
        of_eval = results(100, sum(draw.random() < share for _ in range(100)), seed + 1000)
        loss = sum(r.loss for r in of_eval) / (100 * TOKENS)
        accuracy = sum(r.correct for r in of_eval) / (100 * TOKENS)
        evals = tuple(replace(p, eval_loss=loss, token_accuracy=accuracy) for p in e.evals)
        e = replace(e, trained=of_train, results=of_eval, evals=evals)
        named.append(label_noise(e) is not None)
    assert sum(named) <= 1


def test_dropout_is_not_held_against_the_labels() -> None:
    """What dropout adds to the train losses at the end is subtracted."""
    e = evidence(wrong=20)
    assert label_noise(e) is not None
    high = replace(e, noisy_forwards=True, steps=tuple(replace(s, loss=0.5) for s in e.steps))
    assert label_noise(replace(high, final={"train_loss": 0.2})) is None
    assert label_noise(replace(high, final={"train_loss": 0.5})) is not None


def test_labels_that_the_eval_set_lacks_do_not_count() -> None:
    """A second task in the train set, which is harder, is no wrong label."""
    e = evidence(wrong=70)
    other = tuple(replace(x, expected="up" if int(x.id[1:]) < 70 else x.expected) for x in e.train)
    assert label_noise(replace(e, train=other)) is None


def test_open_answers_need_a_wide_difference() -> None:
    """Sets of sentences may differ in difficulty; a third of wrong ones is another matter."""
    words = [f"sentence {n}" for n in range(200)]
    few, many = (
        replace(e, train=examples((x.id for x in e.trained), words))
        for e in (evidence(wrong=14), evidence(wrong=70))
    )
    assert label_noise(few) is None
    assert label_noise(evidence(wrong=14)) is not None
    assert label_noise(many) is not None


def test_a_train_set_that_was_harder_from_the_start_is_no_worse() -> None:
    """What the first steps are above the untrained base's eval loss is subtracted."""
    e = evidence(wrong=30)
    assert label_noise(e) is not None
    assert label_noise(replace(e, base_eval_loss=0.9)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"trained": trained(30, 10, 3)},
        {"trained": trained(200, 70, 1)},
        {"trained": ()},
        {"results": results(10, 0)},
        {"results": ()},
        {"evals": ()},
        {"evals": (EvalPoint(50, 1.0, math.nan, 0.9), EvalPoint(100, 2.0, 0.2, 0.99))},
    ],
    ids=["few examples", "one pass", "none", "few eval examples", "no results", "no evals", "NaN"],
)
def test_thin_evidence_is_silent(change: dict[str, object]) -> None:
    """Too few examples, passes or points say nothing."""
    assert label_noise(replace(evidence(), **change)) is None  # type: ignore[arg-type]


def test_losses_of_another_trainer_have_no_steps() -> None:
    """Courses without steps or counts of tokens can't be compared."""
    e = evidence()
    bare = tuple(TrainedExample(x.id, x.losses) for x in e.trained)
    assert label_noise(replace(e, trained=bare)) is None


def test_the_label_s_tokens_count_together() -> None:
    """One surprising token among many outranks a mean that is slightly higher."""
    long, short = TrainedExample("long", (3.0, 1.0), 6), TrainedExample("short", (3.0, 1.5), 2)
    assert ["long", "short"] == suspects([short, long])


def test_few_that_are_apart_are_named_first() -> None:
    """The rule on single examples comes first, as its ids are more certain."""
    e = evidence(wrong=8)
    apart = tuple(replace(x, losses=(2.0, 3.0, 3.0)) if int(x.id[1:]) < 8 else x for x in e.trained)
    (found,) = dynamics.findings(replace(e, trained=apart))
    assert 8 == found.evidence["doubted"]
    assert "median_confidence" in found.evidence
