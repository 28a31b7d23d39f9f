"""The hooks that users implement, in a conftest.py or in their own plugin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Finding, Iteration
    from pytest_ftloop.diagnose.evidence import Evidence
    from pytest_ftloop.loop.executor import Executor


@pytest.hookspec(firstresult=True)
def pytest_ftloop_score(
    output: str, expected: str, example: Mapping[str, Any], prompt: str
) -> bool | float | Mapping[str, bool | float] | None:
    """Score an output, for loops with `scoring: {scorer: hook}`.

    `output` is the model's greedy output and `expected` the expected text, both without outer white
    space; `example` is the example's row, with all its columns, and `prompt` its prompt as text. An
    implementation takes those that it needs. Return whether it passes, a score from 0 to 1, or
    several by name; it passes from `scoring.pass_at` on. Return None to leave it to the next
    implementation.
    """


@pytest.hookspec
def pytest_ftloop_diagnose(evidence: Evidence) -> Sequence[Finding] | None:
    """Add findings to those on an iteration that was just trained.

    `evidence` is the input of our own rules (`pytest_ftloop.diagnose.Evidence`). Return findings
    (`pytest_ftloop.Finding`), which are logged after ours, or None.
    """


@pytest.hookspec(firstresult=True)
def pytest_ftloop_adjust(loop: str, chain: Sequence[Iteration]) -> Mapping[str, Any] | None:
    """Choose the settings of a loop's next iteration, in place of its policy.

    `loop` is the loop's name and `chain` its iterations so far, oldest first. Return a mapping of
    settings to new values (`{"training.learning_rate": 1e-3}`); the other settings are those of the
    best iteration. Return an empty mapping to end the loop, or None to leave the decision to the
    next implementation and finally to the loop file's policy.
    """


@pytest.hookspec(firstresult=True)
def pytest_ftloop_executor(name: str, options: Mapping[str, Any], count: int) -> Executor | None:
    """Run the workers of a loop elsewhere, for loops with `run_on: NAME` in the section `loop`.

    `name` and `options` are what the loop file states there; `count` is how many trainings are to
    run at once. Return an executor (`pytest_ftloop.loop.executor.Executor`), or None to leave it to
    the next implementation. It is called only where something is to be trained or measured.
    """
