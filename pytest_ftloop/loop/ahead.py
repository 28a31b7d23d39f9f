"""A backend that trains ahead: what a loop will ask for next is trained by workers at once.

The loop itself goes on as ever, one training after the other, and is the only writer of its log. It
finds that some of its trainings are complete, or under way. So its log is the one that it would
write without workers, but for times and threads. What is not begun ahead is trained in this
process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import forget_unfinished
from pytest_ftloop.core.errors import FtloopError, TrainingError
from pytest_ftloop.core.progress import Progress, ToldOnce
from pytest_ftloop.core.records import Run
from pytest_ftloop.evaluate.judge import JudgeScorer
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.pool import Prospect, Workers, has_failed, is_kept
from pytest_ftloop.loop.spec import Spec, read_found
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
    from pytest_ftloop.loop.executor import ExecutorFactory
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.pool import Kind
    from pytest_ftloop.train.early_end import Pace
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.task import FoundAll, ToMeasure


@dataclass(frozen=True)
class Ahead:
    """A training that the loop will ask for: the arguments of `Backend.train`, and a label.

    The `label` is for the screen. The `pace` and `base_eval_loss` are what is known when it is
    begun: the loop may ask with others. If it is a `guess`, the loop may not ask for it at all.
    """

    settings: Settings
    name: str
    adapter: Path
    metric: str
    label: str
    base_eval_loss: float | None = None
    pace: Pace | None = None
    guess: bool = False


DECIDE_NOTHING = frozenset(
    {
        *("learning_rate", "warmup_steps", "weight_decay", "lr_scheduler_type", "max_grad_norm"),
        *("num_train_epochs", "max_steps", "eval_steps", "seed", "data_seed"),
        *("per_device_train_batch_size", "gradient_accumulation_steps"),
    }
)
"""Settings of trl's that change nothing about device, precision and versions. Those of LoRA don't
either; of the others any may."""

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
    the loop's log. With `afresh`, runs of an earlier, interrupted process are not taken. `workers`
    are those that the loops of a run share; without, they are the loop's own. It has more than ten
    methods: those of `Backend`, those that `working_ahead` calls, and the steps of both.
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
        workers: Workers | None = None,
    ) -> None:
        self._config, self._inputs, self._progress = config, inputs, progress
        self.here, self._make, self._room = here, executor, room
        self._log, self._afresh = log, afresh
        self._workers = workers or Workers()
        # What others train beside it makes a training longer, and a time budget counts that; and a
        # tracker shows a run that is begun in vain.
        alone = config.loop.time_budget_s is not None or are_reported(config.settings)
        self.shares = workers is not None and not alone
        self._begun: dict[str, _Begun] = {}
        self._taken: list[Spec] = []
        self._environments: dict[str, Mapping[str, str]] = {}
        # What a training here has shown is not shown again because workers find it too.
        own = ToldOnce(config.name, progress)
        self._told = here.told if isinstance(here, LocalBackend) else own

    # --- what is begun -----------------------------------------------------------------------

    @cached_property
    def count(self) -> int:
        """How many trainings run at once. An engine is asked only where something is to train."""
        return self._room()

    @property
    def kind(self) -> Kind:
        """The workers that it has its trainings done by."""
        return self._make, self.count

    def prospect(self, trainings: Sequence[Ahead]) -> Prospect:
        """These trainings as those that workers may begin before the loop's turn."""
        named = [(self._spec(a), f"{self._config.name}: {a.label}") for a in trainings]
        return Prospect(self.kind, tuple(named))

    def begin(self, trainings: Sequence[Ahead]) -> bool:
        """Have workers train these, in this order, as far as they are not begun; whether they do.

        What else is under way is not wanted any more, and ends. One alone, with none of another
        loop beside it, is left to this process: it is no faster elsewhere.
        """
        if self.shares and self._workers.finds_more(self.kind):
            # What another loop certainly trains comes before what this one may not ask for.
            trainings = [
                a for a in trainings if not a.guess or self._key(a.settings) in self._begun
            ]
        # Nor are weights guessed that another loop trains: two at once would write the same files.
        trainings = [a for a in trainings if not a.guess or not self._workers.trains(_adapter(a))]
        self._end_others({self._key(ahead.settings) for ahead in trainings})
        specs = {self._key(ahead.settings): self._spec(ahead) for ahead in trainings}
        for ahead in trainings:
            self._take_over(ahead, specs[self._key(ahead.settings)])
        new = [spec for key, spec in specs.items() if key not in self._begun]
        if len(new) + len(self._begun) < 2 and not self._is_joined(new):
            self._workers.make_room()
            return False
        if not self._workers.is_open(self.kind) and isinstance(self.here, LocalBackend):
            self.here.release()  # its memory, of the device too, is the workers' now
        executor = self._workers.open(self.kind)
        self._end_waiting(trainings)
        for ahead in trainings:
            key = self._key(ahead.settings)
            self._workers.use(specs[key].adapter)
            if (known := self._begun.get(key)) is None:
                at = Submitted.to(executor, specs[key], ahead.label)
                self._begun[key] = _Begun(ahead, at)
            else:  # it was a guess perhaps, and was right
                known.says(ahead)
        self._fill()
        return True

    def _end_waiting(self, trainings: Sequence[Ahead]) -> None:
        """Withdraw what still waits and lacks what is known now: a better pace, or the base.

        It would be trained beyond where the loop ends it, and then again; or measure the base.
        """
        for ahead in trainings:
            begun = self._begun.get(self._key(ahead.settings))
            if begun is None or begun.at.now is not None or _knows(begun.ahead) == _knows(ahead):
                continue
            if begun.at.handle.ended() is None:
                begun.at.handle.cancel()
                del self._begun[self._key(ahead.settings)]

    def _take_over(self, ahead: Ahead, spec: Spec) -> None:
        """Take over a training that was begun before this loop's turn, with what was known then."""
        if (at := self._workers.take(spec)) is not None:
            ahead = replace(ahead, pace=at.spec.pace, base_eval_loss=at.spec.base_eval_loss)
            self._begun[spec.fingerprint] = _Begun(ahead, at)

    def _is_joined(self, new: Sequence[Spec]) -> bool:
        """Whether a training that is alone goes to a worker: it is there, or others go with it."""
        if not new:
            return bool(self._begun)
        if is_kept(new[0]) and not self._afresh:
            return True  # a worker takes the run of an earlier process
        return self.shares and (self._workers.is_busy() or self._workers.finds_more(self.kind))

    def _fill(self) -> None:
        if self.shares:
            self._workers.fill([begun.at for begun in self._begun.values()])

    def end(self, *, logged: bool) -> None:
        """End what runs for this loop. If all is `logged`, forget its files, and the rest's."""
        if logged:
            self._end_others(frozenset())
        for begun in reversed(self._begun.values()):  # what waits before what runs
            begun.at.handle.cancel()
        self._begun = {}
        self._workers.rest()
        if logged:
            self._forget_taken()
        self._taken = []

    def _end_others(self, wanted: Set[str]) -> None:
        """End what is not wanted. A run that is complete is kept: it may be wanted later.

        So is nothing else, as a training that goes on from a step says so in the log. A guess that
        failed is begun again if it is wanted: what it was begun beside may be the reason.
        """
        for key, begun in list(self._begun.items()):
            at = begun.at
            if has_failed(at) and (begun.ahead.guess or key not in wanted):
                self._dropped(self._begun.pop(key))
            elif key not in wanted and at.handle.ended() is None:
                self._dropped(self._begun.pop(key))
                forget_unfinished(Path(at.spec.adapter).name)

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

    def _spec(self, ahead: Ahead) -> Spec:
        return Spec(
            loop_file=str(self._config.file.absolute()),
            log=str(self._log.absolute()),
            fingerprint=self._key(ahead.settings),
            settings=ahead.settings,
            name=ahead.name,
            adapter=_adapter(ahead),
            metric=ahead.metric,
            base_eval_loss=ahead.base_eval_loss,
            pace=ahead.pace,
            afresh=self._afresh,
            start=self._inputs.start.as_text() if self._inputs.start else {},
        )

    # --- Backend -----------------------------------------------------------------------------

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """See `Backend`. Takes the worker's run, if it is the one that training here would give."""
        self._forget_taken()  # the loop asks for the next one when it has logged the last
        begun = self._begun.get(self._key(settings))
        if begun is not None and _is_same(begun.ahead, how):
            run = self._of_worker(begun, how)
            if not ended_in_time(run.training, pace := how.get("pace")):
                base = how.get("base_eval_loss")
                ahead = replace(begun.ahead, pace=pace, base_eval_loss=base)
                at = Submitted.to(self._workers.open(self.kind), self._spec(ahead), ahead.label)
                self._begun[self._key(settings)] = again = _Begun(ahead, at)
                run = self._of_worker(again, how)
            return run
        if begun is not None:
            self._dropped(self._begun.pop(self._key(settings)))
        if (adapter := how.get("adapter")) is not None:
            self._workers.use(str(adapter.absolute()))
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
        """See `Backend`. As a worker has told it, if one has: asking here loads torch."""
        told = self._environments.get(_deciding(settings))
        return told if told is not None else self.here.environment(settings)

    # --- waiting for a worker ----------------------------------------------------------------

    def _of_worker(self, begun: _Begun, how: How) -> Run:
        """The run of a worker, once it is complete. Raises what ended it."""
        at, keep = begun.at, how.get("keep")
        ended = at.wait(self._show, self._progress.working)
        self._told.found(read_found(at.spec.folder))
        del self._begun[at.spec.fingerprint]
        try:
            run: Run = at.answer(Run, ended, self._config.locate("loop.parallel"), CURE)
        except FtloopError:
            if keep is not None and (unscored := at.unscored()) is not None:
                keep(_as_asked(unscored, how))
            raise
        self._taken.append(at.spec)
        self._environments[_deciding(at.spec.settings)] = run.environment
        return _as_asked(run, how)

    def _show(self) -> None:
        self._fill()
        at_work, waiting = [], 0
        for begun in self._begun.values():
            now = begun.at.now
            if now is None and begun.at.waits:
                at_work.append((begun.ahead.label, begun.at.waits))
            elif now is None:
                waiting += 1
            elif begun.at.handle.ended() is None:
                if not begun.ahead.guess:
                    self._told.found(read_found(begun.at.spec.folder))
                at_work.append((begun.ahead.label, now.text))
        others, more = self._workers.shown()
        self._progress.together(self._config.name, [*at_work, *others], waiting + more)

    def _dropped(self, begun: _Begun) -> None:
        begun.at.handle.cancel()
        rmtree(begun.at.spec.folder, ignore_errors=True)

    def _forget_taken(self) -> None:
        for spec in self._taken:
            rmtree(spec.folder, ignore_errors=True)
        self._taken = []


def _knows(ahead: Ahead) -> tuple[Pace | None, float | None]:
    return ahead.pace, ahead.base_eval_loss


def _deciding(settings: Settings) -> str:
    """The settings that may decide device, precision and versions."""
    stated = {name: v for name, v in settings.training.items() if name not in DECIDE_NOTHING}
    return json.dumps(stated, sort_keys=True, default=str)


def _adapter(ahead: Ahead) -> str:
    return str(ahead.adapter.absolute())


def _is_same(ahead: Ahead, how: How) -> bool:
    """Whether a training that was begun is the one that is asked for now.

    It is too if the base, which it measured, is known now.
    """
    adapter, metric = how.get("adapter"), how.get("metric", "eval_loss")
    asked = (adapter and adapter.absolute(), metric)
    is_base_known = ahead.base_eval_loss in (None, how.get("base_eval_loss"))
    return is_base_known and (ahead.adapter.absolute(), ahead.metric) == asked


def _as_asked(run: Run, how: How) -> Run:
    """The run without its measurement of the base, if that is known: in turn it had made none."""
    if (known := how.get("base_eval_loss")) is None:
        return run
    return replace(run, evaluation=replace(run.evaluation, base=None, base_eval_loss=known))


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
