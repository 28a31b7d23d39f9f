"""A training as files: what a worker is to train, and what it gives back.

    <cache>/workers/<hash>/spec.json       what to train
                           run.json        the run, once it is complete
                           unscored.json   the run before it was scored
                           error.json      the user's mistake that ended it
                           progress.json   what the worker is doing
                           found.json      findings on the rows, before the first step

A complete run stays there until it is in the log. Results are JSON, which any machine can read, and
which runs no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pytest_ftloop.core import errors
from pytest_ftloop.core.bounds import MOST_BYTES, read_bytes, read_json
from pytest_ftloop.core.cache import adapter_folder, cache_folder, training_file
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location, shown_path
from pytest_ftloop.core.files import write_atomically
from pytest_ftloop.core.json_text import json_text
from pytest_ftloop.core.records import Finding, Run, Settings
from pytest_ftloop.train.early_end import Pace

_T = TypeVar("_T")

FORMAT = 1
"""Version of these files. A spec of another version is refused."""

SPEC, RUN, BEFORE, UNSCORED, ERROR, PROGRESS, FOUND = (
    f"{name}.json" for name in ("spec", "run", "before", "unscored", "error", "progress", "found")
)
"""The files. `BEFORE` is the run of an earlier process, which was interrupted before it was logged.
"""

Asks = Literal["train", "measure", "measure_missing", "measure_base", "environment"]
"""The methods of a `Backend`."""

KEPT_S = 30 * 24 * 3600
"""Seconds for which a run is kept that was not logged: whoever goes on with a loop does so soon."""


@dataclass(frozen=True)
class Spec:
    """One call of a backend: `asks` is its method, mostly that of training with these settings.

    They include the seed. `fingerprint` is what the worker must come to as well: else the loop, its
    data or its code has changed since. `log` is the folder of the loop's log, which the worker does
    not touch: two logs of one loop file have runs of their own. `name`, `adapter`, `metric` and
    `base_eval_loss` are as in `Backend.train`, and so is `pace`.
    With `afresh` an earlier process's run is not taken. `start` is the adapter that the training
    goes on from, as the fields of `Start`; empty if there is none. `ranks` says that several
    processes make it together, of which the one that reads it is one. `rows` names what `measure`
    and `measure_missing` are given (`loop.asked`).
    """

    loop_file: str
    log: str
    fingerprint: str
    settings: Settings
    name: str
    adapter: str
    metric: str
    base_eval_loss: float | None = None
    afresh: bool = False
    start: Mapping[str, str] = field(default_factory=dict)
    pace: Pace | None = None
    ranks: bool = False
    asks: Asks = "train"
    rows: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def folder(self) -> Path:
        """Where its files are: the same for a later process that wants the same.

        Whatever the pace, and whether the base is known: a run shows where it ended, and what it
        measured of the base. Nor does the name count: the number in it, guessed before the loop's
        turn, may be another one then.
        """
        same = replace(self, name="", afresh=False, pace=None, base_eval_loss=None)
        stated = json.dumps(asdict(same), sort_keys=True)
        return cache_folder() / "workers" / hashlib.sha256(stated.encode()).hexdigest()[:32]

    def write(self, folder: Path | None = None) -> Path:
        """Write it, with nothing beside it but an earlier process's run; the path of its file.

        It is written to a `folder` of its own if nobody is to find its run later.
        """
        folder = folder or self.folder
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            (folder / RUN).replace(folder / BEFORE)
        for name in (UNSCORED, ERROR, PROGRESS, FOUND):
            (folder / name).unlink(missing_ok=True)
        write_atomically(folder / SPEC, json.dumps(asdict(self), indent=1))
        return folder / SPEC


def sweep_specs() -> None:
    """Remove what was trained for runs that nobody has continued in `KEPT_S`, with its adapter."""
    oldest = time.time() - KEPT_S
    with suppress(OSError):  # what can't be listed or removed stays
        for folder in (cache_folder() / "workers").iterdir():
            if (folder / SPEC).is_file() and (folder / SPEC).stat().st_mtime < oldest:
                _remove_adapter_of(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _remove_adapter_of(folder: Path) -> None:
    """Remove the adapter that a complete run has left, if no loop has taken a run of its weights.

    A loop that takes one keeps a file on the training in the cache, and has the run in its log:
    this loop, if it was killed before it removed the folder, or another one of the same weights. An
    adapter that was saved again since is of a run that may still be asked for.
    """
    with suppress(OSError, FtloopError):
        spec = read_spec(folder / SPEC)
        adapter = Path(spec.adapter)
        # What measures an adapter was given it.
        has_made_it = spec.asks == "train" and adapter == adapter_folder(adapter.name).absolute()
        runs = [folder / name for name in (RUN, BEFORE) if (folder / name).is_file()]
        if not has_made_it or not runs or training_file(adapter.name).exists():
            return
        saved = max((file.stat().st_mtime_ns for file in adapter.iterdir()), default=0)
        if saved <= max(run.stat().st_mtime_ns for run in runs):
            shutil.rmtree(adapter, ignore_errors=True)


def read_spec(file: Path) -> Spec:
    """The spec in a file. Raises `ConfigError` for anything else."""
    try:
        stated = read_json(read_bytes(file, MOST_BYTES))
    except OSError as error:
        raise _no_spec(file, f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise _no_spec(file, f"it is not JSON: {error}") from None
    version = stated.get("format") if isinstance(stated, dict) else None
    if version != FORMAT:
        raise _no_spec(file, f"wanted a spec of format {FORMAT}, found {version!r}")
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Spec).validate_python(stated)
    except ValidationError as error:
        raise _no_spec(file, f"wanted the spec of a training: {error}") from None


def _no_spec(file: Path, why: str) -> ConfigError:
    cure = "Specs are written by a run with loop.parallel; ftloop run starts their workers."
    return ConfigError(why, where=Location(shown_path(file)), cure=cure)


def write_run(file: Path, run: Run) -> None:
    """Write a run."""
    write_atomically(file, json_text(run))


def read_run(file: Path) -> Run | None:
    """The run in a file, equal to what was written; None if there is no file or no run in it."""
    return read_answer(file, Run)


def write_answer(file: Path, answer: object) -> None:
    """Write what a backend has answered."""
    write_atomically(file, json_text(answer))


def read_answer(file: Path, kind: type[_T]) -> _T | None:
    """The answer of this kind in a file; None if there is no file, or nothing of the kind in it."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(read_json(read_bytes(file, MOST_BYTES)))
    except (OSError, ValueError, ValidationError):
        return None


