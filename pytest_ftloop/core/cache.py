"""Where the tool keeps files that it can recreate: the embedded model, adapters, locks."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.bounds import read_bytes, read_json
from pytest_ftloop.core.leftovers import sweep

if TYPE_CHECKING:
    from pytest_ftloop.core.runs import Measured

ADAPTER_CONFIG = "adapter_config.json"
"""The file of an adapter that peft writes last: where it is, the adapter is whole."""


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


def adapter_folder(weights: str) -> Path:
    """The folder of the best adapter of the training `weights`, in peft's layout."""
    return cache_folder() / "adapters" / weights


def training_file(weights: str) -> Path:
    """The file with what a log does not hold of the training `weights`."""
    return cache_folder() / "trainings" / f"{weights}.json"


ID_OF_WEIGHTS = 32
"""Digits of the weights that the names of their unfinished runs begin with."""


def unfinished_folder() -> Path:
    """The folder with the last evaluation points of runs that are not done."""
    return cache_folder() / "unfinished"


def forget_unfinished(weights: str) -> None:
    """Remove the points of the runs of these weights: one is in the log, and its process is gone.

    It was killed after it had written the record, and before it removed its point.
    """
    for point in unfinished_folder().glob(f"{weights[:ID_OF_WEIGHTS]}-*"):
        shutil.rmtree(point, ignore_errors=True)


def sweep_cache() -> None:
    """Remove what killed processes left in the cache, and where records are kept."""
    for name in ("adapters", "trainings", "digests", "tiny", "unfinished"):
        sweep(cache_folder() / name)
    kept = records_folder()
    if kept is not None:
        for folder in (kept, *kept.glob("*")):
            sweep(folder)


def adapter_hash(folder: Path) -> str:
    """The hash of a saved adapter's weights: the first 32 hex digits of a SHA-256."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob("adapter_model*") if path.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def adapter_config(folder: Path) -> dict[str, Any] | None:
    """The configuration of a saved adapter; None if it can't be read."""
    try:
        found = read_json(read_bytes(folder / ADAPTER_CONFIG))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def adapter_at_hand(run: Measured) -> Path | None:
    """The folder of the adapter that a run's figures are of; None if it is not in this cache."""
    folder = adapter_place(run)
    if adapter_config(folder) is None or (run.weights and not run.adapter):
        return None
    return folder if run.adapter in ("", adapter_hash(folder)) else None


def why_no_adapter(run: Measured) -> str:
    """Why the adapter of a run can't be used here; empty if it can.

    Another one may be in its place: of the same settings, trained again or on another device.
    """
    if adapter_at_hand(run) is not None:
        return ""
    folder = adapter_place(run)
    if (folder / ADAPTER_CONFIG).exists() and adapter_config(folder) is None:
        return f"the adapter in this machine's cache is damaged ({ADAPTER_CONFIG} can't be read)"
    if run.adapter and (folder / ADAPTER_CONFIG).is_file():
        return (
            f"the adapter in this machine's cache is another one ({adapter_hash(folder)[:8]}, not "
            f"{run.adapter[:8]})"
        )
    return "its adapter is not in this machine's cache"


def adapter_place(run: Measured) -> Path:
    """The place of a run's adapter: that of its weights, in records of schema 2 its fingerprint."""
    return adapter_folder(run.weights or run.fingerprint)
