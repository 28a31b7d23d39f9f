"""More seeds of the best iteration."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pytest_ftloop.core.errors import DamagedLogError, StaleLogError
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import FakeBackend
from tests.loop.loop_cases import config, files, run

# seeds


def seed_runs(folder: Path) -> list[tuple[int, str]]:
    runs = ImprovementLog(folder / "improvement_log/s").view.seed_runs()
    return [(run.seed, run.role) for run in runs]


def test_seeds_of_the_best_iteration(tmp_path: Path) -> None:
    """loop: {seeds: 3} trains the best iteration, and no other, with two more seeds."""
    result, trainer = run(config(tmp_path, loop={"iterations": 3, "patience": 9, "seeds": 3}))
    assert (1, 5) == (trainer.loaded, len(trainer.runs))
    assert [43, 44] == [settings.training["seed"] for settings in trainer.runs[3:]]
    for settings in trainer.runs[3:]:
        training = {k: v for k, v in settings.training.items() if k != "seed"}
        assert dict(result.best.settings.training) == training
    assert [(43, "gate"), (44, "gate")] == seed_runs(tmp_path)
    assert 3 == len(result.chain)
    assert {path.name for path in result.files} >= files(result)


def test_seeds_are_up_to_date(tmp_path: Path) -> None:
    """Seeds that are logged are not trained again; fewer seeds later leave them there."""
    three = {"iterations": 1, "seeds": 3}
    run(config(tmp_path, loop=three))
    for loop in (three, {"iterations": 1, "seeds": 2}, {"iterations": 1}):
        assert [] == run(config(tmp_path, loop=loop))[1].runs
        assert [] == run(config(tmp_path, loop=loop), replay=True)[1].runs
    _, trainer = run(config(tmp_path, loop={"iterations": 1, "seeds": 5}))
    assert [45, 46] == [settings.training["seed"] for settings in trainer.runs]


def test_seeds_start_from_the_stated_one(tmp_path: Path) -> None:
    """Seeds go on from the loop file's own; a data_seed that is stated stays."""
    training = {"learning_rate": 2e-4, "num_train_epochs": 2, "seed": 7, "data_seed": 1}
    _, trainer = run(config(tmp_path, training=training, loop={"iterations": 1, "seeds": 3}))
    assert [7, 8, 9] == [settings.training["seed"] for settings in trainer.runs]
    assert {1} == {settings.training["data_seed"] for settings in trainer.runs}


def test_seeds_in_another_environment(tmp_path: Path) -> None:
    """Seeds count in the iteration's own environment only: elsewhere they are trained anew."""
    loop = {"iterations": 1, "seeds": 2}
    run(config(tmp_path, loop=loop))
    gpu = FakeBackend(device={"device": "gpu"})
    run(config(tmp_path, loop=loop), gpu, retrain=True)
    assert 2 == len(gpu.runs)
    assert 2 == len(seed_runs(tmp_path))


def test_replay_with_missing_seeds(tmp_path: Path) -> None:
    """A replay that lacks seeds fails with how many there are and what trains them."""
    run(config(tmp_path, loop={"iterations": 1, "seeds": 2}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        StaleLogError, match=r"incomplete: iteration 001-.* has 2 of 3 seeds"
    ) as told:
        run(config(tmp_path, loop={"iterations": 1, "seeds": 3}), replay=True)
    assert "Run pytest --ftloop and commit improvement_log/." == told.value.cure
    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("raised", [RuntimeError("boom"), KeyboardInterrupt()])
def test_interrupted_seeds_go_on(tmp_path: Path, raised: BaseException) -> None:
    """Seeds that were finished before an interruption are kept."""
    loop = {"iterations": 1, "seeds": 4}
    with pytest.raises(type(raised)):
        run(config(tmp_path, loop=loop), FakeBackend(interrupt={3: raised}))
    assert [(43, "gate")] == seed_runs(tmp_path)
    _, trainer = run(config(tmp_path, loop=loop))
    assert [44, 45] == [settings.training["seed"] for settings in trainer.runs]


def test_threads_train_each_seed_once(tmp_path: Path) -> None:
    """Several processes that want the same seeds train each once."""
    loop = {"iterations": 1, "seeds": 4}
    run(config(tmp_path, loop={"iterations": 1}))
    trainers = [FakeBackend() for _ in range(4)]
    threads = [
        threading.Thread(target=run, args=(config(tmp_path, loop=loop), trainer))
        for trainer in trainers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trained = [s.training["seed"] for trainer in trainers for s in trainer.runs]
    assert [43, 44, 45] == sorted(trained)


@pytest.mark.parametrize("seeds", ["of the loop file", "of a calibration"])
def test_a_damaged_best_is_refused_before_its_seeds(tmp_path: Path, seeds: str) -> None:
    """Nothing is trained for an iteration whose table is not what was written."""
    run(config(tmp_path, iterations=1))
    (table,) = (tmp_path / "improvement_log/s").glob("001-*.examples.csv")
    table.write_text(table.read_text().replace("e1,", "e9,"))
    trainer = FakeBackend()
    loop = Loop(config(tmp_path, loop={"iterations": 1, "seeds": 3}), Options(), backend=trainer)
    with pytest.raises(DamagedLogError, match="differs from what its record was made with"):
        loop.run() if seeds == "of the loop file" else loop.calibrate(3)
    assert [] == trainer.runs
