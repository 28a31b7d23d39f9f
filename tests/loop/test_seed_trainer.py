"""The seed trainer: which seeds it trains, and which it finds in the log."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Cost, Evaluation, Run
from pytest_ftloop.core.set_metrics import SetMetric
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.kept import Store
from pytest_ftloop.loop.seeds import SeedTrainer
from tests.fakes import (
    fake_table,
    fake_training,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ftloop.core.records import Settings
from tests.gate.comparison_cases import ELSEWHERE, OLD, log_of, losses

# the seed trainer itself


@dataclass
class SeedBackend:
    """Trains in no time; `noise` moves the loss with the seed."""

    environment: Mapping[str, str] = field(
        default_factory=lambda: {"device": "cpu", "torch": "2.13.0"}
    )
    seeds: list[int] = field(default_factory=list)
    adapters: list[Path | None] = field(default_factory=list)

    def train(self, settings: Settings, *, adapter: Path | None = None, **_: Any) -> Run:
        seed = settings.training["seed"]
        self.seeds.append(seed)
        self.adapters.append(adapter)
        rows = fake_table(losses(1.0, seed, 5))
        return Run(
            fake_training(), Evaluation(rows, rows, rows, 6.0), Cost(1.0, 1, 1), self.environment
        )


class FakeInputs:
    """Only what tells settings apart."""

    set_metrics = MappingProxyType[str, SetMetric]({})

    def fingerprint(self, config: Any, settings: Settings) -> str:
        return f"{settings.training['seed']:064x}"

    def group(self, config: Any, settings: Settings) -> str:
        return "group-1"

    def weights(self, settings: Settings) -> str:
        return f"{settings.training['seed']:064x}"


def trainer_of(log: ImprovementLog, runner: SeedBackend) -> SeedTrainer:
    config = from_python(
        folder=log.folder,
        source="x.py",
        name="sentiment",
        train=[{"prompt": "p", "completion": "c"}],
        eval=[{"prompt": "p", "completion": "c"}],
    )
    cycle = SimpleNamespace(
        config=config,
        inputs=FakeInputs(),
        improvement_log=log,
        backend=runner,
        store=Store(),
        progress=Silent(),
        again=SimpleNamespace(evaluable=lambda settings, environment: None),
    )
    return SeedTrainer(cycle, lambda: nullcontext(log.folder))  # type: ignore[arg-type]


def test_seeds_after_the_iterations_own(tmp_path: Path) -> None:
    """The missing seeds are trained, each once, and logged when it is done."""
    log, runner = log_of(tmp_path, OLD), SeedBackend()
    runs = trainer_of(log, runner).train(OLD, 3, "gate")
    assert [43, 44] == runner.seeds == [run.seed for run in runs]
    assert [(OLD.id, "gate", "group-1")] * 2 == [
        (run.iteration, run.role, run.group) for run in log.view.seed_runs()
    ]
    assert () == trainer_of(log, runner).train(OLD, 3, "gate")
    assert [45, 46] == [run.seed for run in trainer_of(log, runner).train(OLD, 5, "calibration")]
    assert [adapter_folder(f"{seed:064x}") for seed in range(43, 47)] == runner.adapters


def test_seed_that_another_process_trained(tmp_path: Path) -> None:
    """What is in the log when the lock is held is taken from there."""
    log, runner = log_of(tmp_path, OLD), SeedBackend()
    trainer = trainer_of(log, runner)
    first = trainer.train(OLD, 2, "gate")
    # Named after another iteration of the same settings: found by its fingerprint.
    assert first == trainer.train(replace(OLD, id="ffffffff", group=""), 2, "gate")
    assert [43] == runner.seeds


def test_seeds_of_another_machine(tmp_path: Path) -> None:
    """What is trained elsewhere can't stand beside the iteration: it ends after the first."""
    log, runner = log_of(tmp_path, OLD), SeedBackend(ELSEWHERE)
    runs = trainer_of(log, runner).train(OLD, 5, "gate")
    assert ([43], [ELSEWHERE]) == (runner.seeds, [dict(run.environment) for run in runs])
