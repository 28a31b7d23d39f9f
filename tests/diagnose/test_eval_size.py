"""An eval set too small for its gates: it is told, with the difference that it can show."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import pstdev
from typing import Any

import pytest

from pytest_ftloop.config.gates import Regression, parse_gate
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.records import ExampleResult, Finding
from pytest_ftloop.diagnose.data import before_training, findings
from pytest_ftloop.diagnose.eval_size import small_eval_set
from pytest_ftloop.diagnose.evidence import Evidence
from tests.diagnose.fakes_data import EVAL, TRAIN, examples, found
from tests.fakes import fake_example, fake_metrics, fake_training


def small(
    count: int, *gates: tuple[str, str], results: Sequence[ExampleResult] = ()
) -> Finding | None:
    """What is said of an eval set of so many examples, before training or with results."""
    asked = tuple(parse_gate(*gate) for gate in gates) or (Regression(),)
    return small_eval_set(
        replace(
            Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0),
            eval=examples(EVAL[:count]),
            gates=asked,
            results=tuple(results),
        )
    )


def spread(count: int, *, by: float = 1.0, **fields: Any) -> list[ExampleResult]:
    """Results whose losses per token are 1 and 1 + `by` in turns."""
    return [
        fake_example(f"e{n}", tokens=t, loss=t * (1 + by * (n % 2)), **fields)
        for n in range(count)
        for t in (4 + n % 2,)
    ]


@pytest.mark.parametrize(
    ("gates", "count", "points"),
    [
        ([("pass_rate", ">= 50%")], 90, 10),
        ([("pass_rate", ">= 50%")], 100, None),
        ([("pass_rate", ">= 90%")], 30, 11),
        ([("pass_rate", ">= 90%")], 40, None),
        ([("pass_rate[a]", ">= 80%")], 19, 17),
        ([("pass_rate[a]", ">= 80%")], 20, None),
        ([], 20, 8),
        ([], 60, None),
    ],
)
def test_pass_rates_of_too_few_examples(
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


@pytest.mark.parametrize(
    "gate",
    [
        ("eval_loss", "<= 1"),
        ("perplexity", "<= 3"),
        ("overfit_gap", "<= 0.3"),
        ("token_accuracy", ">= 90%"),
    ],
)
@pytest.mark.parametrize(("count", "said"), [(1, True), (19, True), (20, False)])
def test_means_of_too_few_examples(gate: tuple[str, str], count: int, said: bool) -> None:
    """Under 20 examples are told as a warning, before training without a difference."""
    finding = small(count, gate)
    assert said == (finding is not None)
    if finding:
        assert "warning" == finding.severity
        assert f"The gate {gate[0]} rests on {count} eval example" in finding.message
        assert finding.message.endswith(": with fewer than 20, a few of them decide it.")


def test_losses_of_the_train_sample_rest_on_no_eval_example() -> None:
    """A gate on the train loss has nothing to do with the eval set."""
    assert small(2, ("train_loss", "<= 1")) is None


def test_regression_of_a_loss() -> None:
    """A regression gate on the eval loss alone is told of under 20 examples."""
    of_loss = Regression(metrics=("eval_loss",))
    assert "small-eval-set" not in found(TRAIN, EVAL[:20], of_loss)
    finding = found(TRAIN, EVAL[:19], of_loss)["small-eval-set"]
    assert (
        "The gate regression rests on 19 eval examples: with fewer than 20, a few"
        in finding.message
    )


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        # losses 1 and 2 in turns over 4 and 5 tokens, mean 1.556: 1.96 x 0.522 / sqrt(10)
        (("eval_loss", "<= 1"), "under 0.32 nats."),
        (("overfit_gap", "<= 0.3"), "under 0.32 nats."),
        (("perplexity", "<= 3"), "under 1.5."),
        # 3 of 4 and 3 of 5 tokens right: a spread of 0.078
        (("token_accuracy", ">= 90%"), "under 5 points."),
    ],
)
def test_difference_that_the_results_show(gate: tuple[str, str], words: str) -> None:
    """After training the spread of the examples tells how small a difference they show."""
    finding = small(10, gate, results=spread(10))
    assert finding is not None
    assert finding.message.startswith(f"The gate {gate[0]} rests on 10 eval examples, too few to")
    assert finding.message.endswith(words)


def test_the_difference_is_that_of_a_simulation() -> None:
    """Means of as many examples drawn anew spread as the finding says."""
    chance = random.Random(1)
    results = [
        fake_example(f"e{n}", tokens=t, loss=t * chance.expovariate(1.0))
        for n in range(19)
        for t in (chance.randrange(1, 9),)
    ]
    finding = small(19, ("eval_loss", "<= 1"), results=results)
    assert finding is not None
    means = [token_mean_loss(chance.choices(results, k=19)) for _ in range(4000)]
    assert pytest.approx(1.96 * pstdev(means), rel=0.15) == finding.evidence["half_width"]


@pytest.mark.parametrize(
    "results",
    [
        [],
        spread(1),
        spread(9, by=0.0),
        [*spread(8), fake_example(loss=math.nan)],
        [*spread(8), fake_example(loss=math.inf)],
        spread(4, by=1e300),
        [fake_example(f"e{n}", tokens=0, loss=0.0, correct=0) for n in range(9)],
    ],
    ids=["none", "one", "equal", "nan", "inf", "huge", "no tokens"],
)
def test_results_that_tell_no_difference(results: list[ExampleResult]) -> None:
    """Without a spread that can be reckoned with it stays at what is known before training."""
    for gate in (("eval_loss", "<= 1"), ("perplexity", "<= 3")):
        finding = small(9, gate, results=results)
        assert finding is not None
        assert finding.message.endswith(": with fewer than 20, a few of them decide it.")


def test_by_tag_only_its_examples_count() -> None:
    """A gate on a tag rests on the results with it; in a large eval set that is an info."""
    tagged = [{**row, "tags": ["a"] if n < 10 else []} for n, row in enumerate(EVAL)]
    results = [*spread(10, tags=("a",)), *(fake_example(f"x{n}", loss=99.0 * n) for n in range(90))]
    evidence = Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0)
    gate = parse_gate("eval_loss[a]", "<= 1")
    finding = small_eval_set(
        replace(evidence, eval=examples(tagged), gates=(gate,), results=tuple(results))
    )
    assert finding is not None
    assert "info" == finding.severity
    assert finding.message.startswith("The gate eval_loss[a] rests on 10 eval examples")
    assert finding.message.endswith("under 0.32 nats.")


def test_the_gate_with_the_fewest_examples_is_named() -> None:
    """Of several the least supported is named, and how many there are."""
    finding = small(12, ("eval_loss", "<= 1"), ("pass_rate", ">= 90%"), ("perplexity", "<= 3"))
    assert finding is not None
    assert "The gate pass_rate rests on 12" in finding.message  # its difference is known
    assert 3 == finding.evidence["gates"]


def test_what_was_known_before_training_is_told_anew() -> None:
    """With the results the finding of before training gets its difference; others stay as known."""
    leaked, gate = EVAL[:8] + TRAIN[:4], parse_gate("eval_loss", "<= 1")
    known = before_training(examples(TRAIN), examples(leaked), (gate,))
    evidence = replace(
        Evidence.of(fake_training(), fake_metrics(), fake_metrics(), 5.0),
        train=examples(TRAIN),
        eval=examples(leaked),
        gates=(gate,),
        results=tuple(spread(12)),
    )
    before, after = ({f.kind: f for f in fs} for fs in (known, findings(evidence, known)))
    assert before["leak"] is after["leak"]
    assert "difference" not in before["small-eval-set"].message
    assert after["small-eval-set"].message.endswith(" nats.")
    assert after == {f.kind: f for f in findings(evidence)}
