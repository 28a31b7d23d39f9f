"""The workers that loops share: what is shown of them, and what one of them holds in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Run
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.pool import Following, Workers
from pytest_ftloop.loop.spec import Spec
from pytest_ftloop.loop.worker import Worker
from tests.fake_worker import executor
from tests.loops import EVAL, TRAIN
from tests.plugin.fake_runner import FakeBackend


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the loops a and b."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_BEGUN", str(tmp_path))
    for role, rows in (("train", TRAIN), ("eval", EVAL)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{role}.jsonl").write_text(text, encoding="utf-8")
    for name, rate in (("a", "2.0e-4"), ("b", "8.0e-4")):
        (tmp_path / f"{name}.ftloop.yaml").write_text(
            "data: {train: train.jsonl, eval: eval.jsonl}\n"
            f"training: {{learning_rate: {rate}}}\nloop: {{iterations: 1}}\n",
            encoding="utf-8",
        )
    return tmp_path


class Shown(Silent):
    """Keeps what was shown of workers."""

    def __init__(self) -> None:
        self.labels: set[str] = set()

    def together(self, loop: str, at_work: Sequence[tuple[str, str]], waiting: int) -> None:
        self.labels |= {f"{loop} | {label}" for label, _ in at_work}


def loop(root: Path, name: str, workers: Workers, **more: Any) -> Loop:
    file = root / f"{name}.ftloop.yaml"
    options = Options(parallel=2)
    made = {"backend": FakeBackend, "executor": executor, "workers": workers, **more}
    return Loop(read_loop_file(file), options, **made)


def test_what_is_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of another loop is shown with that loop's name, until it is its turn."""
    monkeypatch.setenv("FAKE_WAIT_a", str(root / "b"))
    monkeypatch.setenv("FAKE_STEP_S", "0.01")
    shown = Shown()
    with Workers() as workers:
        workers.follow([Following(root / "b.ftloop.yaml", loop(root, "b", workers).upcoming)])
        loop(root, "a", workers, progress=shown).run()
        assert {"a | iteration 1", "a | b: iteration 1"} == shown.labels
        loop(root, "b", workers, progress=shown).run()
    assert {"a | iteration 1", "a | b: iteration 1"} <= shown.labels
    assert shown.labels <= {"a | iteration 1", "a | b: iteration 1", "b | iteration 1"}


def test_nothing_is_written_for_who_follows(root: Path) -> None:
    """To ask a loop what it trains leaves its log, and all others, as they are."""
    held = []

    def hold(log: Path) -> Path:
        held.append(log)
        return root / "lock"

    before = sorted(root.rglob("*"))
    prospect = loop(root, "b", Workers()).upcoming(hold)
    assert prospect is not None
    assert ["b: iteration 1"] == [label for _, label in prospect.trainings]
    assert [root / "improvement_log" / "b"] == held
    assert before == sorted(root.rglob("*"))


def test_who_was_asked_and_has_begun(root: Path) -> None:
    """Each loop is asked once, however often a worker is idle."""
    asked = []

    def look(_: object) -> None:
        asked.append(1)

    kind = (executor, 2)
    with Workers() as workers:
        for _ in range(2):
            workers.follow([Following(root / "b.ftloop.yaml", look)])
            assert not workers.finds_more(kind)
    assert [1] == asked


def test_log_of_who_has_other_workers_is_not_locked(root: Path) -> None:
    """A loop that is asked and can't be begun here leaves its log to other processes."""
    file = root / "b.ftloop.yaml"
    with Workers() as workers:
        for _ in range(2):
            workers.follow([Following(file, loop(root, "b", workers).upcoming)])
            assert not workers.finds_more((executor, 3))
            assert workers.lock_of(root / "improvement_log" / "b") is None
        workers.follow([Following(file, loop(root, "b", workers).upcoming)])
        assert workers.finds_more((executor, 2))
        assert workers.lock_of(root / "improvement_log" / "b") is not None


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("a row"), pytest.skip.Exception("")])
def test_who_ends_python_when_asked(error: BaseException) -> None:
    """Whatever a loop's code raises, also to end or to skip, is told in its own turn."""

    def look(_: object) -> None:
        raise error

    with Workers() as workers:
        workers.follow([Following(Path("b"), look)])
        assert not workers.finds_more((executor, 2))


def test_one_adapter_is_trained_once_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun for another loop ends where a loop trains the same adapter in its turn."""
    monkeypatch.setenv("FAKE_WAIT_b", str(root / "never"))
    unfinished = root / "cache" / "unfinished"
    with Workers() as workers:
        kind = (executor, 2)
        workers.open(kind)
        workers.follow([Following(root / "b.ftloop.yaml", loop(root, "b", workers).upcoming)])
        workers.fill([])
        (begun,) = workers._begun.values()
        (unfinished / f"{Path(begun.spec.adapter).name[:32]}-x").mkdir(parents=True)
        workers.use(str(root / "another"))
        assert workers.trains(begun.spec.adapter)
        assert workers.is_busy()
        workers.use(begun.spec.adapter)
        assert not workers.trains(begun.spec.adapter)
        assert not workers.is_busy()
        assert not begun.spec.folder.exists()
        assert [] == [*unfinished.iterdir()]


def test_one_base_model_at_a_time(root: Path) -> None:
    """A worker that gets the training of another loop gives back the memory of the last one."""
    released = []

    class Local(LocalBackend):
        def train(self, settings: Any, **how: Any) -> Run:
            return FakeBackend(self._config, self._inputs, Silent()).train(settings, **how)

        def environment(self, settings: Any) -> Mapping[str, str]:
            return {}

        def release(self) -> None:
            released.append(self._config.name)

    worker = Worker(Local)
    for name in ("a", "a", "b", "a"):
        made = loop(root, name, Workers())
        cycle = made._cycle()
        spec = Spec(
            loop_file=str(made.config.file),
            log=str(made.log.folder),
            fingerprint=cycle.inputs.fingerprint(cycle.config, cycle.config.settings),
            settings=cycle.config.settings,
            name=name,
            adapter=str(root / "adapter"),
            metric="eval_loss",
        )
        assert worker.work(spec.write())
    assert ["a", "b"] == released
