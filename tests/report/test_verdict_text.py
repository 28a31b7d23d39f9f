"""A verdict as people read it, in the terminal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Regression
from pytest_ftloop.core.records import UNSCORED, Adjustment, Decision
from pytest_ftloop.core.runs import groups_of, runs_of
from pytest_ftloop.gate.compare import Side, compare
from pytest_ftloop.gate.holdout import Gain, HoldoutReport
from pytest_ftloop.gate.lift import why_no_base
from pytest_ftloop.gate.verdict import Verdict
from pytest_ftloop.report.escape import columns_of
from pytest_ftloop.report.phrases import TERMS
from pytest_ftloop.report.verdict import (
    COLUMN_TERMS,
    changes_table,
    explain_verdict,
    flipped_lines,
    head_lines,
    holdout_lines,
    noise_lines,
    verdict_lines,
)
from tests.fakes import fake_measured, fake_noise, fake_seed_run, fake_table
from tests.report.fakes_report import fake_result
from tests.report.hostile import NASTY, hostile_results

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.loop.result import LoopResult

TAGS = {"negation": range(0, 40, 2), "short": range(0, 40, 3)}
OLD = fake_measured(1, fake_table([1 + n / 100 for n in range(40)], [0, 1], tags=TAGS))
NEW = fake_measured(2, fake_table([1.4 + n / 90 for n in range(40)], range(1, 30), tags=TAGS))
RULE = Regression(line=14)


def judged(new: Iteration = NEW, rule: Regression = RULE) -> Verdict:
    seed_runs = [fake_seed_run(OLD, seed) for seed in range(43, 48)]
    sides = [Side(iteration, runs_of(iteration, [OLD, new], seed_runs)) for iteration in (new, OLD)]
    verdict = compare(sides[0], sides[1], None, groups_of([OLD, new], seed_runs), rule)
    return replace(verdict, against="HEAD (1a2b3c4)")


def result_of(new: Iteration = NEW, **fields: Any) -> LoopResult:
    return fake_result((OLD, new), best=new, examples={}, **fields)


HOLDOUT = HoldoutReport(
    iteration="002-bbbbbbbb",
    metrics={"eval_loss": 0.41, "pass_rate": 0.875},
    reference="001-aaaaaaaa",
    gains=(Gain("eval_loss", 0.034, 0.021, 0.5), Gain("pass_rate", 0.05, 0.04, 0.2)),
    uses=3,
    judged=7,
    alpha=0.01,
)


@pytest.mark.parametrize("width", [60, 100])
def test_regression_at_a_glance(width: int) -> None:
    """What it is, against which commit and why come first; then one row a figure."""
    lines = verdict_lines(judged(), "regression", width)
    assert lines[0].startswith("regression: regressed against HEAD (1a2b3c4): ")
    said = " ".join(line.strip() for line in lines)
    assert "eval_loss 1.1950 -> 1.6167 (+0.4217, 1 run against the mean of 6 seeds), p " in said
    assert "pass_rate 95.0% -> 27.5% (-67.5 points, 1 run against the mean of 6 seeds), p " in said
    assert all(columns_of(line) <= width for line in lines)
    table = [line.split() for line in lines if line.startswith("  !  ")]
    (loss,) = [cells for cells in table if "eval_loss" in cells]
    assert ["eval_loss[negation]", "pass_rate[negation]"] == [cells[1] for cells in table[3:5]]
    assert ["!", "eval_loss", "1.1950", "1.6167", "+0.4217"] == loss[:5]


def test_table_of_figures() -> None:
    """Deciding metrics, figures of whole runs, tags that moved: changes, p and what is found."""
    lines = changes_table(judged(), 100)
    assert ["metric", "baseline", "now", "change", "p", "+/-", "detectable"] == lines[0].split()
    metrics = [line.removeprefix("  !").removeprefix("  +").split()[0] for line in lines[1:]]
    said = " ".join(line.strip() for line in lines)
    assert all(f"{word}: {TERMS[term]}" in said for word, term in COLUMN_TERMS)
    assert ["eval_loss", "pass_rate", "overfit_gap", "train_loss"] == metrics[:4]
    assert {"eval_loss[negation]", "pass_rate[short]"} <= set(metrics[4:])
    assert not any("-0.0000" in line for line in lines)
    narrow = changes_table(judged(), 60)
    assert ["metric", "baseline", "now", "change"] == narrow[0].split()
    assert [] == changes_table(Verdict("incomplete", False, "x", "002-b"))


@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_rows_against_base_and_baseline_differ(width: int) -> None:
    """Of a guard each row names what it is compared with, however narrow the terminal."""
    (change, *_) = judged().changes
    name = "guard.general.eval_loss"
    changes = tuple(replace(change, metric=name, against=a) for a in ("base", "baseline"))
    lines = changes_table(replace(judged(), changes=changes, runs=(), tags=()), width)
    for label in (f"{name} (base)", f"{name} (baseline)"):
        assert 1 == sum(label in line for line in lines)
    assert width >= max(map(columns_of, lines))


def test_nothing_is_infinite() -> None:
    """Where one example says nothing, neither does the table."""
    old, new = (fake_measured(n, fake_table([1.0 * n])) for n in (1, 2))
    verdict = compare(Side(new, (new,)), Side(old, (old,)), None, (), Regression())
    assert not any(" inf " in f"{line} " for line in changes_table(verdict, 100))


def test_failing_gate_explains_itself() -> None:
    """Verdict, iterations, gate's line, figures, broken and fixed examples, what to do."""
    lines = explain_verdict(result_of(baseline=OLD), judged(), RULE).splitlines()
    assert f"iteration {NEW.name} against {OLD.name}; gate at sentiment.ftloop.yaml:14" in lines
    assert 'broken: 28 of 38 examples that passed now fail; all of them answer "no"' in lines
    assert 3 == sum("per token" in line for line in lines)
    assert "  ... and 25 more: ftloop diff --all sentiment.ftloop.yaml" in "\n".join(lines)
    assert "fixed examples: 1: e000" in lines
    diff, undo, only, accept = lines[-4:]
    assert diff.startswith("all that changed: ftloop diff sentiment.ftloop.yaml")
    assert "what to do: set training.learning_rate back to 1e-4." == undo
    assert "only if pass_rate 27.5% in place of 95.0% is intended, accept it and commit:" == only
    assert accept.startswith("  ftloop accept best sentiment.ftloop.yaml --baseline")


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("incomplete", "pytest --ftloop --ftloop-retrain sentiment.ftloop.yaml"),
        ("seeds", "train the missing seeds with the command above, and commit them."),
        ("inconclusive", "ftloop calibrate sentiment.ftloop.yaml"),
        ("not comparable", "ftloop accept best sentiment.ftloop.yaml --baseline"),
        ("environment", "pytest --ftloop --ftloop-retrain-baseline sentiment.ftloop.yaml"),
    ],
)
def test_advice(kind: Any, advice: str) -> None:
    """Each failing verdict has its own way out."""
    verdict = Verdict(kind, False, "why", "002-b", "001-a")
    if kind == "environment":
        because = "environment changed (device cpu -> cuda)"
        verdict = replace(verdict, kind="not comparable", because=because)
    if kind == "seeds":
        verdict = replace(verdict, kind="incomplete", because="in doubt, and the log has 1 of 3")
    assert advice in explain_verdict(result_of(), verdict, RULE).splitlines()[-1]


