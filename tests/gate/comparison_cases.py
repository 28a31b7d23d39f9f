"""What the tests of `comparison` share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.records import SeedRun
from pytest_ftloop.log import ImprovementLog
from tests.fakes import (
    fake_measured,
    fake_table,
)

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration

N = 200


ELSEWHERE = {"device": "cuda", "torch": "2.13.0"}


def losses(mean: float, noise: int, n: int = N) -> list[float]:
    shared, own = random.Random(0), random.Random(noise)
    return [mean * (shared.uniform(0.5, 1.5) + 0.02 * own.gauss(0, 1)) for _ in range(n)]


def run_of(number: int, mean: float = 1.0, **fields: Any) -> Iteration:
    return fake_measured(number, fake_table(losses(mean, number)), **fields)


OLD = run_of(1)


def log_of(folder: Path, *kept: Any) -> ImprovementLog:
    log = ImprovementLog(folder / "improvement_log" / "sentiment")
    for one in kept:
        put(log, one)
    return log


def put(log: ImprovementLog, kept: Any) -> Any:
    if isinstance(kept, SeedRun):
        return log.append_seed_run(kept)
    return log.append(kept) if hasattr(kept, "decision") else log.append_judgement(kept)


# the holdout, and nothing of it anywhere else
