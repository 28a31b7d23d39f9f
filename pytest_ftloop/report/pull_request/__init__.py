"""The report on a pull request: as plain data, and as Markdown.

These are two steps because two jobs may do them: for a pull request from a fork, the fork's job
writes the data, and a job with write access, which trusts none of it, writes the Markdown.
"""

from pytest_ftloop.report.pull_request.gates import loosened_gates
from pytest_ftloop.report.pull_request.gather import LoopOutcome, of
from pytest_ftloop.report.pull_request.markdown import LABELS, LIMIT, render
from pytest_ftloop.report.pull_request.model import (
    LoopSection,
    PullRequestReport,
    from_json,
    to_json,
)

__all__ = [
    "LABELS",
    "LIMIT",
    "LoopOutcome",
    "LoopSection",
    "PullRequestReport",
    "from_json",
    "loosened_gates",
    "of",
    "render",
    "to_json",
]
