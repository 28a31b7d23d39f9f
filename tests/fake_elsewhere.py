"""Machines that share no disk with the loop's: an executor that hides the loop's folders meanwhile.

Their workers are fakes, which save an adapter and measure it: what it measures is in its file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
from pytest_ftloop.loop import on_ray, shipped
from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.parcel import Packer
from pytest_ftloop.loop.processes import Processes
from pytest_ftloop.loop.spec import Spec, read_spec
from pytest_ftloop.loop.worker import Worker, serve
from pytest_ftloop.train.task import EVAL, Found, FoundAll, ToMeasure
from tests.fake_backend import fake_adapter, fake_base
from tests.fake_worker import ROOT, FakeWorkerBackend

if TYPE_CHECKING:
    from pytest_ftloop.loop.parcel import Parcel

COMMAND = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.fake_elsewhere import main; main()",
)


OWN = ("adapter", "keep")
"""What a training is given that is another one on another machine."""


class FakeElsewhere(FakeWorkerBackend):
    """A backend that trains as the fake does, and saves an adapter that says its learning rate.

    With FAKE_TELL its run says in the environment what else it was given.
    """

    def train(self, settings: Settings, **arguments: Any) -> Run:
        run = super().train(settings, **arguments)
        if (folder := arguments.get("adapter")) is None:
            return run
        rate = settings.get("training.learning_rate")
        if "FAKE_TELL" in os.environ:
            asked = {name: str(how) for name, how in arguments.items() if name not in OWN}
            run = replace(run, environment={**run.environment, **asked})
        return replace(run, adapter=fake_adapter(folder, f"{rate:g}"))

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        loss = 2.0 - 400 * float((adapter / "adapter_model.safetensors").read_text())
        return tuple(self._measured(example, loss) for example in examples.examples)

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        rows = replace(self.inputs.eval, examples=missing.trained[EVAL].losses)
        return FoundAll({EVAL: Found(losses=self.measure(settings, adapter, rows))}, {})

    def measure_base(self, settings: Settings) -> BaseMeasured:
        return BaseMeasured(fake_base(self.inputs), self.environment(settings))


def main() -> None:
    """Run in the worker process."""
    sys.exit(serve(FakeElsewhere))


def one(spec: str) -> None:
    """What `ftloop worker SPEC` does, with a fake; the exit code is as there."""
    sys.exit(0 if Worker(FakeElsewhere).work(Path(spec)) else 2)


def ray_work(*arguments: Any) -> Any:
    """The task of Ray, in place of `on_ray.work`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "Processes", partial(Processes, command=COMMAND))
        return on_ray.work(*arguments)


@dataclass
class Elsewhere:
    """An executor whose workers have a cache of their own; the `hidden` folders are not there."""

    cache: Path
    hidden: Sequence[Path]
    sent: list[Parcel] = field(default_factory=list)
    specs: list[Spec] = field(default_factory=list)

    def submit(self, spec: Path) -> Done:
        """Have it done at once."""
        parcel = Packer().pack(spec)
        self.sent.append(parcel)
        self.specs.append(read_spec(spec))
        contents = {digest: path.read_bytes() for digest, path in parcel.contents.items()}
        with _away(self.hidden), pytest.MonkeyPatch.context() as patch:
            patch.setenv("FTLOOP_CACHE", str(self.cache))
            patch.chdir(self.cache.parent)
            patch.setattr(shipped, "Processes", partial(Processes, command=COMMAND))
            outcome = shipped.work(parcel.as_text(), contents)
        shipped.take_back(outcome, spec)
        return Done(outcome.ended)

    def close(self) -> None:
        """End the worker, so that nothing is kept for the next test."""
        for place in list(shipped._open):
            shipped._open.pop(place).close()


@dataclass(frozen=True)
class Done:
    """A handle of what has ended."""

    how: Ended

    def ended(self) -> Ended:
        """How it ended."""
        return self.how

    def cancel(self) -> None:
        """Do nothing."""


@contextmanager
def _away(folders: Sequence[Path]) -> Iterator[None]:
    aside = [(folder, folder.with_name(f"{folder.name}.away")) for folder in folders]
    for folder, away in aside:
        folder.rename(away)
    try:
        yield
    finally:
        for folder, away in aside:
            assert not folder.exists(), "the worker wrote to the loop's own folder"
            away.rename(folder)
