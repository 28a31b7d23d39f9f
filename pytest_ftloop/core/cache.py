"""Where the tool keeps what it can make again: the embedded model, adapters, locks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def cache_folder() -> Path:
    """`$FTLOOP_CACHE`, else the user's cache folder of this platform."""
    if stated := os.environ.get("FTLOOP_CACHE"):
        return Path(stated)
    from platformdirs import user_cache_path

    return user_cache_path("pytest-ftloop", appauthor=False)


def records_folder() -> Path | None:
    """`$FTLOOP_RECORDS`, the folder that a `Store` keeps records in; None where it is not set.

    It has no default: whoever deletes a log at home wants it trained afresh.
    """
    stated = os.environ.get("FTLOOP_RECORDS")
    return Path(stated).expanduser() if stated else None


def adapter_folder(fingerprint: str) -> Path:
    """Where the best adapter of an iteration is kept, in peft's own layout."""
    return cache_folder() / "adapters" / fingerprint
