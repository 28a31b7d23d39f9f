"""What `loop.run_on` names: a mistake in it is one line; an up-to-date loop asks for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.loop.executor import Ended, EngineError, worker_command
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.worker import Worker
from tests.loops import EVAL, TRAIN
from tests.plugin.fake_runner import FakeBackend

LIST = "policy: [{training.learning_rate: 4.0e-4}, {training.learning_rate: 8.0e-4}]"


@dataclass
class Inline:
    """An executor whose workers work in this process, at once."""

    closed: bool = False
    specs: list[Path] = field(default_factory=list)

    def submit(self, spec: Path) -> Inline:
        self.specs.append(spec)
        Worker(FakeBackend).work(spec)
        return self

    def ended(self) -> Ended:
        return Ended()

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Broken(Inline):
    """An executor that raises."""

    def submit(self, spec: Path) -> Inline:
        raise RuntimeError("no quota")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a loop file with this engine, and its data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    for role, rows in (("train", TRAIN), ("eval", EVAL)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{role}.jsonl").write_text(text, encoding="utf-8")

    def written(run_on: str, more: str = "iterations: 1") -> Path:
        file = tmp_path / "x.ftloop.yaml"
        file.write_text(
            "data: {train: train.jsonl, eval: eval.jsonl}\n"
            "training: {learning_rate: 2.0e-4, num_train_epochs: 2}\n"
            f"loop:\n  {more}\n" + (f"  run_on: {run_on}\n" if run_on else ""),
            encoding="utf-8",
        )
        return file

    return written


def looped(file: Path, hook: Any = None) -> Loop:
    return Loop(read_loop_file(file), backend=FakeBackend, executor_hook=hook)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("3", "wanted ray, the name of a plugin's engine, or module:function, or one of these"),
        ("{ray: {}, slurm: {}}", "wanted ray, the name of a plugin's engine, or module:function"),
        ("two words", "wanted ray, .* or module:function, found 'two words'"),
        ("{ray: 4}", r"loop.run_on.ray: wanted options by name, such as {num_cpus: 1.*found 4"),
    ],
)
def test_what_is_no_engine(write: Callable[..., Path], stated: str, message: str) -> None:
    """It is a mistake in the loop file, with its line."""
    with pytest.raises(ConfigError, match=rf"x.ftloop.yaml:5: .*{message}"):
        read_loop_file(write(stated))


@pytest.mark.parametrize(
    ("run_on", "hook", "message"),
    [
        ("slurm", None, "the engine 'slurm' is a plugin's, and only pytest loads plugins"),
        ("slurm", lambda *_: None, "no plugin has the engine 'slurm'"),
        ("slurm", lambda *_: object(), "found object without submit and close"),
        ("slurm", lambda *_: 1 / 0, "'slurm' raised ZeroDivisionError: division by zero"),
        ("slurm", lambda *_: Broken(), "'slurm' raised RuntimeError: no quota"),
        ("none:f", None, "there is no module 'none'"),
        ("engine:absent", None, "engine has no function 'absent'"),
        ("engine:takes_one", None, r"can't be called as function\(options, count\)"),
    ],
)
def test_what_can_not_be_used(
    write: Callable[..., Path], run_on: str, hook: Any, message: str
) -> None:
    """It is one line with the place, before anything is trained or logged."""
    file = write(run_on)
    (file.parent / "engine.py").write_text("def takes_one(options): ...\n", encoding="utf-8")
    with pytest.raises(EngineError, match=rf"x.ftloop.yaml:5: .*{message}"):
        looped(file, hook).run()
    assert not list(file.parent.glob("improvement_log/**/*.yaml"))


def test_a_later_mistake_takes_no_decision_back(write: Callable[..., Path]) -> None:
    """An engine that fails in the middle of a chain is no fault of the settings tried there."""
    file = write("slurm", LIST)
    good = Inline()

    class Fails(Inline):
        def submit(self, spec: Path) -> Inline:
            if self.specs:
                raise ConfigError("the account is closed")
            return super().submit(spec)

    with pytest.raises(FtloopError, match="the account is closed"):
        looped(file, lambda *_: Fails()).run()
    (first,) = looped(file).log.read()
    assert "adjust" == first.decision.action
    looped(file, lambda *_: good).run()
    assert 2 == len(good.specs)


def test_the_hooks_arguments(write: Callable[..., Path]) -> None:
    """It is given name, options and number; what it made is closed at the end."""
    file = write("{slurm: {partition: gpu}}", f"parallel: 3\n  {LIST}")
    asked: list[Any] = []
    made: list[Inline] = []

    def hook(*stated: Any) -> Inline:
        asked.append(stated)
        made.append(Inline())
        return made[-1]

    result = looped(file, hook).run()
    assert 3 == len(result.chain)
    assert {("slurm", 3)} == {(name, count) for name, _, count in asked}
    assert all({"partition": "gpu"} == options for _, options, _ in asked)
    assert all(executor.closed for executor in made)


def test_an_up_to_date_loop_asks_for_no_engine(write: Callable[..., Path]) -> None:
    """Nor does a replay, which trains nothing; the engine is no part of what is trained."""
    looped(write("")).run()
    file = write("slurm")
    result = looped(file, lambda *_: pytest.fail("nothing is to be trained")).run()
    assert () == result.trained
    assert 0 == main(["run", "--replay", "-q", str(file)])


def test_a_function(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`module:function` is an engine without pytest, too."""
    monkeypatch.setattr("pytest_ftloop.loop.backend.local", FakeBackend)
    file = write("{engine:executor: {size: 2}}")
    (file.parent / "engine.py").write_text(
        "from tests.loop.test_engines import Inline\n"
        "def executor(options, count):\n"
        "    assert (options, count) == ({'size': 2}, 1)\n"
        "    return Inline()\n",
        encoding="utf-8",
    )
    assert 0 == main(["run", "-q", str(file)])
    assert "1 iteration" in capsys.readouterr().out or list(file.parent.rglob("001-*.yaml"))


@pytest.mark.parametrize(
    ("scoring", "why"),
    [
        ("{scorer: hook}", "the scorer 'hook' needs pytest"),
        (
            "{judge: {url: 'http://localhost:9/v1', model: m, rubric: Good?}}",
            "a judge's answers are kept by one process",
        ),
    ],
)
def test_loops_that_stay_here(write: Callable[..., Path], scoring: str, why: str) -> None:
    """What can't be sent is an error with the line: it does not train here in secret."""
    file = write("slurm")
    file.write_text(f"{file.read_text(encoding='utf-8')}scoring: {scoring}\n", encoding="utf-8")
    loop = looped(file, lambda *_: Inline())
    loop.hook = lambda example, output: True
    with pytest.raises(ConfigError, match=rf"x.ftloop.yaml:5: .*can't be trained elsewhere: {why}"):
        loop.run()


def test_a_loop_of_python(tmp_path: Path) -> None:
    """Its objects are only in its own process."""
    config = from_python(
        name="x", train=TRAIN, eval=EVAL, loop={"run_on": "ray"}, folder=tmp_path, source="t.py"
    )
    with pytest.raises(ConfigError, match="can't be trained elsewhere: the loop is made in Python"):
        Loop(config, backend=FakeBackend).run()


def test_worker_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It states the cache and Python's path, and no other variable."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    command = worker_command(tmp_path / "spec.json")
    assert ["worker", str(tmp_path / "spec.json")] == command[-2:]
    assert f"FTLOOP_CACHE={tmp_path}" in command
    assert not [part for part in command if "secret-token" in part]
