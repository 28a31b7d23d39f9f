"""An interrupted run goes on from its last evaluation point, and ends the same to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from datasets import Dataset

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.cache import sweep_cache
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import EvalPoint
from pytest_ftloop.core.sums import write_sums
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.train.early_end import Pace
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.unfinished import Point, Unfinished
from tests.small_base import rows, settings

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Run
    from pytest_ftloop.train.base import Base

pytestmark = pytest.mark.usefixtures("quietly")


class Interrupting(Silent):
    """Raises KeyboardInterrupt after a step; keeps the steps that were made."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.steps = at, list[int]()

    def step(self, step: int, steps: int, loss: float) -> None:
        self.steps.append(step)
        if step == self.at:
            raise KeyboardInterrupt


@pytest.fixture
def kept(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, set once the base is loaded."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(run: Run) -> Run:
    """A run without its cost."""
    return replace(run, cost=replace(run.cost, seconds=0, resumed_at=0))


@pytest.mark.parametrize(
    ("changed", "scoring", "metric"),
    [
        ({}, Scoring(), "eval_loss"),
        pytest.param(
            {"gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "seed": 3},
            Scoring("loss", threshold=1.0),
            "pass_rate",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "accumulation"],
)
def test_goes_on(
    base: Base, task: Any, kept: Path, changed: dict[str, Any], scoring: Scoring, metric: str
) -> None:
    """Only the steps after the point are made; losses, figures and adapter are as of one run."""
    stated = settings(**changed)

    def run(watching: Interrupting, name: str = "weights") -> Run:
        folder = kept / "adapters" / name
        return run_lora(base, task(scoring), stated, watching, adapter=folder, metric=metric)

    whole, last = run(Interrupting(), "whole"), 6 if changed else 12
    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(at=last - 1))
    (point,) = (kept / "unfinished").iterdir()
    assert point.is_dir()
    watching = Interrupting()
    resumed = run(watching)
    assert resumed.cost.resumed_at == watching.steps[0] - 1 > 0
    assert watching.steps[-1] == last
    assert same(whole) == same(resumed)
    assert [*(kept / "unfinished").iterdir()] == []


def test_point_after_the_end_of_another_pace(base: Base, task: Any, kept: Path) -> None:
    """A run whose pace would have ended it before the point begins again, and ends there."""
    best = tuple(EvalPoint(step, step / 12, 0.01, 1.0) for step in (1, 12))
    pace = Pace(best, 12, -1e9)

    def run(watching: Interrupting, name: str, pace: Pace | None) -> Run:
        folder = kept / "adapters" / name
        return run_lora(base, task(), settings(), watching, adapter=folder, pace=pace)

    whole = run(Interrupting(), "whole", pace)
    assert 0 < len(whole.training.steps) < 9
    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(at=11), "weights", None)
    (point,) = (kept / "unfinished").iterdir()
    assert whole.training.evals[-1].step < json.loads((point / "point.json").read_text())["step"]
    assert same(whole) == same(run(watching := Interrupting(), "weights", pace))
    assert 1 == watching.steps[0]
    assert [*(kept / "unfinished").iterdir()] == []


@pytest.mark.slow
def test_is_interrupted_twice(base: Base, task: Any, kept: Path) -> None:
    """Each process adds to the cost; what is damaged or of other rows is not gone on from."""

    def run(watching: Interrupting, **changed: Any) -> Run:
        stated = settings(**changed)
        folder = kept / "adapters" / "weights"
        return run_lora(base, task(), stated, watching, adapter=folder, base_eval_loss=5.0)

    for at, first in ((5, 1), (8, 4)):
        watching = Interrupting(at)
        with pytest.raises(KeyboardInterrupt):
            run(watching)
        assert watching.steps[0] == first
    with pytest.raises(KeyboardInterrupt):
        run(other := Interrupting(1), max_steps=5)
    assert other.steps[0] == 1
    (point,) = (kept / "unfinished").iterdir()
    (point / "checkpoint" / "optimizer.pt").write_bytes(b"short")
    run(again := Interrupting())
    assert again.steps[0] == 1
    assert [*(kept / "unfinished").iterdir()] == []


def test_a_point_that_was_being_replaced(kept: Path) -> None:
    """A process that was killed between two points has the one before it."""
    (kept / "unfinished" / ".abc.999999999.1.old").mkdir(parents=True)
    (kept / "unfinished" / ".abc.999999999.1.tmp").mkdir()
    sweep_cache()
    assert [kept / "unfinished" / "abc"] == [*(kept / "unfinished").iterdir()]


def test_a_point_in_use_is_not_the_oldest(tmp_path: Path) -> None:
    """What one process goes on from is not removed because another one keeps its own."""
    point = Point(2, 3, 9, 1.0, 9, (), 0, (), {}, (), None)
    for number in range(9):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "point.json").write_text(json.dumps(asdict(point)))
        write_sums(folder)
        os.utime(folder, (number, number))
    assert point == Unfinished(tmp_path / "0", 0.0, keeps_base=True).point()
    Unfinished(tmp_path / "8", 0.0, keeps_base=True)._remove_oldest()
    assert {*"02345678"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["optimizer.pt", "point.json"])