def write_error(folder: Path, error: FtloopError) -> None:
    """Write the mistake that ended a training."""
    stated = {
        "kind": type(error).__name__,
        "message": error.message,
        "where": asdict(error.where) if error.where else None,
        "cure": error.cure,
    }
    write_atomically(folder / ERROR, json.dumps(stated))


def read_error(folder: Path) -> FtloopError | None:
    """The mistake that ended a training, of the class that it was raised as."""
    stated = _read(folder / ERROR)
    if not isinstance(stated, dict):
        return None
    kind = getattr(errors, stated["kind"], FtloopError)
    if kind is errors.DamagedLogError:  # made from other parts
        kind = errors.LogError
    where = Location(**stated["where"]) if stated["where"] else None
    error: FtloopError = kind(stated["message"], where=where, cure=stated["cure"])
    return error


def write_found(folder: Path, findings: Sequence[Finding]) -> None:
    """Write the findings on a training's rows."""
    _replace(folder / FOUND, [asdict(finding) for finding in findings])


def read_found(folder: Path) -> tuple[Finding, ...]:
    """The findings on a training's rows so far."""
    stated = _read(folder / FOUND)
    return tuple(Finding(**finding) for finding in stated or ())


@dataclass(frozen=True)
class AtWork:
    """What a worker is doing: a step of its training, or `what`. `step` 0: no step yet."""

    step: int = 0
    steps: int = 0
    loss: float = 0.0
    what: str = ""

    @property
    def text(self) -> str:
        """`120/400 loss 1.234`, or what it does besides."""
        return f"{self.step}/{self.steps} loss {self.loss:.3f}" if self.step else self.what


def write_progress(folder: Path, now: AtWork) -> None:
    """Write what a worker is doing."""
    _replace(folder / PROGRESS, asdict(now))


def read_progress(folder: Path) -> AtWork | None:
    """What a worker is doing; None before it has begun."""
    stated = _read(folder / PROGRESS)
    return AtWork(**stated) if isinstance(stated, dict) else None


def _replace(file: Path, stated: Any) -> None:
    """Write a file that a reader finds whole, and that a crash may lose: without waiting for it."""
    making = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    making.write_text(json.dumps(stated), encoding="utf-8")
    making.replace(file)


def _read(file: Path) -> Any:
    try:
        return read_json(read_bytes(file, MOST_BYTES))
    except (OSError, ValueError):
        return None
