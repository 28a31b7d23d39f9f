"""A backend that trains in no time and without torch: the eval loss follows from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.cache import ADAPTER_CONFIG, adapter_hash
from pytest_ftloop.core.records import (
    BaseMeasured,
    BaseResults,
    Cost,
    DataSet,
    Evaluation,
    Example,
    ExampleResult,
    Run,
    Settings,
)
from tests.fakes import fake_training

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.early_end import Pace
    from pytest_ftloop.train.task import FoundAll, ToMeasure


@dataclass
class FakeBackend:
    """A backend that learns nothing, and its own factory: `Loop(config, backend=FakeBackend())`.

    The optimum is at a learning rate of 1.6e-3; a run from the 2e-4 of the tests looks underfit, so
    the policy climbs. `interrupt` maps the number of a run to what it raises. `loaded` is how often
    it would have loaded its base model: once it has trained.
    """

    interrupt: dict[int, BaseException] = field(default_factory=dict)
    runs: list[Settings] = field(default_factory=list)
    base_losses: list[float | None] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    paces: list[Pace | None] = field(default_factory=list)
    device: dict[str, str] = field(default_factory=lambda: {"device": "cpu"})
    asked: int = 0
    bases: int = 0

    def __call__(self, config: LoopConfig, inputs: Inputs, progress: Progress) -> FakeBackend:
        self.inputs = inputs
        return self

    @property
    def loaded(self) -> int:
        return min(len(self.runs), 1)

    def train(
        self,
        settings: Settings,
        *,
        name: str,
        adapter: Path | None = None,
        base_eval_loss: float | None = None,
        pace: Pace | None = None,
        metric: str = "eval_loss",
        keep: Any = None,
    ) -> Run:
        self.runs.append(settings)
        self.paces.append(pace)
        self.names.append(name)
        self.base_losses.append(base_eval_loss)
        if error := self.interrupt.get(len(self.runs)):
            raise error
        run = fake_run(self.inputs, settings, self.device)
        if base_eval_loss is not None:
            return run
        return replace(run, evaluation=replace(run.evaluation, base=fake_base(self.inputs)))

    def measure_base(self, settings: Settings) -> BaseMeasured:
        self.bases += 1
        return BaseMeasured(fake_base(self.inputs), self.device)

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        raise AssertionError("nothing is to be measured here")

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        raise AssertionError("there is no adapter that could be measured")

    def environment(self, settings: Settings) -> Mapping[str, str]:
        self.asked += 1
        return self.device


def fake_adapter(folder: Path, weights: str = "weights") -> str:
    """Save an adapter in peft's layout; its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_text(weights)
    (folder / ADAPTER_CONFIG).write_text("{}")
    return adapter_hash(folder)


def fake_base(inputs: Inputs) -> BaseResults:
    """The untrained base: a loss of 6.0, and nothing passes."""
    return BaseResults(
        tuple(_result(e, 6.0, passed=False) for e in inputs.eval.examples),
        fake_guards(inputs, 3.0),
    )


def fake_guards(inputs: Inputs, loss: float) -> dict[str, tuple[ExampleResult, ...]]:
    """The results of the guards: this loss per token, not scored."""
    return {
        guard.name: tuple(_result(e, loss, passed=None) for e in guard.rows.examples)
        for guard in inputs.guards
    }


def _result(example: Example, loss: float, *, passed: bool | None) -> ExampleResult:
    return ExampleResult(
        example.id,
        example.content,
        example.tags,
        loss * 4,
        4,
        3,
        passed,
        example.expected or "",
        "an output",
    )


def fake_run(inputs: Inputs, settings: Settings, environment: Mapping[str, str]) -> Run:
    loss = 2.0 - 400 * min(settings.get("training.learning_rate"), 1.6e-3)

    def results(role: str) -> tuple[ExampleResult, ...]:
        return tuple(_result(e, loss, passed=loss < 1.7) for e in getattr(inputs, role).examples)

    steps = [loss + 2.0 - n / 50 for n in range(100)]
    return Run(
        training=fake_training(steps, [loss + 0.4, loss + 0.2, loss + 0.1, loss]),
        evaluation=Evaluation(results("eval"), results("train"), results("train"), 6.0),
        cost=Cost(seconds=1.0, steps=100, tokens=400),
        environment=environment,
    )
