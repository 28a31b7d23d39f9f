"""Several loop files of one command: idle workers begin the trainings of those that follow."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.loop.loop import Loop
from tests.fake_worker import executor
from tests.loops import BETTER, SAME

if TYPE_CHECKING:
    from tests.loops import Loops

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def begun(loops: Loops, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a file for each loop of which a worker has begun a training."""
    folder = tmp_path / "begun"
    folder.mkdir()
    monkeypatch.setenv("FAKE_BEGUN", str(folder))
    monkeypatch.setenv("FAKE_NOISE", "0.02")
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pytest_ftloop.loop.loop.Loop", partial(Loop, executor=executor))
    for name, rate in (("x", SAME), ("y", BETTER)):
        loops.write(name, rate=rate, gates='{eval_loss: "<= 1.5"}')
    return folder


def taken(loops: Loops) -> dict[str, bytes]:
    """The logs, which are not there any more."""
    logs = {name: text for name, text in loops.files().items() if "improvement_log" in name}
    for name in logs:
        (loops.root / name).unlink()
    loops.trained_file.unlink()
    return logs


def test_run(
    loops: Loops,
    begun: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each trains until the other has begun; logs, output and exit code are those in turn."""
    assert 1 == main(["run", "-q", "x.ftloop.yaml", "y.ftloop.yaml"])
    wanted, out = taken(loops), capsys.readouterr().out
    monkeypatch.setenv("FAKE_WAIT_x", str(begun / "y"))
    monkeypatch.setenv("FAKE_WAIT_y", str(begun / "x"))
    assert 1 == main(["run", "-q", "x.ftloop.yaml", "y.ftloop.yaml", "--parallel", "2"])
    assert ["x", "y"] == sorted(file.name for file in begun.iterdir())
    assert 2 == len(loops.trained())
    assert out == capsys.readouterr().out
    assert wanted == taken(loops)


def test_calibrate(loops: Loops, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the only seed of a loop is trained, the first of the next one is begun beside it."""
    files = ["x.ftloop.yaml", "y.ftloop.yaml"]
    main(["run", "-q", *files])
    iterations = loops.files()
    assert 0 == main(["calibrate", "--seeds", "2", *files])
    wanted = taken(loops)
    for name, text in iterations.items():
        if name in wanted:
            (loops.root / name).write_bytes(text)
    monkeypatch.setenv("FAKE_WAIT_x", str(begun / "y"))
    assert 0 == main(["calibrate", "--seeds", "2", *files, "--parallel", "2"])
    assert ["x", "y"] == sorted(file.name for file in begun.iterdir())
    assert ["x 0.001 seed 43", "y 0.0016 seed 43"] == sorted(loops.trained())
    assert wanted == taken(loops)
