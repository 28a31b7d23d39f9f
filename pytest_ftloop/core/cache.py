"""Where the tool keeps files that it can recreate: the embedded model, adapters, locks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$FTLOOP_CACHE`, or else the user's cache folder on this platform."""
    if stated := os.environ.get("FTLOOP_CACHE"):
        return Path(stated)
    from platformdirs import user_cache_path

    return user_cache_path("pytest-ftloop", appauthor=False)


def records_folder() -> Path | None:
    """`$FTLOOP_RECORDS`, the folder in which a `Store` keeps records; None if it is not set.

    There is no default: a user who deletes a log expects the loop to be trained again.
    """
    stated = os.environ.get("FTLOOP_RECORDS")
    return Path(stated).expanduser() if stated else None


def adapter_folder(fingerprint: str) -> Path:
    """The folder of an iteration's best adapter, in peft's layout."""
    return cache_folder() / "adapters" / fingerprint
