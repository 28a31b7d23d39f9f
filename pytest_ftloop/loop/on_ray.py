"""The executor of a Ray cluster: each spec is a task, whose files are sent by content.

Options are those of Ray's remote functions. `max_retries` is
ours, since Ray would repeat without end what needs too much memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.functions import described
from pytest_ftloop.loop import shipped
from pytest_ftloop.loop.executor import Ended, EngineError
from pytest_ftloop.loop.parcel import Packer
from pytest_ftloop.loop.ray_connection import connected, first_line, lost_connection_told

if TYPE_CHECKING:
    from pytest_ftloop.core.errors import Location

RETRIES = 3
"""Times that a task is repeated whose node or process has died, unless `max_retries` is stated: as
for a task of Ray itself."""


def work(text: str, digests: list[str], board: Any, key: str, *contents: bytes) -> Any:
    """Do what a parcel asks for: a task of Ray. Notes go to the `board`."""
    given = dict(zip(digests, contents, strict=True))
    return shipped.work(text, given, lambda notes: board.note.remote(key, notes))


class Board:
    """An actor of Ray that workers write their notes to; the loop's process takes them."""

    def __init__(self) -> None:
        self._notes: dict[str, dict[str, bytes]] = {}

    def note(self, key: str, notes: Mapping[str, bytes]) -> None:
        """Keep a worker's notes until they are taken."""
        self._notes.setdefault(key, {}).update(notes)

    def take(self) -> dict[str, dict[str, bytes]]:
        """The notes since the last call, by worker."""
        taken, self._notes = self._notes, {}
        return taken


