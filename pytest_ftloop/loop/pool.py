"""The workers of one run, which its loops share: those that are idle begin what comes next.

Loops run one after the other. Where one has no work for every worker, the others begin the next
trainings of the loops that follow; when it is their turn, they find them complete or under way.
Whatever is begun and whoever trains it, a log is written by its own loop alone, in its turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import forget_unfinished
from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.files import real
from pytest_ftloop.log.files import locked
from pytest_ftloop.loop.executor import ExecutorFactory
from pytest_ftloop.loop.spec import BEFORE, RUN, UNSCORED, sweep_specs
from pytest_ftloop.loop.submitted import Submitted

if TYPE_CHECKING:
    from typing_extensions import Self

    from pytest_ftloop.loop.executor import Executor
    from pytest_ftloop.loop.spec import Spec

Kind = tuple[ExecutorFactory, int]
"""What makes the executor, and how many workers it runs at once: loops alike in it share them."""

Hold = Callable[[Path], Path | None]
"""Takes the lock of a log without waiting; the lock's file, or None if another process has it."""


@dataclass(frozen=True)
class Prospect:
    """The trainings that a loop begins in its turn, each with a label for the screen.

    `kind` is that of the workers that may begin them before; None if the loop's own process trains
    them.
    """

    kind: Kind | None = None
    trainings: tuple[tuple[Spec, str], ...] = ()


@dataclass(frozen=True)
class Following:
    """A loop whose turn is still to come: `look` finds what it begins then, None if nothing."""

    file: Path
    look: Callable[[Hold], Prospect | None]


