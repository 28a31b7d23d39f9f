"""What a reviewer sees: a report as plain data, and as Markdown for a pull request.

The two are apart because they may be made in different places: where a pull request comes from a
fork, its own job writes the data, and a job that trusts nothing in it writes the Markdown.
"""

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
    "of",
    "render",
    "to_json",
]
