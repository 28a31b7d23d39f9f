"""A backend whose trainings are each made by several processes, one per device.

A launcher (torchrun, `accelerate launch`, `srun`) starts `ftloop worker SPEC` as often as the loop
file says. Each of these ranks trains as this process would, with its part of each batch; the first
writes what it does and the run beside the spec.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import ConfigError, shown_path
from pytest_ftloop.core.ranks import processes_of
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.evaluate.judge import JudgeScorer
from pytest_ftloop.loop.executor import WorkerError
from pytest_ftloop.loop.launcher import Launched, command_of, how_it_ended
from pytest_ftloop.loop.spec import (
    RUN,
    UNSCORED,
    AtWork,
    Spec,
    read_error,
    read_found,
    read_progress,
    read_run,
    sweep_specs,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.local_backend import LocalBackend
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.task import FoundAll, ToMeasure

LOOKS_EVERY_S = 0.1
"""Seconds between two looks at the processes: a training takes at least several seconds."""

OUTPUT = "output.txt"
"""The file beside a spec for what launcher and processes print."""


class LaunchedBackend:
    """Trains each run in several processes. What needs no training is measured `here`, by one."""

    def __init__(
        self, config: LoopConfig, inputs: Inputs, progress: Progress, here: LocalBackend
    ) -> None:
        self._config, self._inputs, self._progress, self.here = config, inputs, progress, here

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """See `Backend`."""
        check_launchable(self._config, self._inputs)
        count = processes_of(settings)
        where = self._config.locate("loop.launcher")
        loop = self._config.loop
        command = command_of(loop.launcher, count, self._config.folder, where)
        self.here.release()  # its memory, of the device too, is the processes' now
        sweep_specs()
        with _folder() as folder, temporary_folder() as temporary:
            file = self._spec(settings, how).write(folder)
            self._progress.working(f"starting {count} processes")
            launched = Launched(command, file, count, folder / OUTPUT, temporary)
            try:
                while (code := launched.ended()) is None:
                    self._show(folder)
                    time.sleep(LOOKS_EVERY_S)
            finally:
                launched.close()
            return self._run(folder, code, launched.said(), how.get("keep"))

    def _spec(self, settings: Settings, how: How) -> Spec:
        adapter = how.get("adapter")
        return Spec(
            loop_file=str(self._config.file.absolute()),
            log="",
            fingerprint=self._inputs.fingerprint(self._config, settings),
            settings=settings,
            name=how["name"],
            adapter=str(adapter.absolute()) if adapter else "",
            metric=how.get("metric", "eval_loss"),
            base_eval_loss=how.get("base_eval_loss"),
            start=self._inputs.start.as_text() if self._inputs.start else {},
            pace=how.get("pace"),
            ranks=True,
        )

    def _show(self, folder: Path) -> None:
        self.here.told.found(read_found(folder))
        now = read_progress(folder) or AtWork()
        if now.step:
            self._progress.step(now.step, now.steps, now.loss)
        elif now.what:
            self._progress.working(now.what)

    def _run(self, folder: Path, code: int, said: str, keep: Callable[[Run], object] | None) -> Run:
        """The run of processes that have ended. Raises what ended them."""
        self.here.told.found(read_found(folder))
        if (run := read_run(folder / RUN)) is not None:
            return run
        if keep is not None and (unscored := read_run(folder / UNSCORED)) is not None:
            keep(unscored)
        if (error := read_error(folder)) is not None:
            raise error
        raise WorkerError(
            f"loop.processes: {how_it_ended(code, said)}",
            where=self._config.locate("loop.processes"),
            cure=f"What they printed is in {shown_path(folder / OUTPUT)}. The next run goes on "
            "from the last evaluation point.",
        )

    # --- by this process alone ---------------------------------------------------------------

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        """See `Backend`."""
        return self.here.measure(settings, adapter, examples)

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """See `Backend`."""
        return self.here.measure_missing(settings, adapter, missing)

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """See `Backend`."""
        return self.here.measure_base(settings)

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """See `Backend`."""
        return self.here.environment(settings)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one training, removed at the end, but for a crash: its output is to be read."""
    workers = cache_folder() / "workers"
    workers.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="ranks-", dir=workers))
    try:
        yield folder
    except WorkerError:
        raise
    except BaseException:
        rmtree(folder, ignore_errors=True)
        raise
    else:
        rmtree(folder, ignore_errors=True)


def check_launchable(config: LoopConfig, inputs: Inputs) -> None:
    """Raise `ConfigError` for a loop that other processes can't read and score by themselves."""
    scorings = [config.scoring, *(guard.scoring for guard in config.guards if guard.scoring)]
    scorers = [inputs.scorer, *(guard.scorer for guard in inputs.guards)]
    why = ""
    if not config.lines:
        why = "the loop is made in Python, whose objects only this process has"
    elif any(scoring.scorer == "hook" for scoring in scorings):
        why = "the scorer 'hook' needs pytest (module:function works)"
    elif any(isinstance(scorer, JudgeScorer) for scorer in scorers):
        why = "the judge's answers are kept by this process"
    if why:
        raise ConfigError(
            f"loop.processes: a run can't be trained by other processes: {why}",
            where=config.locate("loop.processes"),
            cure="Write a loop file with another scorer, or leave out loop.processes.",
        )
