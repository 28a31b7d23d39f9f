"""A backend that trains ahead: what a loop will ask for next is trained by workers at once.

The loop itself goes on as ever, one training after the other, and is the only writer of its log. It
finds that some of its trainings are complete, or under way. So its log is the one that it would
write without workers, but for times and threads. What is not begun ahead is trained in this
process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import TrainingError
from pytest_ftloop.core.progress import Progress, ToldOnce
from pytest_ftloop.evaluate.judge import JudgeScorer
from pytest_ftloop.loop.executor import WorkerError
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.spec import (
    RUN,
    UNSCORED,
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
    from pytest_ftloop.core.records import (
        BaseMeasured,
        DataSet,
        ExampleResult,
        Run,
        Settings,
        Training,
    )
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.executor import Executor, ExecutorFactory, Handle
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.early_end import Pace
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.task import FoundAll, ToMeasure

LOOKS_EVERY_S = 0.1
"""Seconds between two looks at the workers: a training takes at least several seconds."""

TRIES = 2
"""Times that a training is submitted whose worker is killed: two at once may need too much memory,
and the second time it may be alone."""


@dataclass(frozen=True)
class Ahead:
    """A training that the loop will ask for: the arguments of `Backend.train`, and a label.

    The `label` is for the screen.
    """

    settings: Settings
    name: str
    adapter: Path
    metric: str
    label: str
    base_eval_loss: float | None = None


Begin = Callable[[Sequence[Ahead]], bool]
"""Begins trainings in workers; returns whether it did."""


@dataclass
class _Begun:
    """A training that is submitted to the executor, for the `tries`th time."""

    ahead: Ahead
    spec: Spec
    handle: Handle
    tries: int = 1


class AheadBackend:
    """Trains ahead in workers what is begun, and all else in this process: `here`.

    `executor` makes what runs the workers, `count` at once. `log` is the folder of the loop's log.
    With `afresh`, runs of an earlier, interrupted process are not taken. It has more than ten
    methods: those of `Backend`, those that `working_ahead` calls, and the steps of both.
    """

    def __init__(
        self,
        config: LoopConfig,
        inputs: Inputs,
        progress: Progress,
        here: Backend,
        executor: ExecutorFactory,
        count: int,
        log: Path,
        *,
        afresh: bool = False,
    ) -> None:
        self._config, self._inputs, self._progress = config, inputs, progress
        self.here, self._make, self.count = here, executor, count
        self._log, self._afresh = log, afresh
        self._executor: Executor | None = None
        self._begun: dict[str, _Begun] = {}
        self._taken: list[Spec] = []
        # What a training here has shown is not shown again because workers find it too.
        own = ToldOnce(config.name, progress)
        self._told = here.told if isinstance(here, LocalBackend) else own

    # --- what is begun -----------------------------------------------------------------------

    def begin(self, trainings: Sequence[Ahead]) -> bool:
        """Have workers train these, in this order, as far as they are not begun; whether they do.

        One alone is left to this process: it is no faster elsewhere.
        """
        new = [a for a in trainings if self._key(a.settings) not in self._begun]
        if len(new) + len(self._begun) < 2:
            return False
        if self._executor is None:
            if isinstance(self.here, LocalBackend):
                self.here.release()  # its memory, of the device too, is the workers' now
            sweep_specs()
            self._executor = self._make(self.count)
        for ahead in new:
            self._begun[self._key(ahead.settings)] = self._submitted(ahead)
        return True

    def end(self, *, logged: bool) -> None:
        """End the workers. If all that was taken is `logged`, forget its files."""
        if self._executor is not None:
            self._executor.close()
        self._executor, self._begun = None, {}
        if logged:
            self._forget_taken()
        self._taken = []

    def finish_running(self) -> None:
        """Wait for what is running: another training failed, and its runs are kept in the cache."""
        for begun in self._begun.values():
            if read_progress(begun.spec.folder) is None:
                begun.handle.cancel()  # it has not started yet
        while any(begun.handle.ended() is None for begun in self._started()):
            self._show()
            time.sleep(LOOKS_EVERY_S)

    def _started(self) -> Iterator[_Begun]:
        for begun in self._begun.values():
            if read_progress(begun.spec.folder) is not None:
                yield begun

    def _key(self, settings: Settings) -> str:
        return self._inputs.fingerprint(self._config, settings)

    def _submitted(self, ahead: Ahead) -> _Begun:
        spec = Spec(
            loop_file=str(self._config.file.absolute()),
            log=str(self._log.absolute()),
            fingerprint=self._key(ahead.settings),
            settings=ahead.settings,
            name=ahead.name,
            adapter=str(ahead.adapter.absolute()),
            metric=ahead.metric,
            base_eval_loss=ahead.base_eval_loss,
            afresh=self._afresh,
            start=self._inputs.start.as_text() if self._inputs.start else {},
        )
        assert self._executor is not None
        return _Begun(ahead, spec, self._executor.submit(spec.write()))

    # --- Backend -----------------------------------------------------------------------------

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """See `Backend`. Takes the worker's run, if it is the one that training here would give."""
        self._forget_taken()  # the loop asks for the next one when it has logged the last
        begun = self._begun.get(self._key(settings))
        if begun is not None and _is_same(begun.ahead, how):
            run = self._of_worker(begun, how.get("keep"))
            if (pace := how.get("pace")) is None or not _would_end(run.training, pace):
                return run
        elif begun is not None:
            begun.handle.cancel()
            self._begun.pop(self._key(settings))
        return self.here.train(settings, **how)

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

    # --- waiting for a worker ----------------------------------------------------------------

    def _of_worker(self, begun: _Begun, keep: Callable[[Run], object] | None) -> Run:
        """The run of a worker, once it is complete. Raises what ended it."""
        while (ended := begun.handle.ended()) is None:
            self._show()
            time.sleep(LOOKS_EVERY_S)
        folder = begun.spec.folder
        self._told.found(read_found(folder))
        if ended.again and begun.tries < TRIES:
            self._progress.working(f"{begun.ahead.label}: its worker {ended.why}; trying again")
            assert self._executor is not None
            begun.handle, begun.tries = self._executor.submit(begun.spec.write()), begun.tries + 1
            return self._of_worker(begun, keep)
        del self._begun[begun.spec.fingerprint]
        if (run := read_run(folder / RUN)) is not None:
            self._taken.append(begun.spec)
            return run
        if keep is not None and (unscored := read_run(folder / UNSCORED)) is not None:
            keep(unscored)
        if (error := read_error(folder)) is not None:
            raise error
        raise WorkerError(
            f"{begun.ahead.label}: its worker {ended.why or 'wrote a run that cannot be read'}",
            where=self._config.locate("loop.parallel"),
            cure="The other trainings are kept, and the next run continues from them. If memory "
            "does not suffice for so many at once, lower loop.parallel (--ftloop-parallel N).",
        )

    def _show(self) -> None:
        at_work, waiting = [], 0
        for begun in self._begun.values():
            now = read_progress(begun.spec.folder)
            if now is None:
                waiting += 1
            elif begun.handle.ended() is None:
                self._told.found(read_found(begun.spec.folder))
                at_work.append((begun.ahead.label, now.text))
        self._progress.together(self._config.name, at_work, waiting)

    def _forget_taken(self) -> None:
        for spec in self._taken:
            rmtree(spec.folder, ignore_errors=True)
        self._taken = []


