"""A spec that was given to an executor: wait for its end, try again, read what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_ftloop.loop.executor import WorkerError
from pytest_ftloop.loop.spec import (
    RUN,
    UNSCORED,
    read_answer,
    read_error,
    read_progress,
    read_run,
)

if TYPE_CHECKING:
    from pytest_ftloop.core.errors import Location
    from pytest_ftloop.core.records import Run
    from pytest_ftloop.loop.executor import Ended, Executor, Handle
    from pytest_ftloop.loop.spec import AtWork, Spec

LOOKS_EVERY_S = 0.1
"""Seconds between two looks at the workers: a training takes at least several seconds."""

TRIES = 2
"""Times that a training is submitted whose worker is killed: two at once may need too much memory,
and the second time it may be alone."""


@dataclass
class Submitted:
    """A spec that is submitted to an executor, for the `tries`th time. `label` names it."""

    label: str
    spec: Spec
    executor: Executor
    handle: Handle
    tries: int = 1

    @classmethod
    def to(cls, executor: Executor, spec: Spec, label: str) -> Submitted:
        """Write the spec, and submit it."""
        return cls(label, spec, executor, executor.submit(spec.write()))

    @property
    def now(self) -> AtWork | None:
        """What its worker is doing; None if none has begun."""
        return read_progress(self.spec.folder)

    @property
    def waits(self) -> str:
        """Why no worker has begun, if the executor says so."""
        return str(getattr(self.handle, "waits", ""))

    def wait(self, show: Callable[[], object], say: Callable[[str], object]) -> Ended:
        """Wait until it has ended, and try again if its worker was killed.

        `show` is called several times a second; `say` is told why it is tried again.
        """
        while True:
            while (ended := self.handle.ended()) is None:
                show()
                time.sleep(LOOKS_EVERY_S)
            if not ended.again or self.tries >= TRIES:
                return ended
            say(f"{self.label}: its worker {ended.why}; trying again")
            self.handle, self.tries = self.executor.submit(self.spec.write()), self.tries + 1

    def answer(self, kind: Any, ended: Ended, where: Location | None, cure: str) -> Any:
        """What came of it, of this type. Raises what ended it; a `WorkerError` if nothing says."""
        folder = self.spec.folder
        if (found := read_answer(folder / RUN, kind)) is not None:
            return found
        if (error := read_error(folder)) is not None:
            raise error
        why = ended.why or "wrote a run that cannot be read"
        raise WorkerError(f"{self.label}: its worker {why}", where=where, cure=cure)

    def unscored(self) -> Run | None:
        """The run before it was scored, if it came so far."""
        return read_run(self.spec.folder / UNSCORED)
