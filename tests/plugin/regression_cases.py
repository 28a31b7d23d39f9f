"""What the tests of `regression_gate` share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.log import LogView
    from tests.plugin.conftest import Project

FAILED = pytest.ExitCode.TESTS_FAILED


def log_of(project: Project) -> LogView:
    return ImprovementLog(project.path / "improvement_log/x").view


def judged(project: Project) -> list[tuple[str, bool]]:
    """Kind and outcome of each judgement in the log."""
    return sorted((j.kind, j.passed) for j in log_of(project).judgements())


def gates(project: Project, text: str) -> None:
    """Put other gates in the place of `regression: {}`."""
    project.edit("x.ftloop.yaml", "  regression: {}\n", text)
