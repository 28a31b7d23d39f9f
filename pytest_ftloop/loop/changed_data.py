"""How the data sets changed since an iteration, by the versions of their files in git."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_ftloop.core.data_changes import DataChange
from pytest_ftloop.core.errors import FtloopError, LogError
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.data import examples as data
from pytest_ftloop.data.row_changes import data_change, rows_of_examples, rows_of_results

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import DataSet, Iteration
    from pytest_ftloop.loop.inputs import Inputs

_VERSIONS = 10
"""Changes of a data file among which the version that was trained on is looked for."""


def data_changes(
    config: LoopConfig, inputs: Inputs, of: Iteration, commit: str = ""
) -> tuple[DataChange, ...]:
    """The changes of the train and the eval set since an iteration; empty if there are none.

    `commit` is where its files may be restored from.
    """
    sets = (inputs.train, inputs.eval)
    return tuple(
        changed_set(config, set_, of, commit)
        for set_ in sets
        if of.data.get(set_.role, {}).get("sha256") != set_.sha256[:16]
    )


def data_text(config: LoopConfig, inputs: Inputs, of: Iteration, role: str) -> str:
    """How a data set changed, in rows, as far as the version trained on can be found."""
    now = inputs.train if role == "train" else inputs.eval
    return f"data.{role} {changed_set(config, now, of).text}"


def changed_set(config: LoopConfig, now: DataSet, of: Iteration, commit: str = "") -> DataChange:
    """How a data set changed since an iteration.

    The rows before are those of the committed file; of the eval set else those of the log's table.
    Where neither has them, only the numbers of rows are known.
    """
    facts = of.data.get(now.role, {})
    logged = str(facts.get("sha256", ""))
    after = rows_of_examples(now.examples)
    versions = _committed(config, now.role)
    old, blob = next(((s, blob) for s, blob in versions if s.sha256[:16] == logged), (None, ""))
    if old is not None:
        changed = data_change(now.role, rows_of_examples(old.examples), after)
        return replace(changed, file=_restorable(config, now.role, commit, blob))
    if now.role == "eval":
        with suppress(LogError):  # its table is damaged, which is reported where it is needed
            return data_change(now.role, rows_of_results(of.examples), after)
    return DataChange(now.role, f"{facts.get('rows', '?')} -> {len(now.examples)} rows")


def _restorable(config: LoopConfig, role: str, commit: str, blob: str) -> str:
    """A data set's file, if the commit has this version of it; else empty."""
    source = _source(config, role)
    if not commit or not isinstance(source, str):
        return ""
    file = config.folder / source
    try:
        repository = Repository.containing(file.parent)
        path = repository.relative(file)
        return source if repository.blobs(commit, [path]).get(path) == blob else ""
    except GitError:
        return ""


def _source(config: LoopConfig, role: str) -> object:
    return config.train if role == "train" or config.split is not None else config.eval


def _committed(config: LoopConfig, role: str) -> Iterator[tuple[DataSet, str]]:
    """The committed versions of a data set, the latest first, each with its blob.

    None if it is no file in git.
    """
    source = _source(config, role)
    if not isinstance(source, str | Path):
        return
    file = config.folder / source
    try:
        repository = Repository.containing(file.parent)
        path = repository.relative(file)
        blobs = dict.fromkeys(repository.versions(path, _VERSIONS))
    except GitError:
        return
    for blob in blobs:
        with suppress(FtloopError):  # a version that could not be trained on
            yield _as_set(config, role, path, next(repository.read([blob]))), blob


def _as_set(config: LoopConfig, role: str, path: PurePosixPath, content: bytes) -> DataSet:
    """A data set from the content that its file had."""
    if config.split is None:
        return data.load_content(content, path.name, role, config.columns)
    whole = data.load_content(content, path.name, "train", config.columns)
    kept, held = data.split_off(whole, config.split.fraction, config.split.seed)
    return kept if role == "train" else held
