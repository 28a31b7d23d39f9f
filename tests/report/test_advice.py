"""One advice: a finding's remedy and what the loop does next never contradict each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_ftloop.config.gates import parse_gate
from pytest_ftloop.core.records import Adjustment, Decision
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.report.advice import remedy_of
from pytest_ftloop.report.as_json.items import run_item, show_item
from pytest_ftloop.report.explain import explain_gate
from pytest_ftloop.report.pull_request import LoopOutcome
from pytest_ftloop.report.screen import result_screen
from pytest_ftloop.report.show import show_iteration
from pytest_ftloop.report.suggestion import Suggestion, as_text
from tests.fakes import fake_finding
from tests.report.fakes_report import fake_chain, fake_result
from tests.report.html_cases import Page
from tests.report.pull_request_cases import text_of

DOWN = (Adjustment("training.learning_rate", 0.01, 0.0031, "the middle one is best"),)
UP = "Raise the learning rate by a factor of 3 to 5."


@pytest.mark.parametrize(
    ("kind", "decision", "wanted"),
    [
        (
            "underfit",
            Decision("adjust", "adjust", "", DOWN),
            "the loop changes next: learning_rate 0.01 -> 3.1e-3",
        ),
        (
            "underfit",
            Decision("stop", "plateau", "", DOWN),
            "the loop would change next: learning_rate 0.01 -> 3.1e-3",
        ),
        (
            "underfit",
            Decision("stop", "gates", "", DOWN),
            "the loop changes nothing for it: the thresholds hold",
        ),
        (
            "underfit",
            Decision("stop", "exhausted", ""),
            f"by hand: nothing left that the loop would change; {UP}",
        ),
        ("failing-slice", Decision("adjust", "adjust", "", DOWN), f"by hand: {UP}"),
        ("underfit", None, UP),
    ],
)
def test_remedy_agrees_with_the_decision(kind: str, decision: Decision | None, wanted: str) -> None:
    """Of what the policy answers its own step is stated; the rest is said to be done by hand."""
    assert wanted == remedy_of(fake_finding(kind, remedy=UP), decision)


def test_a_fault_is_mended_by_hand() -> None:
    """What no setting can cure is not the loop's, whatever it does next."""
    finding = fake_finding("diverged", "error", remedy=UP, tunable=False)
    assert f"by hand: {UP}" == remedy_of(finding, Decision("adjust", "adjust", "", DOWN))


# every output of a loop, in every state that it can be left in


def of_suggest(result: LoopResult) -> str:
    last = result.chain[-1]
    return as_text(Suggestion(last, result.best, last.decision.next, last.decision.because))


def page(result: LoopResult) -> str:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    from pytest_ftloop.report.html.gather import of_result
    from pytest_ftloop.report.html.page import render

    return Page(render([of_result(result)])).text


OUTPUTS: dict[str, Callable[[LoopResult], str]] = {
    "screen": lambda result: "\n".join(result_screen(result)),
    "screen -v": lambda result: "\n".join(result_screen(result, 1)),
    "failure": lambda result: "\n".join(
        explain_gate(result, gate) for gate in result.gates if not gate.passed
    ),
    "show": lambda result: show_iteration(result.chain[-1], {}),
    "suggest": of_suggest,
    "comment": lambda result: text_of(LoopOutcome(result.loop, result.source, result)),
    "page": page,
    "run as json": lambda result: json.dumps(run_item(result, 0)["findings"]),
    "show as json": lambda result: json.dumps(
        show_item(result.chain[-1], "x", 0, {}, None)["findings"]
    ),
}

BETTER_EXPECTED = "The thresholds hold and nothing better is expected."
DECISIONS = {
    "adjust": Decision("adjust", "adjust", "it hardly fell", DOWN),
    "plateau": Decision("stop", "plateau", "No gain in 2 iterations.", DOWN),
    "iterations": Decision("stop", "iterations", "The loop is limited to 4 iterations.", DOWN),
    "gates": Decision("stop", "gates", BETTER_EXPECTED, DOWN),
    "exhausted": Decision("stop", "exhausted", "Every move was tried."),
}


def left(decision: Decision, *, best_is_last: bool) -> LoopResult:
    """A loop that was left with this decision; a tunable finding is on its best iteration."""
    low = fake_finding("underfit", "warning", message="It learned too little.", remedy=UP)
    chain = [replace(it, findings=(low,)) for it in fake_chain()]
    if best_is_last:
        chain = chain[:3]
    chain[-1] = replace(chain[-1], decision=decision)
    holds = "<= 9" if decision.kind == "gates" else "<= 0.1"
    gates = check_gates([parse_gate("eval_loss", holds)], chain[2].metrics)
    return fake_result(tuple(chain), best=chain[2], gates=gates)


@pytest.mark.parametrize("best_is_last", [True, False])
@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_one_advice(
    output: Callable[[LoopResult], str], decision: Decision, best_is_last: bool
) -> None:
    """Where the loop has a step, no other one is advised; where it expects none, none is named."""
    result = left(decision, best_is_last=best_is_last)
    text = " ".join(output(result).split())
    steps = "learning_rate 0.01 ->", "learning_rate 0.01 \u2192", "learning_rate 0.01 to"
    if decision.next:
        assert "Raise the learning rate" not in text
    elif "Raise the learning rate" in text:
        assert "by hand: nothing left that the loop would change; Raise" in text or (
            "the loop has nothing left to try" in text
        )
    tried = [change.setting.partition(".")[2] for change in fake_chain()[3].adjustments]
    for name in tried:  # the step after the best, which the last iteration has tried
        assert best_is_last or f"changes next: {name}" not in text
    if decision.kind == "gates":
        assert not any(step in text for step in steps)
        assert "changes next" not in text
        assert "would change next" not in text
