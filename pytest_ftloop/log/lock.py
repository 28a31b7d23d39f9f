"""One process at a time writes a log."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_ftloop.cache import cache_folder
from pytest_ftloop.errors import Location, LogError


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[Path]:
    """Hold the lock of a log's folder; gives the lock's file. `waiting` is told if it has to wait.

    It lies in the cache: a committed folder holds records only.
    """
    from filelock import FileLock, Timeout  # takes its time, and most runs find nothing to write

    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    locks = cache_folder() / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        raise LogError(
            f"the cache folder can't be written: {error.strerror}",
            where=Location(str(locks)),
            cure="Name another with the environment variable FTLOOP_CACHE.",
        ) from None
    try:
        yield Path(lock.lock_file)
    finally:
        lock.release()
