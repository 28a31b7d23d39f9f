"""Whether the data files of a loop exist, before any of them is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.sources import Mixture
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.data.sources import FILE_KINDS, missing_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ftloop.config.loop_config import LoopConfig


def check_files_exist(config: LoopConfig) -> None:
    """Raise one `DataError` for all data files that are missing.

    A missing holdout is named beside others only: who judges a log need not have it.
    """
    stated = {"data.train": config.train}
    if config.split is None:
        stated["data.eval"] = config.eval
    stated |= {f"data.guards.{guard.name}": guard.source for guard in config.guards}
    missing = list(_missing(config, stated))
    if missing:
        raise _in_one([*missing, *_missing(config, {"data.holdout": config.holdout})])


def check_holdout_exists(config: LoopConfig) -> None:
    """Raise `DataError` for a holdout file that is missing."""
    missing = list(_missing(config, {"data.holdout": config.holdout}))
    if missing:
        raise _in_one(missing)


def _missing(config: LoopConfig, stated: dict[str, Any]) -> Iterator[DataError]:
    told = set()
    for key, source in stated.items():
        where = config.locate(key)
        for path in _files_of(source, config.folder):
            if not path.exists() and (path, where) not in told:
                told.add((path, where))
                yield missing_file(path, where)


def _files_of(source: Any, folder: Path) -> Iterator[Path]:
    parts = [part for part, _ in source.parts] if isinstance(source, Mixture) else [source]
    for part in parts:
        if isinstance(part, str | Path):
            path = folder / part
            if path.suffix.lower() in FILE_KINDS:
                yield path


def _in_one(missing: list[DataError]) -> DataError:
    first, *others = sorted(missing, key=lambda error: (error.where and error.where.line) or 0)
    if others:
        return DataError("\n".join(str(error) for error in (first, *others)))
    return first