class OnRay:
    """Runs workers as tasks of a Ray cluster, at most `count` at once. `where` names `run_on`."""

    def __init__(self, options: Mapping[str, Any], count: int, where: Location | None) -> None:
        self._count, self._where, self._asked_of = count, where, _resources(options)
        self._retries = _retries(options, where)
        self._connection = connected(where)
        self._ray = self._connection.ray
        stated = {name: value for name, value in options.items() if name != "max_retries"}
        try:
            self._work = self._ray.remote(**{**stated, "max_retries": 0})(work)
        except (TypeError, ValueError) as error:
            self._connection.leave()
            raise _mistake(f"Ray refuses the options: {error}", where) from None
        self._packer = Packer()
        self._sent: dict[str, Any] = {}
        self._waiting: deque[_Task] = deque()
        self._running: list[_Task] = []
        self._asked: Any = None
        # Beside the loop's process, where no other node's death takes it.
        here = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self._ray.get_runtime_context().get_node_id(), soft=True
        )
        made = self._ray.remote(num_cpus=0, max_restarts=-1)(Board)
        self._board = made.options(scheduling_strategy=here).remote()

    def submit(self, spec: Path) -> _Task:
        """See `Executor`."""
        task = _Task(self, spec)
        self._waiting.append(task)
        self.see()
        return task

    def see(self) -> None:
        """Take the workers' notes, note what has ended, and start what waits."""
        with lost_connection_told(self._ray, self._where):
            self._take_notes()
            for task in list(self._running):
                self._look_at(task)
            while self._waiting and len(self._running) < self._count:
                self._start(self._waiting.popleft())

    def withdraw(self, task: _Task) -> None:
        """End a task: take it from the queue, or have Ray kill its process."""
        if task.how is None:
            task.how = Ended("was cancelled")
        if task in self._waiting:
            self._waiting.remove(task)
        if task in self._running:
            self._running.remove(task)
            self._ray.cancel(task.ref, force=True)

    def close(self) -> None:
        """See `Executor`."""
        with suppress(self._ray.exceptions.RayError):  # the cluster has gone, and all with it
            for task in [*self._waiting, *self._running]:
                self.withdraw(task)
            self._ray.kill(self._board)
        self._sent = {}
        self._connection.leave()

    def _start(self, task: _Task) -> None:
        parcel = self._packer.pack(task.spec)
        for digest, path in parcel.contents.items():
            if digest not in self._sent:
                self._sent[digest] = self._ray.put(path.read_bytes())
        digests = sorted(parcel.contents)
        refs = [self._sent[digest] for digest in digests]
        key = str(task.spec.parent)
        task.ref = self._work.remote(parcel.as_text(), digests, self._board, key, *refs)
        task.waits = self._why_no_machine()
        self._running.append(task)

    def _why_no_machine(self) -> str:
        """Why no machine of the cluster can do a task; one that can may still join it."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        wanted = self._asked_of.items()
        if any(all(there.get(name, 0) >= need for name, need in wanted) for there in alive):
            return ""
        needs = ", ".join(f"{name} {need:g}" for name, need in wanted if need)
        return f"waiting: no machine of the cluster has {needs}"

    def _look_at(self, task: _Task) -> None:
        ready, _ = self._ray.wait([task.ref], timeout=0)
        if not ready:
            return
        self._running.remove(task)
        lost = self._ray.exceptions
        try:
            outcome = self._ray.get(task.ref)
        except (lost.WorkerCrashedError, lost.NodeDiedError, lost.OutOfMemoryError) as error:
            self._repeat(task, first_line(error))
        except lost.ObjectLostError as error:  # the node died with the result, or with the files
            self._sent = {}
            self._repeat(task, first_line(error))
        except lost.RayError as error:
            task.how = Ended(f"could not do its work on Ray: {_cause(error)}")
        else:
            shipped.take_back(outcome, task.spec)
            task.how = outcome.ended

    def _repeat(self, task: _Task, why: str) -> None:
        task.tries += 1
        if task.tries > self._retries:
            times = f", {task.tries} times" if task.tries > 1 else ""
            task.how = Ended(f"was lost on Ray{times}: {why.partition('. ')[0]}")
        else:
            self._waiting.appendleft(task)

    def _take_notes(self) -> None:
        """Write the notes that have come since, and ask for the next ones; waits for none."""
        if self._asked is not None:
            ready, _ = self._ray.wait([self._asked], timeout=0)
            if not ready:
                return
            with suppress(self._ray.exceptions.RayError):  # the board was started again
                for key, notes in self._ray.get(self._asked).items():
                    spec = next((t.spec for t in self._running if str(t.spec.parent) == key), None)
                    if spec is not None:
                        shipped.write_notes(notes, spec)
        self._asked = self._board.take.remote() if self._running else None


@dataclass(eq=False)
class _Task:
    """A submitted spec: a `Handle`."""

    executor: OnRay
    spec: Path
    how: Ended | None = None
    ref: Any = None
    tries: int = 0
    waits: str = ""

    def ended(self) -> Ended | None:
        """See `Handle`."""
        self.executor.see()
        return self.how

    def cancel(self) -> None:
        """See `Handle`."""
        self.executor.withdraw(self)


def room(options: Mapping[str, Any], where: Location | None) -> int:
    """How many tasks with these options the cluster's resources have room for, at least one."""
    connection = connected(where)
    try:
        there = connection.ray.cluster_resources()
    finally:
        connection.leave()
    asked = _resources(options).items()
    rooms = [int(there.get(name, 0) // need) for name, need in asked if need]
    return max(1, min(rooms, default=1))


def _resources(options: Mapping[str, Any]) -> dict[str, float]:
    """What a task takes of a machine, by Ray's names; what is no number Ray refuses by itself."""
    stated = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
    named = options.get("resources")
    stated |= named if isinstance(named, Mapping) else {}
    return {name: need for name, need in stated.items() if isinstance(need, int | float)}


def _retries(options: Mapping[str, Any], where: Location | None) -> int:
    stated = options.get("max_retries", RETRIES)
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 0:
        raise _mistake(f"max_retries: wanted a whole number, 0 or more, found {stated!r}", where)
    return stated


def _mistake(why: str, where: Location | None) -> EngineError:
    cure = "They are those of ray.remote for a function, such as {num_cpus: 1, num_gpus: 1}."
    return EngineError(f"loop.run_on.ray: {why}", where=where, cure=cure)


def _cause(error: BaseException) -> str:
    """The exception that a task raised; a module that a node lacks is named with what to do."""
    cause = getattr(error, "cause", None) or error
    text = str(cause)
    if "No module named 'pytest_ftloop" in text:
        return "a node lacks pytest-ftloop: install the same packages on each"
    return described(cause).strip().splitlines()[0] if text else type(cause).__name__
