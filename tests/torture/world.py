"""A repository in which every kind of file of a log exists, trained by a backend without torch.

FAKE_COST_S is how many seconds a training is said to have taken, FAKE_STEP_S how long its steps do.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from pytest_ftloop.core.cache import ADAPTER_CONFIG, adapter_hash
from pytest_ftloop.core.files import replacing
from pytest_ftloop.core.recipe import recipe_id
from pytest_ftloop.core.records import BaseMeasured, BaseResults, DataSet, ExampleResult, Run
from pytest_ftloop.train.task import Found, FoundAll, Missing
from tests.gitfakes import IDENTITY, SETTINGS, GitRepo
from tests.plugin import fake_runner
from tests.torture.calls import called

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Settings
    from pytest_ftloop.loop.backend import BackendFactory
    from pytest_ftloop.train.task import ToMeasure

TRAIN = [{"id": f"t{n}", "prompt": f"p{n}", "completion": f" c{n}"} for n in range(6)]
EVAL = [
    {"id": f"e{n}", "prompt": f"what is {n}?", "completion": f" answer {n}"}
    | ({"tags": ["negation"]} if n < 2 else {})
    for n in range(5)
]
HOLDOUT = [{"id": f"h{n}", "prompt": f"who is {n}?", "completion": f" h{n}"} for n in range(5)]
GUARD = [{"id": f"g{n}", "prompt": f"capital {n}?", "completion": f" g{n}"} for n in range(3)]
DATA = {"train": TRAIN, "eval": EVAL, "holdout": HOLDOUT, "general": GUARD}
LOOP = """\
# what it is for
data:
  train: train.jsonl
  eval: eval.jsonl
  holdout: holdout.jsonl
  guards: {{general: general.jsonl}}
lora: {{r: 8, lora_alpha: 16}}  # small
training:
  learning_rate: {rate}  # found by hand
  num_train_epochs: 2
scoring: {{scorer: exact}}
gates:
  eval_loss: "<= 3.4"
  pass_rate[negation]: ">= 0"
  regression: {{}}
loop: {{iterations: {iterations}}}
"""


BASE_LOSS, BASE_GUARD_LOSS, GUARD_LOSS = 6.0, 3.0, 2.9
"""Mean losses that the fake measures: of the base, of the base on the guard, of each training."""


class Backend(fake_runner.FakeBackend):
    """The fake of the plugin's tests that also saves adapters and measures base and holdout."""

    def train(
        self,
        settings: Settings,
        *,
        name: str,
        adapter: Path | None = None,
        base_eval_loss: float | None = None,
        keep: Callable[[Run], object] | None = None,
        **arguments: Any,
    ) -> Run:
        run = super().train(settings, name=name, **arguments)
        evaluation = replace(
            run.evaluation,
            guards=self._guards(GUARD_LOSS),
            base=None if base_eval_loss is not None else self._base(),
        )
        seconds = float(os.environ.get("FAKE_COST_S", "1"))
        run = replace(run, evaluation=evaluation, cost=replace(run.cost, seconds=seconds))
        if adapter is not None:
            try:
                run = replace(run, adapter=_saved(adapter, f"{name} {settings}"))
            except OSError as error:
                run = replace(run, not_saved=str(error))
        if keep is not None:
            keep(run)
        return run

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        return tuple(self._measured(e, self.loss(settings)) for e in examples.examples)

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        def found(of: Mapping[str, Missing], loss: float, guards: float) -> dict[str, Found]:
            return {
                role: Found(
                    tuple(self._measured(e, at) for e in what.losses),
                    tuple(self._measured(e, at) for e in what.answers),
                )
                for role, what in of.items()
                for at in [guards if role.startswith("guard") else loss]
            }

        return FoundAll(
            found(missing.trained, self.loss(settings), GUARD_LOSS),
            found(missing.base, BASE_LOSS, BASE_GUARD_LOSS),
        )

    def measure_base(self, settings: Settings) -> BaseMeasured:
        return BaseMeasured(self._base(), self.environment(settings))

    def _base(self) -> BaseResults:
        examples = tuple(self._measured(e, BASE_LOSS) for e in self.inputs.eval.examples)
        return BaseResults(examples, self._guards(BASE_GUARD_LOSS))

    def _guards(self, loss: float) -> dict[str, tuple[ExampleResult, ...]]:
        return {
            guard.name: tuple(
                replace(self._measured(e, loss), passed=None) for e in guard.rows.examples
            )
            for guard in self.inputs.guards
        }


