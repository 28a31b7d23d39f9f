"""A failing gate or assert explains itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.config.gates import Gate
from pytest_ftloop.core.errors import relative_path
from pytest_ftloop.core.records import Decision
from pytest_ftloop.gate.thresholds import GateResult
from pytest_ftloop.loop.result import Figure
from pytest_ftloop.report.escape import columns_of
from pytest_ftloop.report.explain import explain_figure, explain_gate
from tests.fakes import fake_example, fake_finding, fake_iteration, fake_metrics
from tests.report.fakes_report import fake_chain, fake_result, fake_single, nan_result
from tests.report.hostile import hostile_results

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult


SHOW = f"ftloop show 3 {relative_path(fake_result().log_folder)}"


def test_explain_figure_in_full() -> None:
    """Figure, wanted, history, findings, the worst examples and what to try next."""
    assert [
        "0.75 >= 0.9: pass_rate of iteration 003-ab12cd33 (best of 4)",
        "pass_rate 75.0%, wanted >= 90%: missed by 15.0 points; higher is better",
        "history of pass_rate:",
        "     1  35.0%  start: lr 2e-4, r 8, 1 epoch",
        "     2  55.0%  learning_rate 2e-4 -> 1e-3",
        "  *  3  75.0%  num_train_epochs 1 -> 3",
        "     4  70.0%  r 8 -> 16, lora_dropout default -> 0.1",
        "findings:",
        "  warning overfitting: The eval loss rose from 1.290 (step 66) to 1.360 while the train "
        "loss went on",
        "    falling.",
        "    evidence: eval_lowest 1.29, eval_last 1.36, best_step 66",
        "    remedy: the loop would change next: learning_rate 1e-3 -> 5e-4",
        "failing examples: 5 of 20 (25.0%); negation 3 of 10",
        "  e01 [negation, short]  loss 2.4375 per token",
        r'    prompt    "Review e01:\nnot good at all.\nSentiment:"',
        '    expected  "negative"',
        '    actual    "positive"',
    ] == explain_figure(fake_result().pass_rate, ">=", 0.9)[:17]
    assert [
        f"  ... and 2 more: {SHOW}",
        "try next: learning_rate 1e-3 -> 5e-4: it overfits",
        f"look at the examples: {SHOW}",
    ] == explain_figure(fake_result().pass_rate, ">=", 0.9)[-3:]


def test_a_tags_figure_shows_only_its_examples() -> None:
    """Of a slice the examples with its tag, and its own history."""
    lines = explain_figure(fake_result().slice("negation").pass_rate, ">=", 0.8)
    assert "0.6 >= 0.8: pass_rate[negation] of iteration 003-ab12cd33 (best of 4)" == lines[0]
    assert "  *  3  60.0%  num_train_epochs 1 -> 3" in lines
    assert ["e01", "e03", "e05"] == [line.split()[0] for line in lines if "per token" in line]
    assert "failing examples: 3 of 10 (30.0%)" in lines


def test_a_loss_shows_the_examples_with_the_highest() -> None:
    """A loss is not about passing: a passing example may be the worst one."""
    rows = (fake_example("low", False, loss=1.0), fake_example("high", True, loss=9.0))
    result = fake_result((fake_iteration(examples=rows),), examples={})
    lines = explain_figure(result.eval_loss, "<", 0.5)
    assert "1 < 0.5: eval_loss of iteration 001-00000001 (the only one)" == lines[0]
    assert "eval_loss 1.0000, wanted < 0.5: missed by 0.5000; lower is better" == lines[1]
    assert [
        "examples with the highest loss (of 2):",
        "  high  loss 2.2500 per token",
    ] == lines[4:6]
    assert lines[-1].startswith("look at the examples: ftloop show 1 ")


def test_nan_says_that_it_is_not_a_number_and_why() -> None:
    """The finding that explains the NaN is named first."""
    assert [
        "nan < 1.2: eval_loss of iteration 001-00000001 (the only one)",
        "eval_loss nan, wanted < 1.2: the figure is not a number: The train loss became NaN.",
    ] == explain_figure(nan_result().eval_loss, "<", 1.2)[:2]


@pytest.mark.parametrize(
    ("value", "row", "wanted"),
    [
        (math.nan, {"loss": math.nan}, "not a number: the loss of 1 of 1 examples is not finite"),
        (math.inf, {"loss": math.inf}, "infinite: the loss of 1 of 1 examples is not finite"),
        (math.nan, {"tokens": 0}, "not a number: none of the examples has a labelled token"),
        (math.nan, {}, "not a number: no condition on it holds"),
    ],
)
def test_not_finite_without_a_finding(value: float, row: dict[str, float], wanted: str) -> None:
    """Without a finding the examples are asked."""
    rows = (fake_example("e1", False, **row),)
    result = fake_result((fake_iteration(metrics=fake_metrics(value), examples=rows),))
    assert explain_figure(result.eval_loss, "<=", 1.2)[1].endswith(f"the figure is {wanted}")


def test_equal_to_an_exclusive_bound() -> None:
    """`<` fails at the bound itself: that is said instead of a distance of zero."""
    lines = explain_figure(fake_result().eval_loss, "<", 1.29)
    assert "eval_loss 1.2900, wanted < 1.29: equal to the bound; lower is better" == lines[1]


def test_other_comparisons_are_explained_too() -> None:
    """`==` is no gate's operator, and is explained all the same."""
    lines = explain_figure(fake_result().pass_rate, "==", 1.0)
    assert "0.75 == 1: pass_rate of iteration 003-ab12cd33 (best of 4)" == lines[0]
    assert "missed by 25.0 points; higher is better" == lines[1]


