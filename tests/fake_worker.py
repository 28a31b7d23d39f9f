"""A worker process that trains in no time and without torch, and fails where a test says so.

FAKE_KILL names a folder: a training whose seed or learning rate is the name of a file in it kills
its worker, after removing that file if it is empty; one that says `hang`, or `hang CACHE` of the
workers with that cache, never ends. FAKE_BEGUN names a folder: each training notes its process in
a file with the name of its loop. FAKE_WAIT_x is a pattern of paths: a training of the loop x goes
on when there is such a file. FAKE_TRAINED and the others are as in `tests.plugin.fake_runner`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.loop.processes import Processes
from pytest_ftloop.loop.worker import serve
from tests.plugin.fake_runner import FakeBackend
from tests.processes import LONG_S

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Run, Settings

ROOT = Path(__file__).parents[1]
COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.fake_worker import main; main()",
)


def executor(count: int) -> Processes:
    """Runs fake workers in processes of this machine."""
    return Processes(count, COMMAND)


class FakeWorkerBackend(FakeBackend):
    """Trains as the fake of the loop's own process, unless it is to fail."""

    def train(self, settings: Settings, **arguments: Any) -> Run:
        seed, rate = settings.training.get("seed"), settings.get("training.learning_rate")
        self.progress.working("training")
        if begun := os.environ.get("FAKE_BEGUN"):
            making = Path(begun, f".{self.config.name}")
            making.write_text(str(os.getpid()), encoding="utf-8")
            making.replace(Path(begun, self.config.name))
        if wanted := os.environ.get(f"FAKE_WAIT_{self.config.name}"):
            wait_for_files(wanted)
        if folder := os.environ.get("FAKE_KILL"):
            for file in (Path(folder) / str(seed), Path(folder) / f"{rate:g}"):
                if file.exists():
                    _fail(file)
        return super().train(settings, **arguments)


def wait_for_files(pattern: str) -> None:
    """Wait until there is a path of this pattern."""
    until = time.monotonic() + LONG_S
    while not glob(pattern):  # noqa: PTH207 - of a whole pattern
        assert time.monotonic() < until, f"{pattern} was not made in {LONG_S} s"
        time.sleep(0.02)


def _fail(file: Path) -> None:
    how = file.read_text(encoding="utf-8")
    if how.startswith("hang "):
        if not str(cache_folder()).startswith(how.removeprefix("hang ")):
            return
        how = "hang"
    if how == "memory":
        raise TrainingError("out of memory with a batch of one example")
    if how == "hang":
        (file.parent / f"{os.getpid()}.hangs").touch()
        time.sleep(LONG_S)
    if not how:
        file.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run in the worker process."""
    sys.exit(serve(FakeWorkerBackend))
