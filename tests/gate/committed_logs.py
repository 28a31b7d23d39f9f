"""What the tests of committed logs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ftloop.core.records import Iteration

LOG = "improvement_log/s"


def log_in(folder: Path, *iterations: Iteration) -> ImprovementLog:
    """The log of the loop s in a folder, with these iterations added."""
    log = ImprovementLog(folder / LOG)
    for iteration in iterations:
        log.append(iteration)
    return log
