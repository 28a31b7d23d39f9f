"""What the tests of `pull_request` share."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.core.errors import ConfigError, StaleLogError
from pytest_ftloop.core.records import Adjustment, Decision, Example, ExampleResult, Iteration
from pytest_ftloop.gate.statistic import PairedTest
from pytest_ftloop.gate.thresholds import check_gates
from pytest_ftloop.gate.verdict import Change, Verdict
from pytest_ftloop.report.pull_request import (
    LIMIT,
    LoopOutcome,
    PullRequestReport,
    of,
    render,
    to_json,
)
from tests.fakes import fake_finding, fake_iteration, fake_metrics
from tests.report.fakes_report import fake_result

TEST = PairedTest(0.05, 0.01, 30.0, 0.008, 5, 0.01, 200, 1, 3)


# --- a loop with everything, each text of users the same -----------------------------------------


def rows(text: str, count: int, output: str) -> tuple[ExampleResult, ...]:
    """Scored examples; their ids differ in the end, so that they are as many whatever the text."""
    return tuple(
        ExampleResult(
            f"{text}{number}", f"c{number}", (text,), 2.0, 4, 3, bool(number % 2), text, output
        )
        for number in range(count)
    )


def iteration(number: int, text: str, count: int = 3, rate: float = 1e-3) -> Iteration:
    adjusted = Adjustment(f"lora.{text}", text, text, text) if number > 1 else None
    return fake_iteration(
        number,
        metrics=fake_metrics(1.5 / number, **{f"pass_rate[{text}]": 0.5}),
        training={"learning_rate": rate, "x": text * number},
        adjustments=[adjusted] if adjusted else [],
        examples=rows(text, count, text),
        findings=[
            fake_finding(f"{text}-{number}", message=text, remedy=f"{text}.", evidence={text: text})
        ],
        model=text,
        decision=Decision("stop", text, text),
        scoring={text: text},
    )


def verdict(kind: str, text: str, ids: tuple[str, ...] = (), **fields: Any) -> Verdict:
    def change(metric: str, mark: Any) -> Change:
        return Change(metric, 0.9, 0.8, TEST, 0.003, mark)

    return Verdict(
        **{
            "kind": kind,
            "ok": kind != "regressed",
            "because": f"{text}.",
            "candidate": "002-00000002",
            "baseline": "001-00000001",
            "against": f"{text}.",
            "changes": (change("eval_loss", "regressed"), change("pass_rate", "inconclusive")),
            "tags": (change(f"pass_rate[{text}]", "improved"),),
            "runs": (change("overfit_gap", "unchanged"),),
            "fixed": ids,
            "broken": ids,
            "notes": (f"{text}.",),
            **fields,
        }
    )


def judged(
    text: str = "word",
    kind: str = "regressed",
    count: int = 3,
    loop: str | None = None,
    **fields: Any,
) -> LoopOutcome:
    """A loop of two iterations against a baseline, all its texts `text`."""
    old, new = iteration(1, text, count, 5e-4), iteration(2, text, count)
    passing = tuple(replace(row, passed=True) for row in old.examples)
    old = replace(old, examples=passing)
    ids = tuple(row.id for row in new.examples)
    said = verdict(kind, text, ids, **fields)
    holdout = SimpleNamespace(
        metrics={"eval_loss": 0.5}, gains=(), uses=2, alarm=False, eval_set_is_worn=False,
        holdout_is_worn=False, reference=None,
    )  # fmt: skip
    prompts = {row.id: Example(row.id, row.content, {}, (), text, text) for row in new.examples}
    gates = check_gates(
        [Gate(f"pass_rate[{text}]", ">=", 0.9, 3), Gate("eval_loss", "<=", 9.0, 2)], new.metrics
    )
    result = fake_result(
        (old, new),
        loop=text,
        source=f"{text}.ftloop.yaml",
        best=new,
        gates=gates,
        trained=(),
        files=(),
        examples=prompts,
        verdicts=((Regression(line=7), said),),
        baseline=old,
        holdout=holdout,
    )
    name = text if loop is None else loop
    return LoopOutcome(name, result.source, result)


def failed(text: str = "word", *, is_stale: bool = False) -> LoopOutcome:
    error = StaleLogError(text, cure=f"{text}.") if is_stale else ConfigError(f"{text}.")
    return LoopOutcome(text, f"{text}.ftloop.yaml", error=error, is_stale=is_stale)


def text_of(*loops: LoopOutcome, limit: int = LIMIT) -> str:
    return render(of(loops), limit)


def change(report: PullRequestReport, path: str, value: Any) -> bytes:
    """The report's JSON with one value replaced."""
    data = json.loads(to_json(report))
    at = data
    *above, last = path.split(".")
    for key in above:
        at = at[int(key)] if key.isdigit() else at[key]
    at[last] = value
    return json.dumps(data).encode()