def test_advice_where_only_a_measurement_is_missing() -> None:
    """What was trained is not trained again: it is scored, or the untrained base is measured."""
    verdict = Verdict("incomplete", False, "80 of 80 examples were not scored", NEW.name)
    again = "pytest --ftloop sentiment.ftloop.yaml"
    unscored = replace(NEW, decision=Decision("stop", UNSCORED, "it is not scored yet"))
    text = explain_verdict(result_of(unscored), verdict, RULE)
    assert ["what to do: score it, which trains nothing again:", f"  {again}"] == (
        text.splitlines()[-2:]
    )
    verdict = replace(verdict, because=why_no_base((), NEW))
    text = explain_verdict(result_of(), verdict, RULE)
    assert "measure the untrained base" in text.splitlines()[-2]
    assert f"  {again}" == text.splitlines()[-1]


def test_advice_where_only_the_log_is_known() -> None:
    """pytest can't be given a log: the test that makes the loop is among all of them."""
    result = result_of()
    result = replace(result, source=str(result.log_folder))
    verdict = Verdict("incomplete", False, "cut short", NEW.name)
    text = explain_verdict(result, verdict, RULE)
    assert "  pytest --ftloop --ftloop-retrain" == text.splitlines()[-1]


def test_advice_where_the_baseline_was_adjusted() -> None:
    """The loop file's own settings lose against adjusted ones: how to write those down.

    Where the file has them already, as after `ftloop accept`, nothing is to be written.
    """
    adjustments = (Adjustment("lora.r", 8, 16, "few parameters"),)
    settings = OLD.settings.adjusted(adjustments)
    baseline = replace(OLD, number=3, adjustments=adjustments, settings=settings)
    text = explain_verdict(result_of(baseline=baseline), judged(), RULE)
    assert "write them into the loop file" in " ".join(text.split())
    assert "\n  ftloop accept 3 sentiment.ftloop.yaml" in text
    written = replace(NEW, settings=NEW.settings.adjusted(adjustments))
    text = explain_verdict(result_of(written, baseline=baseline), judged(written), RULE)
    assert "write them into the loop file" not in " ".join(text.split())
    assert "ftloop accept 3" not in text
    assert "what to do: set training.learning_rate back to 1e-4." in text


