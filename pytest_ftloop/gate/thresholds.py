"""Check an iteration's figures against the thresholds of its gates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ftloop.config.gates import OF_TRAIN_SAMPLE, OPERATORS, Gate, exact_figure, parse_number
from pytest_ftloop.core.metrics import figure_of, format_figure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_ftloop.core.records import Iteration


@dataclass(frozen=True)
class GateResult:
    """A gate, the figure it was checked with (None if it is missing), and whether it holds.

    `proof` is the message of a gate that a test decides, not a threshold.
    """

    gate: Gate
    value: float | None
    passed: bool
    proof: str = ""

    @property
    def message(self) -> str:
        """One line: `eval_loss 3.5123, wanted <= 3.4`."""
        if self.proof:
            return self.proof
        gate = self.gate
        if self.value is None:
            return f"{gate.name} is missing: {_why_missing(gate)}"
        return f"{gate.name} {self.shown}, wanted {gate.op} {exact_figure(gate.metric, gate.bound)}"

    @property
    def shown(self) -> str:
        """The figure as text, with as many digits as agree with the result; empty without one."""
        if self.value is None:
            return ""
        figure = format_figure(self.gate.name, self.value)
        if math.isfinite(self.value) and self._reads_otherwise(figure):
            return exact_figure(self.gate.metric, self.value)
        return figure

    def _reads_otherwise(self, figure: str) -> bool:
        """Whether the rounded figure would contradict the result (89.96% shown as 90.0%)."""
        read = parse_number(figure.rstrip("%"), percent=figure.endswith("%"))
        return OPERATORS[self.gate.op](read, self.gate.bound) is not self.passed


def check_gates(gates: Iterable[Gate], metrics: Mapping[str, float]) -> tuple[GateResult, ...]:
    """Check each threshold, in order. A figure that is missing, NaN or infinite fails.

    So does a `Lift`, which needs the base: `LiftTests` checks those too.
    """
    return tuple(_check(gate, _figure(metrics, gate)) for gate in gates)


def check_gate(gate: Gate, iteration: Iteration) -> GateResult:
    """Check one threshold by an iteration's figures."""
    return _check(gate, _figure(iteration.metrics, gate))


def _figure(metrics: Mapping[str, float], gate: Gate) -> float | None:
    found = figure_of(metrics, gate.name)
    return None if math.isnan(found) and gate.name not in metrics else found


def _check(gate: Gate, value: float | None) -> GateResult:
    passed = value is not None and math.isfinite(value) and OPERATORS[gate.op](value, gate.bound)
    return GateResult(gate=gate, value=value, passed=bool(passed))


def _why_missing(gate: Gate) -> str:
    if gate.tag is None:
        return "the iteration did not record it"
    if gate.metric in OF_TRAIN_SAMPLE:
        return f"no eval example, or none of the train sample, is tagged {gate.tag!r}"
    return f"no eval example is tagged {gate.tag!r}"
