"""A rank that trains in no time and without torch, and fails where a test says so.

See `tests.fake_ranks`, which starts it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.ranks import processes_of, rank_of, ranks_in
from pytest_ftloop.loop.orphans import end_with_parent
from pytest_ftloop.loop.worker import Worker
from tests.plugin.fake_runner import FakeBackend
from tests.processes import LONG_S

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Run, Settings


class RankBackend(FakeBackend):
    """Trains as the fake of the loop's own process, unless it is to fail."""

    def train(self, settings: Settings, **arguments: Any) -> Run:
        assert processes_of(settings) == ranks_in()
        seen = Path(os.environ["RANKS_SEEN"]) / str(rank_of())
        seen.write_text(str(os.getpid()), encoding="utf-8")
        self.progress.working("training")
        failing, _, how = os.environ.get("RANKS_FAIL", "").partition(" ")
        if failing == str(rank_of()):
            _fail(how)
        elif failing:  # the others wait for it
            time.sleep(LONG_S)
        return super().train(settings, **arguments)


def _fail(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "mistake":
        raise ConfigError("a row is wrong", where=Location("train.jsonl", 3), cure="Mend it.")
    if how == "bug":
        raise RuntimeError("no such thing")
    time.sleep(LONG_S)


def main() -> None:
    """Run in the process of a rank."""
    end_with_parent()
    sys.exit(0 if Worker(RankBackend).work(Path(sys.argv[1])) else 2)
