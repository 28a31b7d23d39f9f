"""Trainings on a Ray cluster of two nodes on this machine, each with one CPU and its own cache."""

from __future__ import annotations

import _thread
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import Location
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.loop import on_ray, ray_connection
from pytest_ftloop.loop.executor import Ended, EngineError
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.seeds import with_seed
from pytest_ftloop.loop.spec import Spec
from tests.fake_elsewhere import FakeElsewhere, ray_work
from tests.fake_worker import ROOT
from tests.loops import EVAL, TRAIN
from tests.processes import LONG_S, is_running

WHERE = Location("x.ftloop.yaml", 7)


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray it is one line that names the extra, and the line of the loop file."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError) as raised:
        on_ray.OnRay({}, 1, WHERE)
    assert (
        "x.ftloop.yaml:7: loop.run_on: ray needs the extra ray: ray is not installed\n"
        '  pip install "pytest-ftloop[train,ray]"' == str(raised.value)
    )


@pytest.mark.parametrize("stated", [-1, 1.5, True, "3"])
def test_retries(stated: Any) -> None:
    """`max_retries` is a number of times; it is looked at before Ray is started."""
    with pytest.raises(EngineError, match=r"x.ftloop.yaml:7: .*max_retries: wanted a whole numb"):
        on_ray.OnRay({"max_retries": stated}, 1, WHERE)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_unreachable(form: str) -> None:
    """An address where nobody listens is one line, at once; others are left to Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = form.format(f"127.0.0.1:{server.getsockname()[1]}")
        ray_connection.check_reachable(address, WHERE)
    with pytest.raises(EngineError, match=rf"x.ftloop.yaml:7: .*RAY_ADDRESS={address}: .*refused"):
        ray_connection.check_reachable(address, WHERE)
    ray_connection.check_reachable("auto", WHERE)


# with Ray


@dataclass
class Nodes:
    """The cluster, and a folder for each node and for what the fakes note."""

    cluster: Any
    folder: Path
    second: Any = None

    @property
    def kill(self) -> Path:
        """A file in it, named after a seed or rate, says how that training is to fail."""
        return self.folder / "kill"

    def add(self) -> None:
        """Add the second node."""
        cache = {"FTLOOP_CACHE": str(self.folder / "second")}
        self.second = self.cluster.add_node(num_cpus=1, env_vars=cache)

    def used(self, name: str) -> bool:
        """Whether files were sent to a node."""
        return any((self.folder / name).glob("shipped/*/files"))


@pytest.fixture
def nodes(cluster: Nodes) -> Iterator[Nodes]:
    """The cluster, whole and with nothing to fail."""
    yield cluster
    for file in cluster.kill.iterdir():
        file.unlink()
    if cluster.second is None:
        cluster.add()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """Two nodes. They start with the environment of this process, which fakes read there."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp(prefix="ftl"))  # a socket's path is at most 107 bytes
    variables = {
        "RAY_TMPDIR": str(folder / "ray"),
        "RAY_worker_niceness": "0",  # else a busy machine starves the workers
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "FAKE_TRAINED": str(folder / "trained"),
        "FAKE_KILL": str(folder / "kill"),
        "FAKE_NOISE": "0.02",
        "FAKE_BASE": "1",
        **ray_connection.QUIET,
    }
    (folder / "kill").mkdir()
    (folder / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        for name in ("CI", "FAKE_STEP_S", "FAKE_HANG"):
            patch.delenv(name, raising=False)
        cluster = Cluster()
        first = {"FTLOOP_CACHE": str(folder / "first")}
        cluster.add_node(num_cpus=1, env_vars=first, include_dashboard=False)
        made = Nodes(cluster, folder)
        made.add()
        patch.setenv("RAY_ADDRESS", cluster.address)
        patch.setattr(on_ray, "work", ray_work)
        try:
            yield made
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loop]:
    """Makes the loop of a project; with `here` it trains in this process."""
    for role, rows in (("train", TRAIN), ("eval", EVAL)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{role}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "x.ftloop.yaml").write_text(
        "data: {train: train.jsonl, eval: eval.jsonl}\n"
        "lora: {r: 8, lora_alpha: 16}\n"
        "training: {learning_rate: 2.0e-4, num_train_epochs: 2}\n"
        "loop: {iterations: 1, run_on: {ray: {num_cpus: 1}}}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))

    def make(parallel: int | str = 2, *, here: bool = False) -> Loop:
        config = read_loop_file(tmp_path / "x.ftloop.yaml")
        if here:
            config = replace(config, loop=config.loop.model_copy(update={"run_on": None}))
        options = Options(parallel=1 if here else parallel)  # type: ignore[arg-type]
        return Loop(config, options, backend=FakeElsewhere)

    return make


def log(folder: Path) -> dict[str, bytes]:
    """The log's files, byte for byte."""
    root = folder / "improvement_log"
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def in_turn(loop: Callable[..., Loop], folder: Path, seeds: int) -> dict[str, bytes]:
    """The log that is written here; it is not there any more."""
    loop(here=True).calibrate(seeds)
    wanted = log(folder)
    shutil.rmtree(folder / "improvement_log")
    shutil.rmtree(folder / "cache")
    return wanted


@pytest.mark.slow
def test_log(
    nodes: Nodes, loop: Callable[..., Loop], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two nodes train the seeds; the log is that of a run in turn, and Ray says nothing."""
    wanted = in_turn(loop, tmp_path, 5)
    capfd.readouterr()
    loop("auto").calibrate(5)
    assert wanted == log(tmp_path)
    assert nodes.used("first")
    assert nodes.used("second")
    assert ("", "") == capfd.readouterr()
    assert [] == list((tmp_path / "cache" / "workers").iterdir())
    assert 5 == len(list((tmp_path / "cache" / "adapters").glob("*/adapter_config.json")))


@pytest.mark.slow
def test_options_that_ray_refuses(nodes: Nodes) -> None:
    """They are named, with the line; an executor that was not made keeps no connection."""
    with pytest.raises(EngineError, match=r"x.ftloop.yaml:7: .*Ray refuses the opt.*num_cpu"):
        on_ray.OnRay({"num_cpu": 1}, 1, WHERE)
    assert [] == ray_connection._connections


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 2), ({"num_cpus": 2}, 1), ({"num_cpus": 0.5}, 4), ({"num_gpus": 1}, 1)],
)
def test_room(nodes: Nodes, options: dict[str, Any], expected: int) -> None:
    """`parallel: auto` is what the cluster has room for, and at least one."""
    assert expected == on_ray.room(options, WHERE)


def spec_of(loop: Loop, seed: int = 42) -> Path:
    """The file of a spec of the loop's settings, with this seed."""
    config, inputs = loop.config, Inputs.of(loop.config, None)
    settings = with_seed(config.settings, seed)
    fingerprint = inputs.fingerprint(config, settings)
    return Spec(str(config.file), "log", fingerprint, settings, "n", "", "eval_loss").write()


@pytest.mark.slow
def test_no_machine(nodes: Nodes, loop: Callable[..., Loop]) -> None:
    """What waits for a machine that is not there says so; it is no hang without a word."""
    executor = on_ray.OnRay({"num_gpus": 2}, 1, WHERE)
    try:
        task = executor.submit(spec_of(loop()))
        assert task.ended() is None
        assert "waiting: no machine of the cluster has CPU 1, GPU 2" == task.waits
    finally:
        executor.close()


@pytest.mark.slow
def test_cancelled(nodes: Nodes, loop: Callable[..., Loop]) -> None:
    """A training that is cancelled ends there, and the executor goes on with the next."""
    (nodes.kill / "44").write_text("hang", encoding="utf-8")
    executor = on_ray.OnRay({}, 1, WHERE)
    try:
        task, after = executor.submit(spec_of(loop(), 44)), executor.submit(spec_of(loop(), 45))
        assert hangs_in(nodes)
        task.cancel()
        assert Ended("was cancelled") == task.ended()
        (hanging,) = nodes.kill.glob("*.hangs")
        wait_until(lambda: not is_running(int(hanging.stem)))
        wait_until(lambda: after.ended() is not None)
        assert Ended() == after.how
    finally:
        executor.close()


def test_what_a_task_raised() -> None:
    """It is the cause in one line; a module that a node lacks is named with what to do."""

    class RaisedError(Exception):
        cause = ModuleNotFoundError("No module named 'pytest_ftloop'")

    assert on_ray._cause(RaisedError()) == (
        "a node lacks pytest-ftloop: install the same packages on each"
    )
    assert "ValueError: no" == on_ray._cause(ValueError("no\nmore"))


@pytest.mark.slow
def test_interrupted(nodes: Nodes, loop: Callable[..., Loop], tmp_path: Path) -> None:
    """Ctrl-C ends the tasks: no worker is left, and the next run trains what is missing.

    Until then the screen has what the workers do.
    """
    wanted = in_turn(loop, tmp_path, 3)
    (nodes.kill / "44").write_text("hang", encoding="utf-8")
    shown = Shown()
    begun = loop()
    begun.progress = shown

    def interrupt() -> None:
        if hangs_in(nodes) and wait_until(lambda: ("seed 44", "training") in shown.at_work):
            _thread.interrupt_main()

    watch = threading.Thread(target=interrupt)
    watch.start()
    with pytest.raises(KeyboardInterrupt):
        begun.calibrate(3)
    watch.join()
    (hanging,) = nodes.kill.glob("*.hangs")
    wait_until(lambda: not is_running(int(hanging.stem)))
    (nodes.kill / "44").unlink()
    loop().calibrate(3)
    assert wanted == log(tmp_path)


@pytest.mark.slow
def test_a_node_dies(
    nodes: Nodes, loop: Callable[..., Loop], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it trained is trained on the other node; the result is complete; Ray says nothing."""
    wanted = in_turn(loop, tmp_path, 5)
    capfd.readouterr()
    for seed in range(43, 47):
        there = f"hang {nodes.folder / 'second'}"
        (nodes.kill / str(seed)).write_text(there, encoding="utf-8")

    def remove() -> None:
        if hangs_in(nodes):
            nodes.cluster.remove_node(nodes.second, allow_graceful=False)
            nodes.second = None

    watch = threading.Thread(target=remove)
    watch.start()
    loop().calibrate(5)
    watch.join()
    assert wanted == log(tmp_path)
    assert 1 == len(list(nodes.kill.glob("*.hangs")))
    assert ("", "") == capfd.readouterr()


class Shown(Silent):
    """A screen that keeps what the workers do."""

    def __init__(self) -> None:
        self.at_work: list[tuple[str, str]] = []

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        self.at_work.extend(at_work)


def hangs_in(nodes: Nodes) -> bool:
    """Wait until a worker hangs."""
    return wait_until(lambda: any(nodes.kill.glob("*.hangs")))


def wait_until(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)
    return True
