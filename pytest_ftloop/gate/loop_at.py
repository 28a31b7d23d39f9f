"""A loop as its file was at the baseline's commit."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_ftloop.config import loop_yaml
from pytest_ftloop.config.loop_config import LoopConfig, checked, loop_name
from pytest_ftloop.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_ftloop.core.git import Repository
    from pytest_ftloop.gate.baseline import Baseline


def loop_at(
    repository: Repository, baseline: Baseline, path: PurePosixPath, text: str | None
) -> LoopConfig | None:
    """The loop at the baseline's commit; None if it is new.

    That is the file at the same path, whose text there is `text`; of a loop that was renamed or
    moved, the one whose log is the baseline's. Raises `ConfigError` if it can't be read.
    """
    folder = baseline.folder
    here = None if text is None else _parsed(text, path, baseline)
    if folder is None or (here is not None and here.name == folder.name):
        return here
    beside = folder.parent.parent
    names = [
        file
        for file in repository.files(baseline.commit, beside)
        if file.parent == beside and file.name.endswith(loop_yaml.SUFFIXES)
    ]
    for file, other in repository.texts(baseline.commit, names).items():
        try:
            config = _parsed(other, file, baseline)
        except ConfigError:  # most likely another loop's file
            continue
        if config.name == folder.name:
            return config
    return here


def _parsed(text: str, path: PurePosixPath, baseline: Baseline) -> LoopConfig:
    shown = f"{baseline.commit[:7]}:{path}"
    values, lines = loop_yaml.parse(text, shown)
    # Nothing is read relative to the folder, which need not exist any more.
    return checked(values, lines, folder=Path(path.parent), source=shown, name=loop_name(path.name))