class Workers:
    """Has one executor at a time, and what is begun there for loops whose turn is still to come.

    More than ten methods: a run of several loops calls three, the turn of one loop the others.
    """

    def __init__(self) -> None:
        self._executor: Executor | None = None
        self._kind: Kind | None = None
        self._following: deque[Following] = deque()
        self._asked: set[Path] = set()
        self._ready: deque[tuple[Spec, str]] = deque()
        self._begun: dict[Path, Submitted] = {}
        self._adapters: set[str] = set()
        self._locks: dict[Path, tuple[ExitStack, Path]] = {}
        self._turn: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- a run of several loops ------------------------------------------------------------------

    def follow(self, following: Iterable[Following]) -> None:
        """Say which loops come after the one whose turn it is, in their order."""
        self._following = deque(following)

    def let_go(self) -> None:
        """End what is begun for loops whose turn is still to come, and give back their locks."""
        self._ready.clear()
        self._drop_all(list(self._begun.values()))
        for log in [log for log in self._locks if log != self._turn]:
            self._unlock(log)

    def close(self) -> None:
        """End everything. What is complete is kept: the next run takes it."""
        self._following.clear()
        self.let_go()
        self._shut()

    # --- the turn of a loop ----------------------------------------------------------------------

    @contextmanager
    def turn_of(self, log: Path) -> Iterator[None]:
        """Give the loop that writes this log what is begun for it; the rest ends with its turn."""
        log = self._turn = real(log)
        self._ready = deque(entry for entry in self._ready if _log_of(entry[0]) != log)
        try:
            yield
        finally:
            self._turn = None
            self._drop_all([at for at in self._begun.values() if _log_of(at.spec) == log])
            self._unlock(log)
            self.rest()

    def lock_of(self, log: Path) -> Path | None:
        """The file of a log's lock, if it is held here already: no process can wait for itself."""
        held = self._locks.get(real(log))
        return held[1] if held is not None else None

    def take(self, spec: Spec) -> Submitted | None:
        """What was begun of this spec before its loop's turn, unless that has to be tried again:
        it failed, or was killed and its workers have ended since.
        """
        at = self._begun.get(spec.folder)
        if at is None:
            return None
        ended = at.handle.ended()
        is_left = at.executor is not self._executor and ended is not None and ended.again
        if is_left or has_failed(at):
            self._drop_all([at])
            return None
        return self._begun.pop(spec.folder)

    def trains(self, adapter: str) -> bool:
        """Whether an adapter is that of a training which was begun for another loop."""
        return any(at.spec.adapter == adapter for at in self._begun.values())

    def use(self, adapter: str) -> None:
        """Note that a loop trains this adapter in its turn: no other one may replace it then.

        Two at once would write, and go on from, the same files. So one of another loop ends here.
        """
        for at in [at for at in self._begun.values() if at.spec.adapter == adapter]:
            self._drop_all([at])
            forget_unfinished(Path(adapter).name)
        self._adapters.add(adapter)

    def is_open(self, kind: Kind) -> bool:
        """Whether there are such workers already."""
        return self._executor is not None and self._kind == kind

    def open(self, kind: Kind) -> Executor:
        """The executor of such workers; those of another kind end."""
        if self._executor is not None and self._kind != kind:
            self.let_go()
            self._shut()
        if self._executor is None:
            sweep_specs()
            make, count = self._kind = kind
            self._executor = make(count)
        return self._executor

    def is_busy(self) -> bool:
        """Whether a training of another loop is under way, or waits for a worker."""
        return any(at.handle.ended() is None for at in self._begun.values())

    def finds_more(self, kind: Kind) -> bool:
        """Whether a following loop has a training for such workers.

        The loops are asked in turn, each once. The first that is trained by others, or by this
        process, ends it: it must not find these at work, which need its memory and its devices.
        """
        while not self._ready and self._following:
            following = self._following.popleft()
            if following.file in self._asked:
                continue
            prospect = self._asked_of(following, kind)
            if prospect is not None and prospect.kind != kind:
                self._following.clear()
                return False
            self._asked.add(following.file)
            self._ready.extend(prospect.trainings if prospect else ())
        return bool(self._ready)

    def fill(self, own: Sequence[Submitted]) -> None:
        """Have workers that are idle, beside the `own` trainings of a loop, begin what follows."""
        if self._executor is None or self._kind is None:
            return
        at_work = [at for at in (*own, *self._begun.values()) if at.handle.ended() is None]
        idle = self._kind[1] - len(at_work)
        while idle > 0 and self.finds_more(self._kind):
            idle -= self._begins(*self._ready.popleft())

    def shown(self) -> tuple[list[tuple[str, str]], int]:
        """The trainings at work for other loops: label, and what it does; how many more wait."""
        running = [at for at in self._begun.values() if at.handle.ended() is None]
        begun = [(at.label, now.text) for at in running if (now := at.now) is not None]
        return begun, len(running) - len(begun)

    def rest(self) -> None:
        """End the workers unless one trains or has trained for another loop: they hold memory."""
        if not self._begun:
            self._shut()

    def make_room(self) -> None:
        """End the workers unless one is at work: this process trains, and needs the memory."""
        if not self.is_busy():
            self._shut()

    # --- helpers ---------------------------------------------------------------------------------

    def _asked_of(self, following: Following, kind: Kind) -> Prospect | None:
        """What a loop begins in its turn; its log stays locked only if such workers may do so."""
        before = set(self._locks)
        try:
            found = following.look(self._hold)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - also `sys.exit`, or a skip: its loop raises it again
            found = None
        if found is None or found.kind != kind or not found.trainings:
            for log in set(self._locks) - before:
                self._unlock(log)
        return found

    def _hold(self, log: Path) -> Path | None:
        """See `Hold`."""
        stack = ExitStack()
        try:
            lock = stack.enter_context(locked(log, _refuse))
        except _TakenError:
            return None
        self._locks[real(log)] = stack, lock
        return lock

    def _begins(self, spec: Spec, label: str) -> bool:
        """Begin a training, unless another of this run gives the same adapter."""
        if spec.adapter in self._adapters:
            return False
        assert self._executor is not None
        try:
            self._begun[spec.folder] = Submitted.to(self._executor, spec, label)
        except (OSError, FtloopError):  # its loop will try in its turn
            return False
        self._adapters.add(spec.adapter)
        return True

    def _drop_all(self, trainings: Iterable[Submitted]) -> None:
        """End trainings that were begun. A complete run is kept, as is an earlier process's."""
        for at in trainings:
            at.handle.cancel()
            del self._begun[at.spec.folder]
            if not is_kept(at.spec):
                rmtree(at.spec.folder, ignore_errors=True)

    def _unlock(self, log: Path) -> None:
        if (held := self._locks.pop(log, None)) is not None:
            held[0].close()

    def _shut(self) -> None:
        if self._executor is not None:
            self._executor.close()
        self._executor = self._kind = None


def has_failed(at: Submitted) -> bool:
    """Whether an error has ended a training before it was complete.

    When its loop asks for it, it may succeed: what took the memory has ended, or its loop file is
    written. One that was killed is tried again by whoever waits for it.
    """
    ended = at.handle.ended()
    is_complete = any((at.spec.folder / name).exists() for name in (RUN, UNSCORED))
    return ended is not None and not ended.again and not is_complete


def is_kept(spec: Spec) -> bool:
    """Whether there is a complete run of a training, of this process or of an earlier one."""
    return any((spec.folder / name).exists() for name in (RUN, BEFORE))


def _log_of(spec: Spec) -> Path:
    return real(Path(spec.log))


class _TakenError(Exception):
    """A lock that another process has."""


def _refuse() -> None:
    raise _TakenError
