"""A backend that trains ahead: what a loop will ask for next is trained by workers at once.

The loop itself goes on as ever, one training after the other, and is the only writer of its log. It
finds that some of its trainings are complete, or under way. So its log is the one that it would
write without workers, but for times and threads. What is not begun ahead is trained in this
process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import FtloopError, TrainingError
from pytest_ftloop.core.progress import Progress, ToldOnce
from pytest_ftloop.core.records import Run
from pytest_ftloop.evaluate.judge import JudgeScorer
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.spec import Spec, read_found, sweep_specs
from pytest_ftloop.loop.submitted import LOOKS_EVERY_S, Submitted
from pytest_ftloop.train.early_end import ended_in_time

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import (
        BaseMeasured,
        DataSet,
        ExampleResult,
        Settings,
    )
    from pytest_ftloop.loop.backend import Backend
    from pytest_ftloop.loop.executor import Executor, ExecutorFactory
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.train.early_end import Pace
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.task import FoundAll, ToMeasure


@dataclass(frozen=True)
class Ahead:
    """A training that the loop will ask for: the arguments of `Backend.train`, and a label.

    The `label` is for the screen. The `pace` is that of the best iteration when it is begun: the
    loop may ask with another one. If it is a `guess`, the loop may not ask for it at all.
    """

    settings: Settings
    name: str
    adapter: Path
    metric: str
    label: str
    base_eval_loss: float | None = None
    pace: Pace | None = None
    guess: bool = False


CURE = (
    "The other trainings are kept, and the next run continues from them. If memory does not "
    "suffice for so many at once, lower loop.parallel (--ftloop-parallel N)."
)
"""What to do about a worker without a result."""

Begin = Callable[[Sequence[Ahead]], bool]
"""Begins trainings in workers; returns whether it did."""


@dataclass
class _Begun:
    """A training that was begun, and what the loop will ask for when it asks for it."""

    ahead: Ahead
    at: Submitted

    def says(self, ahead: Ahead) -> None:
        """Take over what is known now of the place of this training in the loop."""
        self.ahead = replace(self.ahead, label=ahead.label, guess=ahead.guess)
        self.at.label = ahead.label


class AheadBackend:
    """Trains ahead in workers what is begun, and all else in this process: `here`.

    `executor` makes what runs the workers, as many at once as `room` says. `log` is the folder of
    the loop's log. With `afresh`, runs of an earlier, interrupted process are not taken. It has
    more than ten methods: those of `Backend`, those that `working_ahead` calls, and the steps of
    both.
    """

    def __init__(
        self,
        config: LoopConfig,
        inputs: Inputs,
        progress: Progress,
        here: Backend,
        executor: ExecutorFactory,
        room: Callable[[], int],
        log: Path,
        *,
        afresh: bool = False,
    ) -> None:
        self._config, self._inputs, self._progress = config, inputs, progress
        self.here, self._make, self._room = here, executor, room
        self._log, self._afresh = log, afresh
        self._executor: Executor | None = None
        self._begun: dict[str, _Begun] = {}
        self._taken: list[Spec] = []
        # What a training here has shown is not shown again because workers find it too.
        own = ToldOnce(config.name, progress)
        self._told = here.told if isinstance(here, LocalBackend) else own

    # --- what is begun -----------------------------------------------------------------------

    @cached_property
    def count(self) -> int:
        """How many trainings run at once. An engine is asked only where something is to train."""
        return self._room()

    def begin(self, trainings: Sequence[Ahead]) -> bool:
        """Have workers train these, in this order, as far as they are not begun; whether they do.

        What else is under way is not wanted any more, and ends. One alone is left to this process:
        it is no faster elsewhere.
        """
        self._end_others({self._key(ahead.settings) for ahead in trainings})
        new = [a for a in trainings if self._key(a.settings) not in self._begun]
        if len(new) + len(self._begun) < 2:
            return False
        if self._executor is None:
            if isinstance(self.here, LocalBackend):
                self.here.release()  # its memory, of the device too, is the workers' now
            sweep_specs()
            self._executor = self._make(self.count)
        for ahead in trainings:
            if (known := self._begun.get(self._key(ahead.settings))) is None:
                self._begun[self._key(ahead.settings)] = self._submitted(ahead)
            else:  # it was a guess perhaps, and was right
                known.says(ahead)
        return True

    def end(self, *, logged: bool) -> None:
        """End the workers. If all that was wanted is `logged`, forget its files, and the rest's."""
        if logged:
            self._end_others(frozenset())
        if self._executor is not None:
            self._executor.close()
        self._executor, self._begun = None, {}
        if logged:
            self._forget_taken()
        self._taken = []

    def _end_others(self, wanted: Set[str]) -> None:
        """End what is not wanted. A run that is complete is kept: it may be wanted later."""
        for key in [key for key in self._begun if key not in wanted]:
            if self._begun[key].at.handle.ended() is None:
                self._dropped(self._begun.pop(key))

    def finish_running(self) -> None:
        """Wait for what is running: another training failed, and its runs are kept in the cache.

        Not for what has not started, nor for guesses.
        """
        for begun in self._begun.values():
            if begun.at.now is None or begun.ahead.guess:
                begun.at.handle.cancel()
        while any(begun.at.handle.ended() is None for begun in self._started()):
            self._show()
            time.sleep(LOOKS_EVERY_S)

    def _started(self) -> Iterator[_Begun]:
        for begun in self._begun.values():
            if begun.at.now is not None:
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
            pace=ahead.pace,
            afresh=self._afresh,
            start=self._inputs.start.as_text() if self._inputs.start else {},
        )
        assert self._executor is not None
        return _Begun(ahead, Submitted.to(self._executor, spec, ahead.label))

    # --- Backend -----------------------------------------------------------------------------

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """See `Backend`. Takes the worker's run, if it is the one that training here would give."""
        self._forget_taken()  # the loop asks for the next one when it has logged the last
        begun = self._begun.get(self._key(settings))
        if begun is not None and _is_same(begun.ahead, how):
            run = self._of_worker(begun, how.get("keep"))
            if not ended_in_time(run.training, pace := how.get("pace")):
                again = self._submitted(replace(begun.ahead, pace=pace))
                self._begun[self._key(settings)] = again
                run = self._of_worker(again, how.get("keep"))
            return run
        if begun is not None:
            self._dropped(self._begun.pop(self._key(settings)))
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
        at = begun.at
        ended = at.wait(self._show, self._progress.working)
        self._told.found(read_found(at.spec.folder))
        del self._begun[at.spec.fingerprint]
        try:
            run: Run = at.answer(Run, ended, self._config.locate("loop.parallel"), CURE)
        except FtloopError:
            if keep is not None and (unscored := at.unscored()) is not None:
                keep(unscored)
            raise
        self._taken.append(at.spec)
        return run

    def _show(self) -> None:
        at_work, waiting = [], 0
        for begun in self._begun.values():
            now = begun.at.now
            if now is None and begun.at.waits:
                at_work.append((begun.ahead.label, begun.at.waits))
            elif now is None:
                waiting += 1
            elif begun.at.handle.ended() is None:
                self._told.found(read_found(begun.at.spec.folder))
                at_work.append((begun.ahead.label, now.text))
        self._progress.together(self._config.name, at_work, waiting)

    def _dropped(self, begun: _Begun) -> None:
        begun.at.handle.cancel()
        rmtree(begun.at.spec.folder, ignore_errors=True)

    def _forget_taken(self) -> None:
        for spec in self._taken:
            rmtree(spec.folder, ignore_errors=True)
        self._taken = []


def _is_same(ahead: Ahead, how: How) -> bool:
    """Whether a training that was begun is the one that is asked for now."""
    adapter, metric = how.get("adapter"), how.get("metric", "eval_loss")
    asked = (adapter and adapter.absolute(), metric, how.get("base_eval_loss"))
    return (ahead.adapter.absolute(), ahead.metric, ahead.base_eval_loss) == asked


def why_not_ahead(config: LoopConfig, inputs: Inputs) -> str:
    """Why a loop's trainings can't be given to workers of this machine; empty if they can."""
    if config.lines and config.loop.processes > 1:
        return f"each takes {config.loop.processes} processes (loop.processes)"
    return why_not_sent(config, inputs)


def why_not_sent(config: LoopConfig, inputs: Inputs) -> str:
    """Why a loop's trainings can't be given to other processes at all; empty if they can."""
    if not config.lines:
        return "the loop is made in Python, whose objects only this process has"
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
