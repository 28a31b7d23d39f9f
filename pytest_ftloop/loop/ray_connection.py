"""The connection of this process to a Ray cluster.

The cluster is that of `RAY_ADDRESS`, or that of this process if it is connected to one; without
either Ray starts one on this machine.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_ftloop.loop.executor import EngineError

if TYPE_CHECKING:
    from pytest_ftloop.core.errors import Location

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns that this will be so
}
"""Variables of Ray, unless the user sets them: it reports its use and warns otherwise."""


@dataclass
class Connection:
    """A connection of this process to a cluster, which executors share."""

    ray: Any
    is_ours: bool
    users: int = field(default=0)

    def leave(self) -> None:
        """Close it, with the cluster if it was started for it, when nobody uses it any more."""
        self.users -= 1
        if self.users == 0 and _connections:
            _connections.pop()
            if self.is_ours:
                self.ray.shutdown()


_connections: list[Connection] = []
"""The one connection of this process, if there is one."""


def connected(where: Location | None) -> Connection:
    """The connection, which is made if there is none. Each user leaves it."""
    if not _connections:
        ray = _imported(where)
        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(ray, where)
        _connections.append(Connection(ray, is_ours))
    _connections[0].users += 1
    return _connections[0]


def _imported(where: Location | None) -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError as error:
        raise EngineError(
            f"loop.run_on: ray needs the extra ray: {error.name or error} is not installed",
            where=where,
            cure='pip install "pytest-ftloop[train,ray]"',
        ) from None
    return ray


def _connect(ray: Any, where: Location | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    try:
        with _signals_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=None if address else False,
            )
    except Exception as error:  # noqa: BLE001 - it raises many kinds, all for the user to solve
        ray.shutdown()
        place = f"the cluster at RAY_ADDRESS={address}" if address else "a cluster on this machine"
        raise EngineError(
            f"loop.run_on: no connection to {place}: {first_line(error)}",
            where=where,
            cure="ray status says whether a cluster runs." if address else "",
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's handlers of signals: Ray puts its own in place of them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