def _saved(folder: Path, weights: str) -> str:
    """Save an adapter in peft's layout as training does; its hash."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "/a/base", "revision": None}
    with replacing(folder) as making:
        making.mkdir(parents=True)
        for name, text in {
            "adapter_model.safetensors": weights,
            "tokenizer_config.json": "{}",
            ADAPTER_CONFIG: json.dumps(config),
        }.items():
            time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
            (making / name).write_text(text)
    return adapter_hash(folder)


@dataclass(frozen=True)
class World:
    """The repository, the cache and the folder of temporary files of one process."""

    folder: Path

    @property
    def root(self) -> Path:
        """The repository, which is the working folder."""
        return self.folder / "project"

    @property
    def log(self) -> Path:
        """The folder of the loop's log."""
        return self.root / "improvement_log" / "x"

    @property
    def places(self) -> tuple[Path, ...]:
        """All that a command may leave something in."""
        return tuple(self.folder / name for name in ("project", "cache", "records", "tmp"))

    def environment(self) -> dict[str, str]:
        """What the process needs in its environment; nothing of CI or of the user's git."""
        return {
            **SETTINGS,
            **IDENTITY,
            "FTLOOP_CACHE": str(self.folder / "cache"),
            "FTLOOP_RECORDS": str(self.folder / "records"),
            "FAKE_TRAINED": str(self.folder / "trained"),
            "TMPDIR": str(self.folder / "tmp"),
            "COLUMNS": "100",
        }

    @contextmanager
    def entered(self, backend: BackendFactory | None = None) -> Iterator[None]:
        """Work in it: the environment, the folder, the backend, which is a fake by default."""
        import tempfile

        outside = ("GIT_", "GITHUB_", "GITLAB_", "CI_", "FTLOOP_", "FAKE_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(outside) and k != "CI"}
        before = Path.cwd()
        with (
            mock.patch.dict(os.environ, kept | self.environment(), clear=True),
            mock.patch("pytest_ftloop.loop.backend.local", backend or Backend),
            mock.patch.object(tempfile, "tempdir", None),
        ):
            os.chdir(self.root)
            try:
                yield
            finally:
                os.chdir(before)

    def write(self, *, rate: str = "1.0e-3", iterations: int = 1) -> None:
        """The loop file and its data."""
        for name, rows in DATA.items():
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            (self.root / f"{name}.jsonl").write_text(text, encoding="utf-8")
        text = LOOP.format(rate=rate, iterations=iterations)
        (self.root / "x.ftloop.yaml").write_text(text, encoding="utf-8")

    def copy(self, to: Path) -> World:
        """The same elsewhere."""
        shutil.copytree(self.folder, to, symlinks=True)
        return World(to)

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file, and every folder; but locks and what git keeps for itself.

        Two listings are equal where nothing was written in between.
        """
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in self._found()}

    def contents(self) -> dict[str, bytes | None]:
        """The content of every file; None of a folder."""
        return {
            name: None if (path := self.folder / name).is_dir() else path.read_bytes()
            for name, _ in self._found()
        }

    def restore(self, contents: Mapping[str, bytes | None]) -> None:
        """Put everything back as `contents` once was."""
        now = self.contents()
        for name in sorted(now.keys() - contents.keys(), reverse=True):
            path = self.folder / name
            path.rmdir() if now[name] is None else path.unlink()
        for name in sorted(contents):
            if name in now and now[name] == contents[name]:
                continue
            content, path = contents[name], self.folder / name
            path.mkdir() if content is None else path.write_bytes(content)

    def _found(self) -> Iterator[tuple[str, os.stat_result]]:
        for place in self.places:
            yield from _below(place, place.name)


def _below(folder: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = f"{name}/{entry.name}"
            if entry.name in (".git", "locks", "__pycache__"):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield f"{path}/", os.stat_result((0,) * 10)
                yield from _below(Path(entry.path), path)
            else:
                yield path, entry.stat(follow_symlinks=False)


def new_world(folder: Path) -> World:
    """An empty one: a loop that was never trained."""
    world = World(folder)
    for place in world.places:
        place.mkdir(parents=True)
    GitRepo.init(world.root)
    embedded = folder / "cache" / "tiny" / recipe_id()
    embedded.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (embedded / name).write_text("{}")
    world.write()
    return world


def filled_world(folder: Path) -> World:
    """One with two committed versions, seed runs, verdicts, a base, a holdout use, a report."""
    world = new_world(folder)
    with world.entered():
        repo = GitRepo(world.root)
        steps: list[list[str] | str] = [
            ["run"],
            "first",
            ["calibrate", "--seeds", "3"],
            ["run"],
            "calibrated",
        ]
        for step in steps:
            _do(step, repo)
        world.write(rate="1.6e-3", iterations=2)
        for step in (
            ["run"],
            ["accept", "best", "--baseline"],
            ["run"],
            "second",
            ["ci", "--out", "out"],
        ):
            _do(step, repo)
        state = {"log_history": [{"step": n, "loss": 3 - n / 50} for n in range(1, 99)]}
        (world.root / "trainer_state.json").write_text(json.dumps(state))
    return world


def _do(step: list[str] | str, repo: GitRepo) -> None:
    if isinstance(step, str):
        repo.commit(message=step)
        return
    done = called(step)
    assert done.code in (0, 1), f"{step}: {done.printed}"
