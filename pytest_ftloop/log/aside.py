"""A second log of a loop, in the cache, for records that can't be in its log yet.

These are records that could not be written (a full or read-only disk), until the next run writes
them; and seed runs that are not scored yet, which would count in a log.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import LogError
from pytest_ftloop.core.files import real
from pytest_ftloop.core.records import SeedRun
from pytest_ftloop.log.files import UnwritableError
from pytest_ftloop.log.improvement import ImprovementLog

Kept = TypeVar("Kept")


def aside_of(log: ImprovementLog) -> ImprovementLog:
    """The log in the cache of this loop on this machine; it need not exist."""
    place = hashlib.sha256(os.fsencode(real(log.folder))).hexdigest()[:32]
    return ImprovementLog(cache_folder() / "aside" / place / log.folder.name)


def written(
    log: ImprovementLog, write: Callable[[ImprovementLog], Kept], adapter: Path | None = None
) -> Kept:
    """What `write` has written into the log.

    If the log can't be written, the record is written to the cache before the `LogError` is raised,
    and the next run finds it. If both are on one full disk, the training's `adapter` is removed to
    make room for the record.
    """
    try:
        return write(log)
    except UnwritableError as error:
        try:
            write(aside_of(log))
        except LogError:
            if not (error.is_full and adapter is not None and adapter.is_dir()):
                raise error from None
            shutil.rmtree(adapter, ignore_errors=True)
            return write(log)
        raise LogError(
            error.message,
            where=error.where,
            cure=f"{error.cure} What was trained is kept in the cache: the next run writes it "
            "here, and goes on from there.",
        ) from None


def recover(log: ImprovementLog) -> None:
    """Write into the log what could not be written before; only for the one that holds the lock."""
    aside = aside_of(log)
    if not aside.folder.is_dir():
        return
    aside.sweep()  # a process may have been killed here too
    for iteration in aside.read():
        aside.verify(iteration)
        log.put(iteration)  # in place of an older one: it may have been trained again
        aside.remove(iteration)
    known = {(run.fingerprint, run.environment.get("device")) for run in log.view.seed_runs()}
    for run in aside.view.seed_runs():
        if is_scored(run):
            if (run.fingerprint, run.environment.get("device")) not in known:
                aside.verify(run)
                log.append_seed_run(run)
            aside.remove_seed_run(run)


def is_scored(run: SeedRun) -> bool:
    """Whether a seed run's rows are scored."""
    return all(row.passed is not None for row in run.examples)


def keep_unscored(log: ImprovementLog, run: SeedRun) -> None:
    """Keep a seed run that is still to be scored, in place of what was kept of it before."""
    aside = aside_of(log)
    drop_unscored(log, run)
    aside.append_seed_run(replace(run, tag=""))


def drop_unscored(log: ImprovementLog, run: SeedRun) -> None:
    """Remove what was kept of a seed run, which is scored and in the log now."""
    aside = aside_of(log)
    for kept in aside.view.seed_runs() if aside.folder.is_dir() else ():
        if kept.fingerprint == run.fingerprint:
            aside.remove_seed_run(kept)
