"""The JUnit `<properties>` of a gate: figures as plain numbers, under stable names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.core.metrics import METRICS, own_metrics
from pytest_ftloop.report.escape import visible

if TYPE_CHECKING:
    from pytest_ftloop.config.gates import Regression
    from pytest_ftloop.gate.thresholds import GateResult
    from pytest_ftloop.gate.verdict import Verdict
    from pytest_ftloop.loop.result import LoopResult

Properties = list[tuple[str, str]]


def loop_properties(result: LoopResult, judged: GateResult | None = None) -> Properties:
    """The loop, its best iteration, the figures of the whole eval set and of the gate."""
    said = {"ftloop_loop": result.loop, "ftloop_iteration": result.best.name}
    figures = result.best.metrics
    names = (*METRICS, *own_metrics([figures]))
    said |= {name: repr(figures[name]) for name in names if name in figures}
    if judged is not None:
        said[judged.gate.name] = "missing" if judged.value is None else repr(judged.value)
    return _visible(said)


def verdict_properties(verdict: Verdict, rule: Regression) -> Properties:
    """The verdict; and per deciding metric its change, p and smallest detectable drop.

    A change is the candidate's figure minus the baseline's. A detectable drop is positive.
    """
    said: dict[str, str] = {"verdict": verdict.kind}
    if verdict.baseline is not None:
        said["baseline"] = verdict.baseline
    for change in verdict.changes:
        said[f"{change.label} change"] = repr(change.candidate - change.baseline)
        said[f"{change.label} p"] = repr(change.p)
        said[f"{change.label} detectable"] = repr(change.test.detectable)
    return _visible({f"{rule.name} {name}": value for name, value in said.items()})


def _visible(said: dict[str, str]) -> Properties:
    """JUnit's writer escapes values but not names: a control character in a tag breaks the file."""
    return [(visible(name), visible(value)) for name, value in said.items()]
