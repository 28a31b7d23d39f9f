"""Hold the lock of a log, and tidy up first: whoever holds it knows that nobody else is writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ftloop.core.cache import sweep_cache
from pytest_ftloop.core.temporary import sweep_temporary
from pytest_ftloop.log.aside import recover
from pytest_ftloop.log.files import locked

if TYPE_CHECKING:
    from pytest_ftloop.log import ImprovementLog


@contextmanager
def held(
    log: ImprovementLog, waiting: Callable[[], None], already: Path | None = None
) -> Iterator[Path]:
    """Hold a log's lock; gives the lock's file. `waiting` is called if it has to wait.

    `already` is that file if this process holds it; whoever took it gives it back.

    What killed processes left in the log, the cache and the temporary folders is removed first, and
    what could not be written to the log before is written.
    """
    with nullcontext(already) if already else locked(log.folder, waiting) as lock:
        log.sweep()
        sweep_cache()
        sweep_temporary()
        recover(log)
        yield lock
