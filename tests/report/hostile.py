"""Loops whose every text is hostile, for hypothesis."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from pytest_ftloop.config.gates import Gate
from pytest_ftloop.core.records import Adjustment, Decision, Example, ExampleResult, Finding
from pytest_ftloop.gate.thresholds import check_gates
from tests.report.fakes_report import fake_chain, fake_result

if TYPE_CHECKING:
    from pytest_ftloop.loop.result import LoopResult

NASTY = st.one_of(
    st.text(st.characters(), max_size=40),
    st.sampled_from(
        [
            "\x1b[2J\x1b[31mred",
            "\u202egnp.exe",
            "a\r\nb\tc\x00",
            "\ud83d",
            "\U0001f600" * 40,
            "long" * 300,
            "x " * 200,
            "|<b>`@team` #1 https://x.y",
        ]
    ),
)
FIGURES = st.one_of(st.floats(width=32), st.just(1e300))


@st.composite
def hostile_results(draw: Any) -> LoopResult:
    """A result of four iterations with nasty text wherever a user or a model can put some."""
    tag = draw(NASTY)
    rows = tuple(
        ExampleResult(
            id=f"{number}{draw(NASTY)}",
            content="",
            tags=(tag, draw(NASTY)) if number % 2 else (),
            loss=draw(FIGURES),
            tokens=number,
            correct=0,
            passed=draw(st.booleans()),
            expected=draw(NASTY),
            output=draw(NASTY),
        )
        for number in range(3)
    )
    adjustment = Adjustment(f"lora.{draw(NASTY)}", draw(NASTY), draw(FIGURES), draw(NASTY))
    findings = (
        Finding(draw(NASTY), "error", draw(NASTY), {draw(NASTY): draw(NASTY)}, draw(NASTY), False),
        Finding("non-finite", "info", draw(NASTY), {"x": draw(FIGURES)}, draw(NASTY)),
    )
    name = f"pass_rate[{tag}]"
    chain = tuple(
        replace(
            iteration,
            loop=draw(NASTY),
            id=draw(NASTY),
            parent=draw(st.none() | NASTY),
            model=draw(NASTY),
            adjustments=(adjustment, adjustment),
            scoring={draw(NASTY): draw(NASTY)},
            data={draw(NASTY): {"source": draw(NASTY), draw(NASTY): draw(FIGURES)}},
            environment={draw(NASTY): draw(NASTY)},
            metrics=iteration.metrics | {"eval_loss": draw(FIGURES), name: draw(FIGURES)},
            settings=replace(iteration.settings, lora={draw(NASTY): draw(NASTY)}),
            findings=findings,
            failing=tuple(row.id for row in rows if row.passed is False),
            decision=Decision("stop", draw(NASTY), draw(NASTY), (adjustment,)),
            examples=rows,
        )
        for iteration in fake_chain()
    )
    prompts = {
        row.id: Example(row.id, "", {"text": draw(NASTY)}, prompt=draw(st.none() | NASTY))
        for row in rows
    }
    best = draw(st.sampled_from(chain))
    return fake_result(
        chain,
        loop=draw(NASTY),
        source=draw(NASTY),
        best=best,
        gates=check_gates([Gate(name, ">=", 0.9, 3), Gate("eval_loss", "<=", 1e-9)], best.metrics),
        trained=(best.id,),
        examples=prompts,
    )
