"""A backend whose every call is a spec: an executor's workers train and measure, this process none.

So what is measured beside the trainings (the base, a holdout, missing rows) is measured in their
environment, and the loop's own process needs no device, and no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.progress import ToldOnce
from pytest_ftloop.loop.asked import ANSWERS, holdout_rows, missing_rows
from pytest_ftloop.loop.spec import Spec, read_found, sweep_specs
from pytest_ftloop.loop.submitted import Submitted

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress
    from pytest_ftloop.core.records import BaseMeasured, DataSet, ExampleResult, Run, Settings
    from pytest_ftloop.loop.executor import Executor, ExecutorFactory
    from pytest_ftloop.loop.inputs import Inputs
    from pytest_ftloop.loop.spec import Asks
    from pytest_ftloop.train.how import How
    from pytest_ftloop.train.task import FoundAll, ToMeasure

CURE = "What is in the log is kept: the next run continues from it."


class RemoteBackend:
    """Asks the workers of an executor, one thing at a time. See `Backend` for the methods.

    `make` makes the executor, which is open from the first call to `end`. `log` is the folder of
    the loop's log. With `afresh`, runs of an earlier, interrupted process are not taken.
    """

    def __init__(
        self,
        config: LoopConfig,
        inputs: Inputs,
        progress: Progress,
        make: ExecutorFactory,
        log: Path,
        *,
        afresh: bool = False,
    ) -> None:
        self._config, self._inputs, self._progress = config, inputs, progress
        self._make, self._log, self._afresh = make, log, afresh
        self._told = ToldOnce(config.name, progress)
        self._executor: Executor | None = None
        self._environments: dict[str, Mapping[str, str]] = {}
        self._taken: list[Spec] = []

    def train(self, settings: Settings, **how: Unpack[How]) -> Run:
        """See `Backend`. `keep` is called with a run only where its scoring has failed."""
        self._forget_taken()  # the loop asks for the next one when it has logged the last
        adapter, keep = how.get("adapter"), how.get("keep")
        run: Run = self._ask(
            "train",
            settings,
            keep=keep,
            name=how["name"],
            adapter=str(adapter.absolute()) if adapter else "",
            metric=how.get("metric", "eval_loss"),
            base_eval_loss=how.get("base_eval_loss"),
            pace=how.get("pace"),
            afresh=self._afresh,
        )
        return run

    def measure(
        self, settings: Settings, adapter: Path, examples: DataSet
    ) -> tuple[ExampleResult, ...]:
        """See `Backend`. Only of the holdout."""
        rows = holdout_rows(examples)
        found: tuple[ExampleResult, ...] = self._ask(
            "measure", settings, adapter=str(adapter.absolute()), rows=rows
        )
        return found

    def measure_missing(self, settings: Settings, adapter: Path, missing: ToMeasure) -> FoundAll:
        """See `Backend`."""
        rows = missing_rows(missing)
        found: FoundAll = self._ask(
            "measure_missing", settings, adapter=str(adapter.absolute()), rows=rows
        )
        return found

    def measure_base(self, settings: Settings) -> BaseMeasured:
        """See `Backend`."""
        found: BaseMeasured = self._ask("measure_base", settings)
        return found

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """See `Backend`. Of the worker that is asked: they should be alike."""
        key = json.dumps(asdict(settings), sort_keys=True, default=str)
        if key not in self._environments:
            found: Mapping[str, str] = self._ask("environment", settings)
            self._environments[key] = found
        return self._environments[key]

    def end(self, *, logged: bool) -> None:
        """End what runs, and close the executor. If all that was taken is `logged`, forget it."""
        if self._executor is not None:
            self._executor.close()
        self._executor = None
        if logged:
            self._forget_taken()
        self._taken = []

    def _ask(
        self,
        asks: Asks,
        settings: Settings,
        *,
        keep: Callable[[Run], object] | None = None,
        **more: Any,
    ) -> Any:
        if self._executor is None:
            self._executor = self._make(1)
            sweep_specs()
        stated = {"name": "", "adapter": "", "metric": "eval_loss", **more}
        spec = Spec(
            loop_file=str(self._config.file.absolute()),
            log=str(self._log.absolute()),
            fingerprint=self._inputs.fingerprint(self._config, settings),
            settings=settings,
            start=self._inputs.start.as_text() if self._inputs.start else {},
            asks=asks,
            **stated,
        )
        at = Submitted.to(self._executor, spec, self._config.name)
        ended = at.wait(lambda: self._show(at), self._progress.working)
        self._told.found(read_found(spec.folder))
        try:
            found = at.answer(ANSWERS[asks], ended, self._config.locate("loop.run_on"), CURE)
        except FtloopError:
            if keep is not None and (unscored := at.unscored()) is not None:
                keep(unscored)
            raise
        if asks == "train":
            self._taken.append(spec)
        else:
            rmtree(spec.folder, ignore_errors=True)
        return found

    def _show(self, at: Submitted) -> None:
        now = at.now
        if now is None:
            self._progress.working(at.waits or "waiting for a worker")
        elif now.step:
            self._progress.step(now.step, now.steps, now.loss)
        else:
            self._progress.working(now.what)
        self._told.found(read_found(at.spec.folder))

    def _forget_taken(self) -> None:
        for spec in self._taken:
            rmtree(spec.folder, ignore_errors=True)
        self._taken = []


@contextmanager
def ended_after(backends: Callable[[], object]) -> Iterator[None]:
    """End a remote backend after the block, whose result is in the log unless it raises.

    `backends` gives the backend at the end of the block: it may be made within.
    """
    logged = False
    try:
        yield
        logged = True
    finally:
        found = backends()
        remote = getattr(found, "here", found)  # of a backend that trains ahead
        if isinstance(remote, RemoteBackend):
            remote.end(logged=logged)
