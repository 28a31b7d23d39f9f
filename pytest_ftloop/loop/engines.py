"""What `loop.run_on` names: Ray, a plugin's engine by its name, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.run_on import FUNCTION, RAY, engine_in
from pytest_ftloop.core.errors import ConfigError, FtloopError
from pytest_ftloop.core.functions import described, load_function, raised_at
from pytest_ftloop.loop.executor import EngineError
from pytest_ftloop.loop.shares import MOST_BY_ITSELF

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.errors import Location
    from pytest_ftloop.loop.executor import Ended, Executor, ExecutorFactory, Handle

HOOK = "pytest_ftloop_executor"

ExecutorHook = Callable[[str, Mapping[str, Any], int], object]
"""The user's hook: an executor for the name of an engine, its options and a number at once; None
if the engine is another's."""


@dataclass(frozen=True)
class Engine:
    """What runs a loop's workers elsewhere.

    `make` makes its executor; `room` says how many workers `parallel: auto` starts at once.
    """

    make: ExecutorFactory
    room: Callable[[], int]


def engine_of(config: LoopConfig, hook: ExecutorHook | None) -> Engine | None:
    """The engine that a loop names; None if its workers run on this machine.

    Nothing is imported or asked before an executor is made: an up-to-date loop needs none.
    """
    name, options = engine_in(config.loop.run_on)
    where = config.locate("loop.run_on")
    if not name:
        return None
    if name == RAY:
        return _ray(options, where)

    def made(count: int) -> Executor:
        if FUNCTION.fullmatch(name):
            names = ("options", "count")
            with _told(name, where):
                function = load_function("engine", name, names, config.folder, where)
            return _checked(name, lambda: function(options, count), where)
        if hook is None:
            raise _needs_pytest(name, config, where)
        return _checked(name, lambda: hook(name, options, count), where)

    return Engine(made, lambda: MOST_BY_ITSELF)


def _ray(options: Mapping[str, Any], where: Location | None) -> Engine:
    def made(count: int) -> Executor:
        from pytest_ftloop.loop.on_ray import OnRay

        return OnRay(options, count, where)

    def room() -> int:
        from pytest_ftloop.loop.on_ray import room

        return room(options, where)

    return Engine(made, room)


def _needs_pytest(name: str, config: LoopConfig, where: Location | None) -> EngineError:
    return EngineError(
        f"loop.run_on: the engine {name!r} is a plugin's, and only pytest loads plugins",
        where=where,
        cure=f"Run pytest --ftloop {config.source}, or name a function: module:function.",
    )


def _checked(name: str, make: Callable[[], object], where: Location | None) -> Executor:
    """The executor that a user's code makes."""
    with _told(name, where):
        made: Any = make()
    if made is None:
        raise EngineError(
            f"loop.run_on: no plugin has the engine {name!r}",
            where=where,
            cure=f"Wanted ray, module:function, or a name for which {HOOK} returns an executor.",
        )
    if lacking := [m for m in ("submit", "close") if not callable(getattr(made, m, None))]:
        raise EngineError(
            f"loop.run_on: wanted an executor of {name!r}, found {type(made).__name__} without "
            f"{' and '.join(lacking)}",
            where=where,
            cure="An executor has submit(spec) and close().",
        )
    return _Told(name, made, where)


@contextmanager
def _told(name: str, where: Location | None) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise EngineError(error.message, where=error.where, cure=error.cure) from error
    except FtloopError:
        raise
    except Exception as error:
        raise EngineError(
            f"loop.run_on: the engine {name!r} raised {described(error)}",
            where=where,
            cure=f"It was raised at {raised_at(error)}.",
        ) from error


@dataclass(frozen=True)
class _Told:
    """A user's executor, whose exceptions are errors that name it."""

    name: str
    executor: Executor
    where: Location | None

    def submit(self, spec: Path) -> _ToldHandle:
        """See `Executor`."""
        with _told(self.name, self.where):
            return _ToldHandle(self, self.executor.submit(spec))

    def close(self) -> None:
        """See `Executor`."""
        with _told(self.name, self.where):
            self.executor.close()


@dataclass(frozen=True)
class _ToldHandle:
    of: _Told
    handle: Handle

    @property
    def waits(self) -> str:
        """See `Handle`."""
        return str(getattr(self.handle, "waits", ""))

    def ended(self) -> Ended | None:
        """See `Handle`."""
        with _told(self.of.name, self.of.where):
            return self.handle.ended()

    def cancel(self) -> None:
        """See `Handle`."""
        with _told(self.of.name, self.of.where):
            self.handle.cancel()