def _is_same(ahead: Ahead, how: How) -> bool:
    """Whether a training that was begun is the one that is asked for now."""
    adapter, metric = how.get("adapter"), how.get("metric", "eval_loss")
    asked = (adapter and adapter.absolute(), metric, how.get("base_eval_loss"))
    return (ahead.adapter.absolute(), ahead.metric, ahead.base_eval_loss) == asked


def _would_end(training: Training, pace: Pace) -> bool:
    """Whether a run that no pace was known for would have been ended early by this one."""
    points = training.evals
    return any(pace.hopeless(points[:n], training.planned_steps) for n in range(2, len(points) + 1))


def why_not_ahead(config: LoopConfig, inputs: Inputs) -> str:
    """Why a loop's trainings can't be given to other processes; empty if they can."""
    if not config.lines:
        return "the loop is made in Python, whose objects only this process has"
    if config.loop.processes > 1:
        return f"each takes {config.loop.processes} processes (loop.processes)"
    scorings = [config.scoring, *(guard.scoring for guard in config.guards if guard.scoring)]
    if any(scoring.scorer == "hook" for scoring in scorings):
        return "the scorer 'hook' needs pytest (module:function works)"
    scorers = [inputs.scorer, *(guard.scorer for guard in inputs.guards)]
    if any(isinstance(scorer, JudgeScorer) for scorer in scorers):
        return "a judge's answers are kept by one process"
    return ""


def workers_of(backend: Backend) -> int:
    """The number of trainings that a backend begins at once."""
    return backend.count if isinstance(backend, AheadBackend) else 1


@contextmanager
def working_ahead(backend: Backend) -> Iterator[Begin]:
    """Give the function that begins trainings in workers; after the block no worker is left.

    If a training fails, those that run are finished first; after Ctrl-C they are not. Without
    workers nothing is begun.
    """
    if not isinstance(backend, AheadBackend):
        yield lambda _: False
        return
    logged = False
    try:
        yield backend.begin
        logged = True
    except TrainingError:
        backend.finish_running()
        raise
    finally:
        backend.end(logged=logged)


def are_reported(settings: Settings) -> bool:
    """Whether runs are reported to trackers, which would show one that is begun in vain."""
    reported = settings.training.get("report_to", "none")
    return reported not in ("none", None, [], ["none"])
