"""Score outputs that exist: fresh ones, or those of a log. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Example, ExampleResult
    from pytest_ftloop.evaluate.scorers import Scorer


def score_outputs(
    results: Sequence[ExampleResult], examples: Sequence[Example], scorer: Scorer
) -> tuple[ExampleResult, ...]:
    """The results, which have an output, with what the scorer says of it.

    `examples` belong to them, each with the text as `expected` that the model should write. Raises
    `ScoringError` for the first example that the scorer can't score.
    """
    return tuple(
        replace(result, passed=scorer(example, result.output))
        for result, example in zip(results, examples, strict=True)
    )


def as_asked(example: Example, result: ExampleResult) -> Example:
    """The example with the expected text of its result, which a chat template has rendered."""
    if (example.expected or "").strip() == result.expected:
        return example
    return replace(example, expected=result.expected)
