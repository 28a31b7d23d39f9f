"""Spare the objects that exist before a run from Python's search for unreachable cycles."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def spared() -> Iterator[None]:
    """While it is open, the collector passes over all objects that were there before.

    torch, transformers and trl bring half a million, which each full collection would visit. They
    are given back afterwards, so that nothing leaks into the user's process. If the user's own code
    has frozen objects, nothing is done: to give them back would undo it.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
