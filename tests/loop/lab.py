"""A loop with a holdout whose trainings and measurements are noted in order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.core.records import DataSet, ExampleResult, Run
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.fake_backend import fake_adapter, fake_run
from tests.gitfakes import GitRepo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.result import LoopResult

SECRET = "the holdout says xyzzy"


TRAIN = [{"id": f"t{n}", "prompt": f"p{n}", "completion": f"c{n}"} for n in range(6)]


EVAL = [{"id": f"e{n}", "prompt": f"q{n}", "completion": f"d{n}"} for n in range(8)]


HOLDOUT = [
    {"id": f"h{n}", "prompt": f"{SECRET} {n}", "completion": f" {SECRET} too {n}", "tags": "x"}
    for n in range(4)
]


@dataclass
class LabBackend:
    """The lab's backend: what it is asked for happened in the lab."""

    lab: Lab
    config: Any
    inputs: Inputs
    progress: Any

    def train(self, settings: Settings, *, name: str, adapter: Path | None = None, **_: Any) -> Run:
        self.lab.happened.append("train")
        run = fake_run(self.inputs, settings, self.environment(settings))
        return run if adapter is None else replace(run, adapter=fake_adapter(adapter))

    def measure(self, settings: Any, adapter: Path, examples: DataSet) -> tuple[ExampleResult, ...]:
        self.lab.happened.append("measure")
        for example in examples.examples:  # a row that the scorer refuses is an error here
            if self.inputs.scorer:
                self.inputs.scorer(example, f"{SECRET}, it answers")
        return tuple(
            ExampleResult(
                e.id, e.content, e.tags, 8.0, 4, 2, True, e.expected or "", f"{SECRET}, it answers"
            )
            for e in examples.examples
        )

    def environment(self, settings: Any) -> Mapping[str, str]:
        return {"device": "cpu"}


@dataclass
class Lab:
    """A loop in a repository, trained and measured in no time; what happened, in order."""

    folder: Path
    happened: list[str] = field(default_factory=list)

    def loop(
        self,
        *,
        holdout: Any = HOLDOUT,
        rate: float = 2e-4,
        more: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Loop:
        config = from_python(
            folder=self.folder,
            source="test_x.py",
            name="s",
            train=TRAIN,
            holdout=holdout,
            lora={"r": 8, "lora_alpha": 16},
            training={"learning_rate": rate, "num_train_epochs": 2},
            loop={"iterations": 3, "patience": 9},
            gates={"regression": {}},
            **{"eval": EVAL, **(more or {})},
        )
        return Loop(config, Options(**options), backend=lambda *given: LabBackend(self, *given))

    def judged(self, **options: Any) -> LoopResult:
        """The loop, run and judged."""
        loop = self.loop(**options)
        return loop.judge(loop.run())

    def files(self) -> dict[str, bytes]:
        root = self.folder / "improvement_log"
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def commit(lab: Lab) -> None:
    GitRepo(lab.folder).commit()
