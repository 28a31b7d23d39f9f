"""The rule on the size of the eval set: whether it can show what the gates require."""

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

FEW_EXAMPLES = 20
"""Number of eval examples below which a gate on a mean is too weak: each example is more than 5% of
it, and their spread is hardly known."""

MOST_HALF_WIDTH = 0.1
"""Largest half width of a gated pass rate's 95% interval. Beyond 10 points either way the rate
shows large changes only."""

Z_95 = 1.96
"""Half width of a 95% interval, in standard errors."""

_MEAN_OF = {
    "eval_loss": "eval_loss",
    "perplexity": "eval_loss",
    "overfit_gap": "eval_loss",  # less a mean over train examples, which has an error of its own
    "token_accuracy": "token_accuracy",
}
"""The metrics that rest on a mean over the eval examples, and which mean; without the pass rate."""


def small_eval_set(e: Evidence) -> Finding | None:
    """The eval set is too small to show what the gates require.

    Signal, by the kind of gate:

    - pass rate: the 95% half width of a rate at the gate's bound (Wilson) is over 10 points; or,
      for a tag, it has under 20 examples;
    - regression gate on the pass rate: a drop of `max_regression` could not be ruled out with 95%
      confidence even if only one example in 20 flipped between runs;
    - any other figure of the eval set: under 20 examples. Which difference they can show is known
      after training: 1.96 standard errors of the mean;
    - none, in another trainer's run: under 20 examples, by the time that an evaluation took and the
      examples per second.

    A warning if the whole eval set has under 20 examples, because a few then decide a gate; else an
    info, as the training itself is not affected. Source: the statistics of a rate and of a mean.
    Minimum data: none; a spread needs 2 examples. NaN: unless each example has a finite loss, no
    difference is stated.
    """
    weak = [found for gate in e.gates if (found := _weakness(gate, e))]
    if not weak:
        return _few_examples(e)
    # Name the gate with the fewest examples: what helps it helps the others too.
    least = min(weak, key=lambda found: (found.examples, -found.width))
    return Finding(
        kind="small-eval-set",
        severity="warning" if len(e.eval) < FEW_EXAMPLES else "info",
        message=f"The gate {least.gate} rests on {plural(least.examples, 'eval example')}"
        f"{least.consequence}.",
        evidence={
            "gate": least.gate,
            "examples": least.examples,
            "gates": len(weak),
            **({"half_width": least.width} if least.width else {}),
        },
        remedy="Add eval examples: four times as many can show half the difference.",
        tunable=False,
    )


def _few_examples(e: Evidence) -> Finding | None:
    if not 0 < e.eval_examples < FEW_EXAMPLES:
        return None
    return Finding(
        kind="small-eval-set",
        severity="info",
        message=f"The eval loss rests on {plural(e.eval_examples, 'example')}, a few of which "
        "decide it.",
        evidence={"examples": e.eval_examples},
        remedy="Add eval examples: four times as many can show half the difference.",
        tunable=False,
    )


@dataclass(frozen=True)
class _Weakness:
    """A gate that rests on too few examples.

    `width` is the smallest difference that they can show, in `unit`; 0 if it is unknown.
    """

    gate: str
    examples: int
    width: float = 0.0
    unit: Unit = ""

    @property
    def consequence(self) -> str:
        """What follows from the number of examples: the end of the finding's message."""
        if not self.width:
            return f": with fewer than {FEW_EXAMPLES}, a few of them decide it"
        if self.unit == "points":
            return f", too few to show a difference under {100 * self.width:.0f} points"
        return f", too few to show a difference under {self.width:.2g} {self.unit}".rstrip()


def _weakness(gate: Gate | Regression, e: Evidence) -> _Weakness | None:
    count = sum(gate.tag is None or gate.tag in x.tags for x in e.eval)
    name = gate.name[:LONGEST_NAME]
    if not count:
        return None
    if isinstance(gate, Regression):
        # Flips of one example in 20 have a variance of 0.05; 1.645: one-sided 95%, as in the gate.
        width = 1.645 * math.sqrt(0.05 / count)
        if "pass_rate" in gate.metrics and width > gate.max_regression:
            return _Weakness(name, count, width, "points")
        of_means = any(metric in _MEAN_OF for metric in gate.metrics)
        return _Weakness(name, count) if of_means and count < FEW_EXAMPLES else None
    if gate.metric == "pass_rate":
        width = _wilson_half_width(gate.bound, count)
        # A tag is a part of the set, so a wide interval is normal: only a handful is too few.
        small = count < FEW_EXAMPLES if gate.tag else width > MOST_HALF_WIDTH
        return _Weakness(name, count, width, "points") if small else None
    if gate.metric not in _MEAN_OF or count >= FEW_EXAMPLES:
        return None
    rows = [row for row in e.results if gate.tag is None or gate.tag in row.tags]
    return _Weakness(name, count, *_resolved(gate.metric, rows))


def _wilson_half_width(rate: float, count: int) -> float:
    """Half width of Wilson's 95% interval of a rate, which is sound for few examples too."""
    z = Z_95
    return z * math.sqrt(rate * (1 - rate) / count + (z / count) ** 2 / 4) / (1 + z**2 / count)


def _resolved(metric: str, rows: Sequence[ExampleResult]) -> tuple[float, Unit]:
    """The smallest difference that the rows can show: 1.96 standard errors of their token mean.

    In a mean per token, an example's contribution is what it adds beyond the mean loss of as many
    tokens. 0 if unknown.
    """
    mean_of = EXAMPLE_METRICS[_MEAN_OF[metric]]
    values = mean_of.values(rows)
    if len(values) < 2 or not all(map(is_figure, values)):
        return 0.0, ""
    mean, tokens = math.fsum(values) / len(values), sum(row.tokens for row in rows) / len(rows)
    found = differences(
        [v - mean * row.tokens / tokens for v, row in zip(values, rows, strict=True)]
    )
    width = Z_95 * math.sqrt(found.variance / found.n)
    if metric == "perplexity":
        width *= perplexity(mean)
        return (width, "") if is_figure(width) else (0.0, "")
    return width, "nats" if mean_of.unit == "loss" else "points"