def test_a_bound_that_is_not_finite() -> None:
    """A wanted NaN or infinity is named as the fault."""
    lines = explain_figure(fake_result().eval_loss, "<", math.nan)
    assert "eval_loss 1.2900, wanted < nan: the bound is nan" == lines[1]


def test_a_figure_that_is_no_metric() -> None:
    """Of a metric of the user's own higher is better."""
    lines = explain_figure(Figure(1.0, "bleu", fake_result()), ">", 2.0)
    assert "bleu 1.0000, wanted > 2: missed by 1.0000; higher is better" == lines[1]


def test_history_shows_missing_figures_and_is_limited() -> None:
    """A dash where an iteration has no such figure; the last 8 iterations, and the best."""
    first = fake_chain()[0]
    worse = replace(first, metrics={"eval_loss": 2.2})
    chain = (*(replace(first, number=n) for n in range(1, 10)), replace(worse, number=10))
    lines = explain_figure(fake_result(chain).pass_rate, ">=", 0.9)
    at = lines.index("history of pass_rate (9 of 10 iterations):")
    assert ["  *   1  35.0%", "      3  35.0%"] == [line[:14] for line in lines[at + 1 : at + 3]]
    assert "     10      -" == lines[at + 9][:14]


def test_explain_gate() -> None:
    """The gate's message, the iteration, the place of the gate; then as for an assert."""
    result = fake_result()
    gate = replace(result.gates[1], gate=replace(result.gates[1].gate, line=9))
    lines = explain_gate(result, gate).splitlines()
    assert [
        "pass_rate 75.0%, wanted >= 90%",
        "pass_rate of iteration 003-ab12cd33 (best of 4); gate at sentiment.ftloop.yaml:9",
        "missed by 15.0 points; higher is better",
        "history of pass_rate:",
    ] == lines[:4]
    assert explain_figure(result.pass_rate, ">=", 0.9)[2:] == lines[3:]


def test_explain_gate_without_a_figure() -> None:
    """A missing figure is a failure and says why it is missing."""
    gate = Gate("pass_rate[irony]", ">=", 0.8)
    lines = explain_gate(fake_result(), GateResult(gate, None, passed=False)).splitlines()
    assert "pass_rate[irony] is missing: no eval example is tagged 'irony'" == lines[0]
    assert "the figure is missing, so no condition on it holds" == lines[2]
    assert "  *  3  -  num_train_epochs 1 -> 3" in lines


def test_without_a_proposal_a_remedy_is_by_hand() -> None:
    """Where the loop proposes nothing, that is said; a fault is mended by hand, and first."""
    leak = fake_finding("leak", "info", remedy="Take it out.")
    lines = explain_figure(fake_single(findings=[leak]).eval_loss, "<", 0.5)
    assert lines[-3].startswith("the loop has nothing left to try: ")
    assert "by hand: Take it out." == lines[-2]
    fault = replace(leak, severity="error", tunable=False)
    lines = explain_figure(fake_single(findings=[fault]).eval_loss, "<", 0.5)
    assert "fix first, by hand: Take it out." == lines[-2]


def test_next_is_what_the_last_iteration_proposes() -> None:
    """What the best iteration proposed was tried already."""
    chain = fake_chain()
    chain = (*chain[:-1], replace(chain[-1], decision=Decision("stop", "time", "Time is up.")))
    lines = explain_figure(fake_result(chain).eval_loss, "<", 0.5)
    assert "the loop has nothing left to try: Time is up." == lines[-2]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hostile_results(),
    st.integers(20, 140),
    st.sampled_from(["<", ">=", "==", "!="]),
    st.floats(),
    st.integers(0, 1),
)
def test_explanations_survive_hostile_text(
    result: LoopResult, width: int, op: str, wanted: float, which: int
) -> None:
    """Every line is printable and within the width, for figures of any kind."""
    lines = explain_gate(result, result.gates[which], width).splitlines()
    for name in (result.gates[0].gate.name, "eval_loss"):
        lines += explain_figure(result.figure(name), op, wanted, width)
    assert all(line.isprintable() for line in lines)
    assert all(columns_of(line) <= width or "ftloop show " in line for line in lines)
