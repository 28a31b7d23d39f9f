"""What a verdict says of itself: one line, its changes, its record."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import yaml

from pytest_ftloop.gate.statistic import PairedTest
from pytest_ftloop.gate.verdict import Change, Verdict, amount_text, change_text, is_better

TEST = PairedTest(0.05, 0.01, 30.0, 0.008, 5, 0.01, 200, 1, 3)
LOSS = Change("eval_loss", 1.0, 1.05, TEST, 0.002, "regressed")
RATE = Change("pass_rate", 0.775, 0.717, replace(TEST, change=0.058), 0.03, "inconclusive", "10")
TAG = replace(RATE, metric="pass_rate[negation]")
VERDICT = Verdict(
    "regressed",
    False,
    LOSS.text,
    "002-bbbbbbbb",
    "001-aaaaaaaa",
    "HEAD (1234567)",
    changes=(LOSS, RATE),
    tags=(TAG,),
    common=200,
    total=210,
    fixed=("e1",),
    broken=("e2", "e3"),
)


SEEDS = "mean of 3 seeds against 1 run"


def test_text_is_one_line() -> None:
    """Kind and reason."""
    assert f"regressed: eval_loss 1.0000 -> 1.0500 (+0.0500, {SEEDS})" == str(VERDICT)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (LOSS, f"eval_loss 1.0000 -> 1.0500 (+0.0500, {SEEDS})"),
        (RATE, f"pass_rate 77.5% -> 71.7% (-5.8 points, {SEEDS})"),
        (TAG, f"pass_rate[negation] 77.5% -> 71.7% (-5.8 points, {SEEDS})"),
    ],
)
def test_change_in_the_metrics_own_direction(change: Change, text: str) -> None:
    """A falling pass rate has a minus, though its test counts what is worse as a rise."""
    assert text == change.text


def test_amounts_have_no_direction() -> None:
    """The size of a change, in points for a rate."""
    assert ("5.8 points", "0.0491") == (
        amount_text("pass_rate", -0.058),
        amount_text("eval_loss", -0.0491),
    )
    assert ("+2.0 points", "-0.0100") == (
        change_text("token_accuracy[x]", 0.02),
        change_text("overfit_gap", -0.01),
    )
    assert ("+0.0 points", "+0.0000", "0.0000") == (
        change_text("pass_rate", -1e-9),
        change_text("eval_loss", -1e-9),
        amount_text("eval_loss", -1e-9),
    )


@pytest.mark.parametrize(
    ("metric", "better"), [("eval_loss", False), ("pass_rate[x]", True), ("overfit_gap", False)]
)
def test_better_by_metric(metric: str, better: bool) -> None:
    """A rate is better when higher, a loss when lower."""
    assert better is is_better(metric, 2.0, 1.0)


def test_change_by_name() -> None:
    """Of the whole set or of a tag; None for what was not compared."""
    assert (LOSS, TAG, None) == (
        VERDICT.change("eval_loss"),
        VERDICT.change("pass_rate[negation]"),
        VERDICT.change("overfit_gap"),
    )


def test_record_is_plain_and_stable() -> None:
    """Plain values only, in one order, of every figure; no commit that would differ by machine."""
    record = VERDICT.as_record()
    assert record == yaml.safe_load(yaml.safe_dump(record, sort_keys=False))
    assert list(record) == list(json.loads(json.dumps(record)))
    assert record == replace(VERDICT, against="main (7654321)").as_record()
    assert [
        "metric",
        "kind",
        "baseline",
        "candidate",
        "change",
        "p",
        "se",
        "df",
        "tau",
        "nu",
        "upper",
        "detectable",
        "examples",
        "seeds",
    ] == list(record["changes"][0])
    assert ([1, 3], 200, {"common": 200, "of": 210}) == (
        record["changes"][0]["seeds"],
        record["changes"][0]["examples"],
        record["examples"],
    )


def test_record_of_one_example() -> None:
    """A figure that nothing can be said of is infinite, in the log too."""
    alone = replace(LOSS, test=replace(TEST, se=math.inf, df=1.0, n=1))
    (change,) = replace(VERDICT, changes=(alone,)).as_record()["changes"]
    assert (math.inf, math.inf) == (change["upper"], change["detectable"])
