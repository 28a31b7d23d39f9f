"""A pytest plugin for the folders of pytester: loops train in no time and without torch.

The eval loss follows from the learning rate and is best at 1.6e-3; examples tagged `negation` learn
late. Environment variables say what else a run does: FAKE_TRAINED names a file that gets one line a
run, FAKE_STEP_S how long a step takes, FAKE_HANG the number of the iteration that never ends,
FAKE_NOISE the share of the loss that the seed moves it by, FAKE_DEVICE the device. With FAKE_BASE
a training measures the base where it is not known.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.records import (
    BaseResults,
    Cost,
    DataSet,
    Evaluation,
    Example,
    ExampleResult,
    Run,
)
from pytest_ftloop.evaluate.scored import Scored
from tests.fakes import fake_training
from tests.processes import LONG_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.task import FoundAll, ToMeasure

STEPS = 100
SHIFTS = (0.0, 1.0, -1.0, 0.5, -0.5)
patch = pytest.MonkeyPatch()


@pytest.hookimpl(trylast=True)  # the plugin's own comes first
def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("ftloop-session"):
        patch.setattr("pytest_ftloop.loop.backend.local", FakeBackend)


def pytest_unconfigure() -> None:
    patch.undo()


@dataclass
class FakeBackend:
    """The backend of these folders, in place of the one that imports torch."""

    config: LoopConfig
    inputs: Inputs
    progress: Progress

    def train(self, settings: Settings, **arguments: Any) -> Run:
        rate = rate_of(settings)
        note_training(self.config.name, rate, settings.training.get("seed"))
        loss = self.loss(settings)
        losses = [loss + 2.0 - n / 50 for n in range(STEPS)]
        for number, step_loss in enumerate(losses, start=1):
            self.progress.step(number, STEPS, step_loss)
            time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
        examples = tuple(self._measured(e, loss) for e in self.inputs.eval.examples)
        sample = tuple(self._measured(e, loss - 0.05) for e in self.inputs.train.examples)
        last = token_mean_loss(examples)
        base, base_loss = None, arguments.get("base_eval_loss") or 6.0
        if "FAKE_BASE" in os.environ and arguments.get("base_eval_loss") is None:
            base = BaseResults(tuple(self._measured(e, 6.0) for e in self.inputs.eval.examples))
            base_loss = token_mean_loss(base.examples)
        return Run(
            training=fake_training(losses, [last + 0.4, last + 0.2, last + 0.1, last]),
            evaluation=Evaluation(examples, sample, sample, base_loss, base=base),
            cost=Cost(seconds=1.0, steps=STEPS, tokens=400),
            environment=self.environment(settings),
        )

    def loss(self, settings: Settings) -> float:
        """The eval loss of what these settings train."""
        shift = SHIFTS[((settings.training.get("seed") or 42) - 42) % 5]
        loss = 2.0 - 400 * min(rate_of(settings), 1.6e-3)
        return loss * (1 + shift * float(os.environ.get("FAKE_NOISE", "0")))

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        raise AssertionError("the fake trains no adapter that could be measured")

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        raise AssertionError("there is no adapter that could be measured")

    def environment(self, settings: Settings) -> Mapping[str, str]:
        return {"device": os.environ.get("FAKE_DEVICE", "cpu")}

    def _measured(self, example: Example, loss: float) -> ExampleResult:
        negation = "negation" in example.tags
        expected = (example.expected or "").strip()
        output = expected if loss < (1.4 if negation else 1.7) else "wrong"
        scorer = self.inputs.scorer
        scored = scorer(example, output) if scorer else Scored(output == expected)
        mean = loss + 0.2 if negation else loss
        return ExampleResult(
            example.id,
            example.content,
            example.tags,
            4 * mean,
            4,
            3,
            scored.passed,
            expected,
            output,
            scored.scores,
        )


def rate_of(settings: Settings) -> float:
    """The learning rate; trl's own where the loop file states none."""
    return float(settings.get("training.learning_rate") or 2e-5)


def note_training(loop: str, rate: float, seed: int | None = None) -> None:
    """Append the run to FAKE_TRAINED; hang in the iteration that is to be interrupted."""
    if not (file := os.environ.get("FAKE_TRAINED")):
        return
    with Path(file).open("a", encoding="utf-8") as lines:
        lines.write(f"{loop} {rate:g}{'' if seed is None else f' seed {seed}'}\n")
    if len(Path(file).read_text(encoding="utf-8").splitlines()) == int(
        os.environ.get("FAKE_HANG", "0")
    ):
        Path(f"{file}.hangs").touch()
        time.sleep(LONG_S)
