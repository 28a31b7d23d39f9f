"""Where the tool keeps what it can make again: the embedded model, adapters, locks."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$FTLOOP_CACHE`, else the user's cache folder of this platform."""
    if stated := os.environ.get("FTLOOP_CACHE"):
        return Path(stated)
    from platformdirs import user_cache_path

    return user_cache_path("pytest-ftloop", appauthor=False)
