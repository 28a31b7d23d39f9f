"""A disk that refuses a write of a run: what was trained is not lost, nothing is half there."""

from __future__ import annotations

import errno
import shutil
from itertools import count
from pathlib import Path

import pytest

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.log import ImprovementLog
from tests.loop.again_cases import Adapters, run
from tests.torture.kills import Write, refusing

LOOP = {"iterations": 1, "seeds": 2}

ERRORS = {
    "full": errno.ENOSPC,
    "read-only": errno.EROFS,
    "broken": errno.EIO,
    "denied": errno.EACCES,
}


def log_of(folder: Path) -> ImprovementLog:
    return ImprovementLog(folder / "improvement_log/s")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("lasts", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ERRORS)
def test_each_write_of_the_log_refused(tmp_path: Path, error: str, lasts: bool) -> None:
    """The run says so in one line; the next one trains nothing that had been trained."""
    for n in count(1):
        work = tmp_path / f"{n}"
        backend, raised = Adapters(), None
        with refusing(n, ERRORS[error], work, lasts=lasts) as disk:
            try:
                run(work, backend, loop=LOOP, scoring="contains")
            except FtloopError as told:
                raised = told
        if not disk.broken:
            break
        trained = backend.asked.count("train")
        again = Adapters()
        run(work, again, loop=LOOP, scoring="contains")
        assert (2, disk.broken[0]) == (trained + again.asked.count("train"), disk.broken[0])
        assert raised is None or ("\n" not in raised.message and raised.cure)
        assert 1 == len(log_of(work).view.seed_runs())
        hidden = [p.name for p in work.rglob(".*") if p.is_file()]
        assert [] == hidden or error != "full", disk.broken[0]
        shutil.rmtree(work)
    assert n > 20


def test_the_log_is_full_after_the_training(tmp_path: Path) -> None:
    """The record is in the cache, and the next run writes it to the log; the error says so."""
    with (
        refusing(1, errno.ENOSPC, tmp_path / "improvement_log", lasts=True),
        pytest.raises(FtloopError, match="can't be written: No space left on device") as told,
    ):
        run(tmp_path, Adapters(), scoring="contains")
    assert "What was trained is kept in the cache: the next run writes it here" in told.value.cure
    assert () == log_of(tmp_path).read()
    backend = Adapters()
    result = run(tmp_path, backend, scoring="contains")
    assert ["measure"] == backend.asked
    assert [result.best.id] == [i.id for i in log_of(tmp_path).read()]
    assert result.adapter is not None


def test_log_and_cache_are_on_one_full_disk(tmp_path: Path) -> None:
    """The adapter, which is large and can be trained again, makes room for the record."""
    adapters = tmp_path / "cache/adapters"
    records = tmp_path / "improvement_log", tmp_path / "cache/aside"
    with refusing(1, errno.ENOSPC, *records, lasts=True) as disk:
        refuse = disk.break_

        def refuse_until_there_is_room(write: Write) -> None:
            if any(adapters.glob("*/adapter_config.json")):
                refuse(write)

        disk.break_ = refuse_until_there_is_room
        run(tmp_path, Adapters(), scoring="contains")
    assert [] == list(adapters.glob("*/*"))
    (record,) = log_of(tmp_path).read()
    assert (0.5, "contains") == (record.metrics["pass_rate"], record.scoring["scorer"])


def test_a_retraining_that_the_log_refused(tmp_path: Path) -> None:
    """The next run has the new training, whose adapter is the one in the cache."""
    old = run(tmp_path, Adapters(), scoring="contains").best
    backend = Adapters("gpu")
    with refusing(1, errno.ENOSPC, tmp_path / "improvement_log", lasts=True) as disk:
        refuse = disk.break_
        disk.break_ = lambda write: refuse(write) if backend.asked else None
        with pytest.raises(FtloopError, match="can't be written"):
            run(tmp_path, backend, scoring="contains", options={"retrain": True})
    assert ["train"] == backend.asked
    assert [old.tag] == [i.tag for i in log_of(tmp_path).read()]
    result = run(tmp_path, Adapters("gpu"), scoring="contains")
    assert "gpu" == result.best.environment["device"]
    assert result.adapter is not None