def test_a_damaged_point_is_not_gone_on_from(tmp_path: Path, name: str) -> None:
    """One flipped bit of what a run would go on from is as if there were no point."""
    point = Point(2, 3, 9, 1.0, 9, (), 0, (), {}, (), None)
    (tmp_path / "point.json").write_text(json.dumps(asdict(point)))
    (tmp_path / "optimizer.pt").write_bytes(bytes(100))
    write_sums(tmp_path)
    place = Unfinished(tmp_path, 0.0, keeps_base=True)
    assert point == place.point()
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole.replace(b"9" if name == "point.json" else b"\0", b"1", 1))
    assert place.point() is None


def test_the_oldest_points_are_removed(tmp_path: Path) -> None:
    """Eight stay; what another process is writing is not among those that are counted."""
    for age in range(10):
        (tmp_path / str(age)).mkdir()
        os.utime(tmp_path / str(age), (10 - age, 10 - age))
    writing = tmp_path / ".x.1.1.tmp"
    writing.mkdir()
    os.utime(writing, (0, 0))
    Unfinished(tmp_path / "0", 0.0, keeps_base=True)._remove_oldest()
    assert {writing.name, *map(str, range(8))} == {path.name for path in tmp_path.iterdir()}


LOOP = """\
model: tiny
data: {train: train.jsonl, eval: eval.jsonl}
lora: {r: 4, lora_alpha: 8, lora_dropout: 0.1}
training: {learning_rate: 5.0e-3, max_steps: 12, per_device_train_batch_size: 8}
loop: {iterations: 1}
"""
KILLED = """\
import os, signal, sys
from pathlib import Path
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.loop.loop import Loop

class Killing(Silent):
    def step(self, step, steps, loss):
        if step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

Loop(read_loop_file(Path(sys.argv[1])), progress=Killing()).run()
"""


@pytest.mark.slow
def test_a_loop_that_was_killed(tmp_path: Path, kept: Path) -> None:
    """After SIGKILL the next run makes the record of an unkilled one, but for its cost."""

    def file(name: str) -> Path:
        (tmp_path / name).mkdir()
        for role, seed, count in (("train", 1, 48), ("eval", 2, 20)):
            Dataset.from_list(rows(count, seed)).to_json(tmp_path / name / f"{role}.jsonl")
        (tmp_path / name / "s.ftloop.yaml").write_text(LOOP)
        return tmp_path / name / "s.ftloop.yaml"

    killed, whole = file("killed"), file("whole")
    done = subprocess.run([sys.executable, "-c", KILLED, str(killed)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/improvement_log/s").exists()
    first, second = (Loop(read_loop_file(path)).run().best for path in (killed, whole))
    assert (first.cost.resumed_at, second.cost.resumed_at) == (6, 0)
    assert (first.cost.steps, first.cost.tokens) == (second.cost.steps, second.cost.tokens)
    assert replace(first, cost=second.cost) == second
    assert [*first.examples] == [*second.examples]
    assert [*(kept / "unfinished").iterdir()] == []
