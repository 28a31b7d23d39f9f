"""How a loop is to be run, whatever its file says: the command line's part, and what CI changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How a loop is to be run, whatever its file says.

    `explore` False (in CI): the loop file's own settings are the only iteration that may be
    trained. `iterations` overrides the file's number and explores in any case. `log_folder` holds
    the log instead of the folder `improvement_log` beside the loop file. `run_id` names the
    pytest run that several processes (xdist) share: together they retrain a loop once. `baseline`
    is the commit to compare with, None the default one; `retrain_baseline` trains that commit's
    iteration here where its figures are from another environment.
    """

    retrain: bool = False
    replay: bool = False
    explore: bool = True
    iterations: int | None = None
    log_folder: Path | None = None
    run_id: str = ""
    baseline: str | None = None
    retrain_baseline: bool = False


def in_ci() -> bool:
    """Whether the CI variable is set, as every CI service sets it."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}
