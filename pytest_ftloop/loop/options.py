"""The options of a run: what the command line sets, and what the variable CI changes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_ftloop.gate import ci_systems


@dataclass(frozen=True)
class Options:
    """How to run loops, besides what their files set.

    `retrain`: train even logged iterations. `replay`: train and write nothing, and plan nothing
    after a logged chain. `explore` False (in CI): only the loop file's own settings may be trained.
    `iterations` replaces the loop file's number; with it the loop explores even in CI, and goes on
    after an accepted iteration. `log_folder` replaces the folder `improvement_log`
    beside the loop file. `run_id` identifies the pytest run: its processes (xdist) retrain a loop
    once between them. `baseline` is the commit to compare with (None: the default).
    `retrain_baseline`: train that commit's iteration here if its figures are from another
    environment. `parallel` replaces the loop file's number of processes that train at once.
    """

    retrain: bool = False
    replay: bool = False
    explore: bool = True
    iterations: int | None = None
    log_folder: Path | None = None
    run_id: str = ""
    baseline: str | None = None
    retrain_baseline: bool = False
    parallel: int | Literal["auto"] | None = None


def in_ci() -> bool:
    """Whether a CI system runs this: by the variable CI, or by its own ones."""
    return ci_systems.in_ci(os.environ)
