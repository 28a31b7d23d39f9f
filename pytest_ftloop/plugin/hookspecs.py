"""Where users plug in, from a conftest.py or a plugin of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding, Iteration
    from pytest_ftloop.diagnose.evidence import Evidence


@pytest.hookspec(firstresult=True)
def pytest_ftloop_score(output: str, expected: str, example: Mapping[str, Any]) -> bool | None:
    """Say whether an example passes, for loops with `scoring: {scorer: hook}`.

    `output` is the model's greedy output, `expected` the example's expected text, `example` its
    row. Return None to leave the word to the next implementation.
    """


@pytest.hookspec
def pytest_ftloop_diagnose(evidence: Evidence) -> Sequence[Finding] | None:
    """Say what else there is to find in an iteration that was just trained.

    `evidence` is what our own rules look at (`pytest_ftloop.diagnose.Evidence`). Return findings
    (`pytest_ftloop.Finding`), which are logged after ours, or None.
    """


@pytest.hookspec(firstresult=True)
def pytest_ftloop_adjust(loop: str, chain: Sequence[Iteration]) -> Mapping[str, Any] | None:
    """Say with which settings a loop goes on, in place of its policy.

    `loop` is its name, `chain` its iterations so far, oldest first. Return new values by the
    settings' dotted names (`{"training.learning_rate": 1e-3}`), relative to the best iteration; an
    empty mapping to end the loop; None to leave the word to the next implementation, and in the end
    to the policy that the loop file states.
    """
