"""A backend that keeps adapters, and a loop whose evaluation changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.records import BaseResults, ExampleResult, Run, Settings
from pytest_ftloop.loop.known_rows import Measurable
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.train.task import Found, FoundAll, ToMeasure
from tests.fake_backend import fake_adapter, fake_run

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import DataSet, Example
    from pytest_ftloop.evaluate.scored import UserScorer
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.result import LoopResult
    from pytest_ftloop.train.task import Missing

TRAIN = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(6)]

EVAL = [{"id": f"e{n}", "prompt": f"q{n}", "completion": f"d{n}"} for n in range(6)]

BASE = Settings(lora={}, training={})
"""Stands for the untrained base."""

Rows = tuple[ExampleResult, ...]

LIMIT = 8
"""New tokens by which outputs are generated."""


def output_of(example: Example, settings: Settings) -> str:
    """What the model writes: a longer text with the answer, for every second prompt no answer.

    The untrained base says it in other words.
    """
    verb = "was" if settings == BASE else "is"
    is_known = int(example.prompt_text[1:]) % 2
    return f"it {verb} {example.expected}" if is_known else "I don't know"


def measured(example: Example, settings: Settings) -> ExampleResult:
    """What the model gives for an example: it depends on the example and the weights alone."""
    draw = random.Random(f"{example.content} {settings}")
    return ExampleResult(
        example.id,
        example.content,
        example.tags,
        loss=round(draw.uniform(1, 9), 6),
        tokens=draw.randint(2, 9),
        correct=draw.randint(0, 2),
    )


@dataclass
class Adapters:
    """Trains in no time and saves an adapter; notes what it is asked for.

    `limit` is that of new tokens, as the eval set's longest answer asks for. `stop` is raised in
    the middle of a training's end: `generating` or `scoring`. `full` is a cache without room.
    """

    device: str = "cpu"
    limit: int = LIMIT
    full: str = ""
    stop: Mapping[str, BaseException] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    missing: list[ToMeasure] = field(default_factory=list)

    def __call__(self, config: LoopConfig, inputs: Inputs, progress: Any) -> Adapters:
        self.inputs, self.config = inputs, config
        return self

    def train(
        self,
        settings: Settings,
        *,
        name: str,
        adapter: Path | None = None,
        base_eval_loss: float | None = None,
        keep: Callable[[Run], object] = lambda _: None,
        **_: Any,
    ) -> Run:
        self.asked.append("train")
        run = fake_run(self.inputs, settings, self.environment(settings))
        if self.full:
            run = replace(run, not_saved=self.full)
        elif adapter is not None:
            run = replace(run, adapter=fake_adapter(adapter, f"{settings} {self.device}"))
        base, loss = None, base_eval_loss
        if loss is None:
            base = BaseResults(*self._measured(BASE))
            loss = token_mean_loss(base.examples)
        evaluation = replace(run.evaluation, base=base, base_eval_loss=loss)
        run = replace(run, evaluation=evaluation)
        rows = tuple(measured(e, settings) for e in self.inputs.eval.examples)
        run = _with(run, rows)
        keep(run)
        self._stop("generating")
        rows = tuple(map(partial(self._answered, settings), rows, self.inputs.eval.examples))
        run = _with(run, rows, self.limit)
        keep(run)
        self._stop("scoring")
        of_eval, guards = self._measured(settings)
        run = _with(run, of_eval, self.limit)
        return replace(run, evaluation=replace(run.evaluation, guards=guards))

    def _measured(self, settings: Settings) -> tuple[Rows, Mapping[str, Rows]]:
        """All rows with these weights, scored: of the eval set, of each guard."""
        found = {
            of.guard: of.scored(
                [self._answered(settings, measured(e, settings), e) for e in of.examples]
            )
            for of in Measurable.all_of(self.config, self.inputs)
        }
        return found.pop(""), found

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        assert (adapter / "adapter_config.json").is_file()
        self.asked.append("measure")
        self.missing.append(missing)
        self._stop("generating")
        return FoundAll(
            {role: self._found(role, settings, of) for role, of in missing.trained.items()},
            {role: self._found(role, BASE, of) for role, of in missing.base.items()},
        )

    def _found(self, role: str, settings: Settings, missing: Missing) -> Found:
        sets = {"eval": self.inputs.eval, **{g.role: g.rows for g in self.inputs.guards}}
        answers = missing.answers
        if answers and self.limit > missing.max_new_tokens:
            answers = sets[role].examples
        return Found(
            losses=tuple(measured(e, settings) for e in missing.losses),
            answers=tuple(self._answered(settings, measured(e, settings), e) for e in answers),
            max_new_tokens=max(self.limit, missing.max_new_tokens),
        )

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        raise AssertionError("there is no holdout")

    def environment(self, settings: Settings) -> Mapping[str, str]:
        return {"device": self.device}

    def _stop(self, when: str) -> None:
        if error := self.stop.get(when):
            raise error

    def _answered(self, settings: Settings, row: ExampleResult, example: Example) -> ExampleResult:
        expected = (example.expected or "").strip()
        return replace(row, expected=expected, output=output_of(example, settings))


def _with(run: Run, rows: tuple[ExampleResult, ...], limit: int = 0) -> Run:
    evaluation = replace(run.evaluation, examples=rows, max_new_tokens=limit)
    return replace(run, evaluation=evaluation)


def loop_of(
    folder: Path,
    backend: Any,
    *,
    hook: UserScorer | None = None,
    rate: float = 2e-4,
    **changes: Any,
) -> Loop:
    """The loop with changes to its settings; options of a run are in `options`."""
    options = changes.pop("options", {})
    config = from_python(
        **{
            "folder": folder,
            "source": "test_again.py",
            "name": "s",
            "train": TRAIN,
            "eval": EVAL,
            "lora": {"r": 8, "lora_alpha": 16},
            "training": {"learning_rate": rate, "num_train_epochs": 2},
            "loop": {"iterations": 1},
            **changes,
        }
    )
    return Loop(config, Options(**options), backend=backend, hook=hook)


def run(folder: Path, backend: Any, **changes: Any) -> LoopResult:
    """Run the loop with changes to its settings."""
    return loop_of(folder, backend, **changes).run()