def test_many_fixed_examples_are_named() -> None:
    """Twelve ids, then dots; nothing where there is none."""
    ids = [f"e{n:03d}" for n in range(20)]
    (line, *more) = flipped_lines("fixed", ids, result_of(), 300, most=0)
    assert f"fixed examples: 20: {', '.join(ids[:12])}, ..." == line
    assert [] == more == flipped_lines("fixed", [], result_of())


@pytest.mark.parametrize("width", [60, 100])
def test_holdout_in_one_sentence(width: int) -> None:
    """Both gains side by side and whether they hold; no warning without a cause."""
    lines = holdout_lines(HOLDOUT, width)
    said = " ".join(line.strip() for line in lines)
    assert (
        "holdout, against 001-aaaaaaaa: eval_loss 0.0210 better (on the eval set 0.0340 better): "
        "the gain holds; pass_rate 4.0 points better (on the eval set 5.0 points better): the "
        "gain holds; opened 3 times"
    ) == said
    assert all(columns_of(line) <= width for line in lines)


def test_first_opening_of_the_holdout() -> None:
    """Figures alone."""
    report = replace(HOLDOUT, gains=(), reference=None, uses=1)
    wanted = "holdout: eval_loss 0.4100, pass_rate 87.5%; opened 1 time"
    assert [wanted] == holdout_lines(report)


def test_alarm_and_wear() -> None:
    """Each has a line of its own."""
    gains = (Gain("eval_loss", 0.034, -0.01, 2.5),)
    report = replace(HOLDOUT, gains=gains, uses=20, judged=100)
    said = " ".join(line.strip() for line in holdout_lines(report))
    assert "eval_loss 0.0100 worse (on the eval set 0.0340 better): the gain does not hold" in said
    assert "alarm: the gain on the eval set does not appear on the holdout." in said
    assert "the eval set is worn out: in 100 judgements at alpha 0.01" in said
    assert "the holdout is worn out: it was opened 20 times." in said


def test_seed_noise() -> None:
    """Runs, seeds, each figure's mean and range, and the seed noise of the log; none of a NaN."""
    rows = [fake_table([1.0 + n / 10] * 4, [0][:n]) for n in (0, 1)]
    one = fake_measured(1, rows[0])
    noise = fake_noise(eval_loss=0.0707, pass_rate=0.177, overfit_gap=0)
    lines = noise_lines(result_of(one), [fake_seed_run(one, 43, rows[1]), one], noise, 100)
    assert [
        "sentiment: iteration 001-00000001",
        "  2 runs, seeds 42, 43",
        "  eval_loss: mean 1.0500, from 1.0000 to 1.1000, seed noise 0.0707",
        "  pass_rate: mean 87.5%, from 75.0% to 100.0%, seed noise 17.7 points",
        "  overfit_gap: mean 0.1000, from 0.1000 to 0.1000, seed noise 0.0000",
    ] == lines
    broken = replace(one, metrics={"eval_loss": math.nan})
    assert [] == noise_lines(result_of(one), [one, broken], fake_noise(eval_loss=1), 100)[2:]
    assert [] == noise_lines(result_of(one), [one], {}, 100)[2:]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(hostile_results(), NASTY, NASTY, NASTY, st.sampled_from([60, 100]))
def test_hostile_text(result: LoopResult, tag: str, one: str, two: str, width: int) -> None:
    """Whatever tags, ids and reasons hold: visible characters, and lines that fit."""
    ids = tuple(row.id for row in result.best.examples)
    changes = judged().tags[:1]
    verdict = Verdict(
        "regressed",
        False,
        one,
        "002-b",
        "001-a",
        two,
        changes=tuple(replace(change, metric=f"pass_rate[{tag}]") for change in changes),
        fixed=(*ids[:1], one),
        broken=(*ids[1:], two),
        notes=(two, one),
    )
    gate = replace(RULE, name=f"regression[{tag}]")
    lines = explain_verdict(result, verdict, gate, width).split("\n")
    lines += head_lines(verdict, gate.name, width)
    lines += verdict_lines(verdict, gate.name, width)
    for line in lines:
        assert line.isprintable()
        assert columns_of(line) <= width or "ftloop" in line
