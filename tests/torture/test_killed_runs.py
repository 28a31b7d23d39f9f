"""A loop that is killed at any of its writes: nothing counts twice, nothing is left, it goes on."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.files import RECORD_NAME
from tests.fake_backend import FakeBackend
from tests.loop.again_cases import Adapters, run
from tests.loop.loop_cases import config
from tests.loop.loop_cases import run as run_fake
from tests.torture.kills import killed_at

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")

LOOP = {"iterations": 1, "seeds": 2}


def log_of(folder: Path) -> ImprovementLog:
    return ImprovementLog(folder / "improvement_log/s")


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def left_over(folder: Path) -> list[str]:
    """Hidden files, and tables without their record."""
    names = files(folder)
    tables = {name: name.partition(".")[0] for name in names if name.endswith(".csv")}
    lone = [name for name, record in tables.items() if f"{record}.yaml" not in names]
    return [name for name in names if Path(name).name.startswith(".")] + lone


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_retraining_killed_at_each_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Each iteration is as before or as trained again, for every reader; the next run tidies."""
    start, work = tmp_path / "start", tmp_path / "work"
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    before, _ = run_fake(config(work, iterations=number))
    old = {(i.id, i.tag) for i in before.chain}
    shutil.copytree(work, start)
    gpu = {"device": "gpu"}
    done, _ = run_fake(config(work, iterations=number), FakeBackend(device=gpu), retrain=True)
    new = {(i.id, i.tag) for i in done.chain}
    assert not old & new
    seen = set()
    for n in count(1):
        shutil.rmtree(work)
        shutil.copytree(start, work)

        def retrain() -> None:
            run_fake(config(work, iterations=number), FakeBackend(device=gpu), retrain=True)

        if (write := killed_at(n, retrain, work)) is None:
            break
        found = {(i.id, i.tag) for i in log_of(work).read()}
        names = [name for name in log_of(work).view.names if RECORD_NAME.fullmatch(name)]
        assert (number, number) == (len(found), len(names)), write
        assert found <= old | new, write
        assert {one for one, _ in found} == {one for one, _ in old}, write
        seen.add(frozenset(found))
        result, backend = run_fake(config(work, iterations=number))
        assert ([], []) == (backend.runs, left_over(work)), write
        assert found == {(i.id, i.tag) for i in result.chain}
        assert number == sum(bool(RECORD_NAME.fullmatch(name[18:])) for name in files(work))
    assert number + 1 == len(seen)  # old, one after the other, new


BEFORE: dict[str, Callable[[Path], Any]] = {
    "run": lambda folder: None,
    "retrain": lambda folder: run(folder, Adapters(), loop=LOOP, scoring="contains"),
    "another scorer": lambda folder: run(folder, Adapters(), loop=LOOP),
}


@pytest.mark.slow
@pytest.mark.parametrize("doing", BEFORE)
def test_killed_at_each_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doing: str) -> None:
    """At no moment two records of an iteration count, and the next run leaves one, and no rest."""
    start, work = tmp_path / "start", tmp_path / "work"
    start.mkdir()
    monkeypatch.setenv("FTLOOP_CACHE", str(work / "cache"))
    options = {"retrain": doing == "retrain"}

    def do() -> None:
        run(work, Adapters(), loop=LOOP, scoring="contains", options=options)

    work.mkdir()
    BEFORE[doing](work)
    work.rename(start)
    killed = Counter[str]()
    for n in count(1):
        shutil.copytree(start, work)
        logged = {i.id for i in log_of(work).read()}
        write = killed_at(n, do, work / "improvement_log", work / "cache/adapters")
        if write is None:
            break
        killed[write.what] += 1
        found = log_of(work).view
        ids = [name[4:12] for name in found.names if name.endswith(".yaml") and "/" not in name]
        assert len(ids) == len(set(ids)), write
        assert logged <= {i.id for i in found.iterations()}, write
        backend = Adapters()
        best = run(work, backend, loop=LOOP, scoring="contains").best
        assert "contains" == best.scoring["scorer"]
        assert ([], 1) == (left_over(work), len(log_of(work).view.seed_runs()) // _versions(doing))
        # What had a record is not trained again.
        assert len(backend.asked) <= 2
        shutil.rmtree(work)
    assert n > 20
    assert {"create", "write", "sync", "rename"} <= set(killed)


def _versions(doing: str) -> int:
    """Of how many scorings the log has its runs."""
    return 2 if doing == "another scorer" else 1
