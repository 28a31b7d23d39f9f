"""Python's garbage collector, which otherwise searches the imported modules again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SEARCHED_AFTER = 50_000
"""New objects between two searches while a log is read: a few megabytes. Python's own is 700."""


@contextmanager
def importing() -> Iterator[None]:
    """Search nothing in between: what thousands of modules make as they are imported stays.

    With torch, transformers, trl and peft the searches take a sixth of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def imports_kept() -> Iterator[None]:
    """Leave what is there now, such as imported modules, out of the searches in between.

    Within another such block the end is that of the outer one: what many loops have read is not
    searched for each further one.
    """
    is_within = bool(gc.get_freeze_count())
    gc.freeze()
    try:
        yield
    finally:
        if not is_within:
            gc.unfreeze()


@contextmanager
def reading() -> Iterator[None]:
    """Search rarely, and not what is there now, while logs are read and judged.

    A long log makes many objects, each of which brings the next search nearer, and hardly any are
    in cycles. Nothing is trained here: a trainer's cycles hold tensors.
    """
    before = gc.get_threshold()
    if 0 < before[0] < SEARCHED_AFTER:
        gc.set_threshold(SEARCHED_AFTER, *before[1:])
    try:
        with imports_kept():
            yield
    finally:
        gc.set_threshold(*before)
