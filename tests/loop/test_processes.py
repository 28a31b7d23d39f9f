"""The executor of this machine notices how each training ends, however its worker ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.processes import Processes

FAILS = (sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(3)")
WAITS = (sys.executable, "-c", "import sys; sys.stdin.read()")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "spec.json"


@pytest.fixture
def waiting(spec: Path) -> Iterator[Processes]:
    """An executor of one worker, which never trains what it is given."""
    made = Processes(1, WAITS)
    yield made
    made.close()


def test_an_end_between_two_looks(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends while the executor looks at it is noticed at the next look."""
    executor = Processes(1, FAILS)
    try:
        training = executor.submit(spec)
        process: subprocess.Popen[str] = executor._workers[0].process
        assert 3 == process.wait()
        seen = iter([None])
        monkeypatch.setattr(process, "poll", lambda: next(seen, 3))
        assert training.ended() is None
        assert Ended("ended with exit code 3") == training.ended()
    finally:
        executor.close()


def test_what_is_cancelled_has_ended(waiting: Processes, spec: Path) -> None:
    """Nobody waits for a training that was cancelled, at a worker or in the queue."""
    at_work, queued = waiting.submit(spec), waiting.submit(spec)
    assert [None, None] == [at_work.ended(), queued.ended()]
    queued.cancel()
    at_work.cancel()
    assert [Ended("was cancelled")] * 2 == [at_work.ended(), queued.ended()]
