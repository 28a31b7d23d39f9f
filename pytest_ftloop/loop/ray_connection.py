"""The connection of this process to a Ray cluster.

The cluster is that of `RAY_ADDRESS`, or that of this process if it is connected to one; without
either Ray starts one on this machine.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_ftloop.loop.executor import EngineError

if TYPE_CHECKING:
    from pytest_ftloop.core.errors import Location

QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
"""Variables of Ray, unless the user sets them: it reports its use otherwise."""

REACHED_IN_S = 20
"""Seconds within which the head of a cluster answers, also over a slow network."""


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
                _print_messages(shown=True)


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


def check_reachable(address: str, where: Location | None) -> None:
    """Raise `EngineError` if nobody listens at `host:port`: Ray tries for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not (host and colon and port.isdigit()):
        return  # `auto`, or what Ray may know
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_IN_S).close()
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"loop.run_on: no connection to the cluster at RAY_ADDRESS={address}: {error}",
            where=where,
            cure="The address is that which ray start has printed, usually with port 6379.",
        ) from None


def _connect(ray: Any, where: Location | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_reachable(address, where)
    try:
        with _signals_kept():
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=None if address else False,
            )
            _print_messages(shown=False)
    except Exception as error:  # noqa: BLE001 - it raises many kinds, all for the user to solve
        ray.shutdown()
        place = f"the cluster at RAY_ADDRESS={address}" if address else "a cluster on this machine"
        raise EngineError(
            f"loop.run_on: no connection to {place}: {first_line(error)}",
            where=where,
            cure="ray status says whether a cluster runs." if address else "",
        ) from None


def _print_messages(*, shown: bool) -> None:
    """Whether Ray prints messages about nodes, such as the log of one that has died, to stdout.

    `log_to_driver` does not cover them, and only Ray's debugger has a switch for them.
    """
    importlib.import_module("ray._private.worker").__dict__["_worker_logs_enabled"] = shown


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


@contextmanager
def lost_connection_told(ray: Any, where: Location | None) -> Iterator[None]:
    """Raise an `EngineError` for what Ray raises of itself: of a task it is known by its result."""
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise EngineError(
            f"loop.run_on: the connection to Ray was lost: {first_line(error)}",
            where=where,
            cure="What is in the log is kept: the next run continues from it.",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
