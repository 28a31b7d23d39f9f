"""Trainings kept in a folder, so that a benchmark that is run again only reads them.

Shared by faults.py, slices.py and policy.py.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.data import examples
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.local_backend import LocalBackend

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
    from pytest_ftloop.train.early_end import Pace
    from pytest_ftloop.train.task import FoundAll, ToMeasure

VERSIONS = "-".join(f"{name}{version(name)}" for name in ("torch", "transformers", "trl", "peft"))
"""Trainings are kept in a folder per versions: others train afresh."""


@dataclass(frozen=True)
class Trial:
    """One training: what the loop gets of it, and its results on the holdout, if there is one."""

    run: Run
    holdout: tuple[ExampleResult, ...] = ()

    @property
    def holdout_loss(self) -> float:
        """Nats per token; NaN without a holdout, and for a run that never had a finite loss."""
        return token_mean_loss(self.holdout)


class KeptBackend:
    """A `Backend` for one loop that trains each settings once; it is its own factory.

    It never ends a run for its pace: what is kept must not depend on which loop came first. No
    adapter is kept, so the loop's holdout is measured right after each training. `planted` names
    what is wrong with the machine during `machine`; it makes a training another one.
    """

    def __init__(
        self,
        folder: Path,
        config: LoopConfig,
        *,
        planted: str = "",
        machine: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.inputs = Inputs.of(config, None)
        self.trained = 0
        self._folder, self._config, self._planted, self._machine = folder, config, planted, machine
        self._local = LocalBackend(config, self.inputs, Silent())
        self.holdout: DataSet | None = None
        if config.holdout is not None:
            self.holdout = examples.load(
                config.holdout, "holdout", config.folder, config.columns, None
            )

    def __call__(self, config: LoopConfig, inputs: Inputs, progress: Progress) -> KeptBackend:  # noqa: ARG002
        """Itself: the loops that share it differ in nothing but their settings and policy."""
        return self

    def trial(self, settings: Settings, name: str = "trial") -> Trial:
        """The training with these settings: read, or trained now and kept."""
        path = self._folder / f"{self._key(settings)}.pickle"
        if not path.is_file():
            made = self._train(settings, name)
            self.trained += 1
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, pickle.dumps(made))
        found = pickle.loads(path.read_bytes())  # written by this very class
        assert isinstance(found, Trial)
        return found

    def train(
        self,
        settings: Settings,
        *,
        name: str,
        adapter: Path | None = None,  # noqa: ARG002
        base_eval_loss: float | None = None,  # noqa: ARG002
        pace: Pace | None = None,  # noqa: ARG002
        metric: str = "eval_loss",  # noqa: ARG002
        keep: Callable[[Run], object] | None = None,  # noqa: ARG002
    ) -> Run:
        """See `Backend`."""
        return self.trial(settings, name).run

    def measure(
        self,
        settings: Settings,
        adapter: Path,  # noqa: ARG002
        examples: DataSet,
    ) -> tuple[ExampleResult, ...]:
        """See `Backend`; the loop's own holdout only."""
        assert self.holdout is not None
        assert examples.sha256 == self.holdout.sha256
        return self.trial(settings).holdout

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """See `Backend`; no adapter is kept that could be measured again."""
        raise NotImplementedError

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """See `Backend`."""
        return self._local.measure_base(settings)

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """See `Backend`."""
        return self._local.environment(settings)

    def _key(self, settings: Settings) -> str:
        decisive = [self.inputs.fingerprint(self._config, settings), self._planted]
        if self.holdout is not None:
            decisive.append(self.holdout.sha256)
        return hashlib.sha256(" ".join(decisive).encode()).hexdigest()[:20]

    def _train(self, settings: Settings, name: str) -> Trial:
        with tempfile.TemporaryDirectory() as folder, self._machine():
            adapter = Path(folder) / "adapter"
            run = self._local.train(settings, name=name, adapter=adapter)
            if self.holdout is None or not run.training.best_step:
                return Trial(run)
            return Trial(run, self._local.measure(settings, adapter, self.holdout))
