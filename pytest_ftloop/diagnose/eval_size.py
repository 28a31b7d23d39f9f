"""The rule over the eval set's size: whether it can show what the gates ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_ftloop.config.gates import Gate, Regression
from pytest_ftloop.core.metrics import perplexity
from pytest_ftloop.core.records import ExampleResult, Finding
from pytest_ftloop.core.runs import EXAMPLE_METRICS, differences, is_figure
from pytest_ftloop.diagnose.evidence import Evidence
from pytest_ftloop.diagnose.naming import LONGEST_NAME, plural

Unit = Literal["points", "nats", ""]

FEW = 20
"""Fewer eval examples: each moves a mean by over 5%, and their spread itself is hardly known."""

WIDEST = 0.1
"""Half width of a rate's 95% interval."""

Z = 1.96
"""Standard errors to either side of a mean: 95%."""

_MEAN_OF = {
    "eval_loss": "eval_loss",
    "perplexity": "eval_loss",
    "overfit_gap": "eval_loss",  # less a mean over train examples, which has an error of its own
    "token_accuracy": "token_accuracy",
}
"""The metrics that rest on a mean over the eval examples, beside the pass rate; and on which."""


def small_eval_set(e: Evidence) -> Finding | None:
    """The eval set can't show what the gates ask.

    Signal: for a gate on the pass rate, the 95% half width of a rate at its bound (Wilson) is over
    10 points, or the tag has under 20 examples; for a regression gate on the pass rate, a drop of
    `max_regression` could not be ruled out with 95% though only one example in 20 flipped from run
    to run; for any other gate on a figure of the eval set, under 20 examples. What difference such
    a gate can show is known after training: 1.96 standard errors of the mean. A warning where the
    whole eval set has under 20 examples, as a few of them then decide a gate; else an info, as the
    training is none the worse for it. Source: the statistics of a rate and of a mean. Minimum data:
    none; a spread needs 2 examples. NaN: without a finite loss of each example no difference is
    told.
    """
    weak = [found for gate in e.gates if (found := _weakness(gate, e))]
    if not weak:
        return None
    least = min(weak, key=lambda found: (found.examples, -found.width))
    return Finding(
        kind="small-eval-set",
        severity="warning" if len(e.eval) < FEW else "info",
        message=f"The gate {least.gate} rests on {plural(least.examples, 'eval example')}"
        f"{least.consequence}.",
        evidence={
            "gate": least.gate,
            "examples": least.examples,
            "gates": len(weak),
            **({"half_width": least.width} if least.width else {}),
        },
        remedy="Add eval examples: four times as many show half the difference.",
        tunable=False,
    )


@dataclass(frozen=True)
class _Weakness:
    """A gate that rests on too few examples; `width` is the difference they show, 0 if unknown."""

    gate: str
    examples: int
    width: float = 0.0
    unit: Unit = ""

    @property
    def consequence(self) -> str:
        """What follows, to be read after how many examples there are."""
        if not self.width:
            return f": with under {FEW} a few of them decide it"
        if self.unit == "points":
            return f", too few to show a difference under {100 * self.width:.0f} points"
        return f", too few to show a difference under {self.width:.2g} {self.unit}".rstrip()


def _weakness(gate: Gate | Regression, e: Evidence) -> _Weakness | None:
    count = sum(gate.tag is None or gate.tag in x.tags for x in e.eval)
    name = gate.name[:LONGEST_NAME]
    if not count:
        return None
    if isinstance(gate, Regression):
        width = 1.645 * math.sqrt(0.05 / count)
        if "pass_rate" in gate.metrics and width > gate.max_regression:
            return _Weakness(name, count, width, "points")
        of_means = any(metric in _MEAN_OF for metric in gate.metrics)
        return _Weakness(name, count) if of_means and count < FEW else None
    if gate.metric == "pass_rate":
        width = _wilson_half_width(gate.bound, count)
        small = count < FEW if gate.tag else width > WIDEST
        return _Weakness(name, count, width, "points") if small else None
    if gate.metric not in _MEAN_OF or count >= FEW:
        return None
    rows = [row for row in e.results if gate.tag is None or gate.tag in row.tags]
    return _Weakness(name, count, *_resolved(gate.metric, rows))


def _wilson_half_width(rate: float, count: int) -> float:
    return Z * math.sqrt(rate * (1 - rate) / count + (Z / count) ** 2 / 4) / (1 + Z**2 / count)


def _resolved(metric: str, rows: Sequence[ExampleResult]) -> tuple[float, Unit]:
    """How small a difference the rows show: 1.96 standard errors of their token mean; 0: unknown.

    Of a mean by token an example's part is what it brings beyond the mean of so many tokens.
    """
    mean_of = EXAMPLE_METRICS[_MEAN_OF[metric]]
    values = mean_of.values(rows)
    if len(values) < 2 or not all(map(is_figure, values)):
        return 0.0, ""
    mean, tokens = math.fsum(values) / len(values), sum(row.tokens for row in rows) / len(rows)
    told = differences(
        [v - mean * row.tokens / tokens for v, row in zip(values, rows, strict=True)]
    )
    width = Z * math.sqrt(told.variance / told.n)
    if metric == "perplexity":
        width *= perplexity(mean)
        return (width, "") if is_figure(width) else (0.0, "")
    return width, "nats" if mean_of.unit == "loss" else "points"
