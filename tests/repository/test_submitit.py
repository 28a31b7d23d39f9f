"""The example of a user's engine: the trainings of a loop are jobs of submitit."""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_elsewhere import FakeElsewhere
from tests.fake_worker import ROOT
from tests.loops import EVAL, TRAIN
from tests.processes import LONG_S, is_running

FILE = ROOT / "examples" / "submitit" / "conftest.py"
FAKE = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.fake_elsewhere import one; "
    "one(sys.argv[1])"
)


@pytest.fixture
def example() -> dict[str, Any]:
    """The names in the example's conftest.py."""
    pytest.importorskip("submitit")
    return runpy.run_path(str(FILE))


@pytest.fixture
def loop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A loop file of three iterations and two seeds, as jobs on this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    for role, rows in (("train", TRAIN), ("eval", EVAL)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{role}.jsonl").write_text(text, encoding="utf-8")
    file = tmp_path / "x.ftloop.yaml"
    file.write_text(
        "data: {train: train.jsonl, eval: eval.jsonl}\n"
        "training: {learning_rate: 2.0e-4, max_steps: 2, use_cpu: true}\n"
        "loop:\n"
        "  policy: [{training.learning_rate: 4.0e-4}, {training.learning_rate: 8.0e-4}]\n"
        "  parallel: 2\n"
        "  seeds: 2\n"
        "  run_on: {submitit: {cluster: local, timeout_min: 30}}\n",
        encoding="utf-8",
    )
    return file


def looped(file: Path, example: dict[str, Any], **options: Any) -> Loop:
    return Loop(
        read_loop_file(file),
        Options(**options),
        backend=FakeElsewhere,
        executor_hook=example["pytest_ftloop_executor"],
    )


def log(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted((folder / "improvement_log").rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def as_fakes(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let its jobs run fake workers."""
    names = example["Jobs"].submit.__globals__
    stated = names["worker_command"]

    def command(spec: Path) -> list[str]:
        *env, _, _, _, _, path = stated(spec)
        return [*env, sys.executable, "-c", FAKE, path]

    monkeypatch.setitem(names, "worker_command", command)


def test_jobs(example: dict[str, Any], loop_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is that of a run in turn."""
    as_fakes(example, monkeypatch)
    stated = loop_file.read_text(encoding="utf-8")
    loop_file.write_text(stated.replace("  run_on", "  # run_on"), encoding="utf-8")
    looped(loop_file, example, parallel=1).run()
    wanted = log(loop_file.parent)
    for name in wanted:
        (loop_file.parent / name).unlink()
    loop_file.write_text(stated, encoding="utf-8")
    looped(loop_file, example).run()
    assert wanted == log(loop_file.parent)
    assert 8 == len(wanted)


def test_a_mistake(
    example: dict[str, Any],
    loop_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An option that submitit does not know is one line; `ftloop run` says that it needs pytest."""
    as_fakes(example, monkeypatch)
    stated = loop_file.read_text(encoding="utf-8")
    loop_file.write_text(stated.replace("timeout_min", "timeout_mins"), encoding="utf-8")
    with pytest.raises(Exception, match=r"x.ftloop.yaml:7: .*'submitit' raised .*timeout_mins"):
        looped(loop_file, example).run()
    assert 2 == main(["run", str(loop_file)])
    assert "the engine 'submitit' is a plugin's" in capsys.readouterr().err


def test_close(example: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that runs is ended with its process, and one that waits never starts."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    note = tmp_path / "pid"
    code = (
        f"import os, time; open({str(note)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    )
    names = example["Jobs"].submit.__globals__
    monkeypatch.setitem(names, "worker_command", lambda spec: [sys.executable, "-c", code])
    jobs = example["Jobs"](cluster="local", timeout_min=30)
    running, waiting = jobs.submit(tmp_path), jobs.submit(tmp_path)
    until = time.monotonic() + LONG_S
    while not (note.exists() and note.read_text()):
        assert running.ended() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    jobs.close()
    assert waiting.handle is None
    pid = int(note.read_text())
    while is_running(pid):
        assert time.monotonic() < until
        time.sleep(0.1)
