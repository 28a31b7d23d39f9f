"""Find the loop files and improvement logs that a path on the command line means."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pytest_ftloop.config.loop_config import LoopConfig, read_loop_file
from pytest_ftloop.config.loop_yaml import SUFFIXES, files_in
from pytest_ftloop.core.chain import best_of, chain_from, chosen_by
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location, did_you_mean, shown_path
from pytest_ftloop.core.files import real
from pytest_ftloop.core.records import Iteration
from pytest_ftloop.data.identity import model_identity, model_path
from pytest_ftloop.gate.ranking import Entry
from pytest_ftloop.log import FOLDER, RECORD_NAME, ImprovementLog
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.reading import read_inputs
from pytest_ftloop.loop.warm_start import warm_started

NOT_SEARCHED = frozenset(
    {"build", "dist", "node_modules", "venv", "CVS", "__pycache__", FOLDER}  # a log has no loops
)
"""Folders that are not searched, like pytest's norecursedirs. Hidden folders are not either."""

Report = Callable[[FtloopError], object]
"""Called with the error of a broken loop file: its log can be read without it."""


@dataclass(frozen=True)
class Logged:
    """One loop's improvement log, and its loop file if there is a readable one."""

    log: ImprovementLog
    config: LoopConfig | None = None

    @cached_property
    def iterations(self) -> tuple[Iteration, ...]:
        """All iterations in the log."""
        return self.log.read()

    @cached_property
    def inputs(self) -> Inputs | None:
        """The loop's data; None if it can't be loaded."""
        try:
            if self.config is None:
                return None
            inputs = read_inputs(self.config, self.log)
            inputs = inputs.with_logged_model(self.config, self.iterations)
            return warm_started(self.config, inputs, self.log)[1]
        except FtloopError:
            return None

    @property
    def start(self) -> str:
        """The fingerprint of the loop file's own settings. Needs `config` and `inputs`."""
        config, inputs = self.config, self.inputs
        assert config is not None
        assert inputs is not None
        return inputs.fingerprint(config, inputs.own_settings(config))

    def how_to_make(self, iteration: Iteration) -> str:
        """The commands that train an iteration on this machine.

        A loop trains only the chain of its own settings; others have to be accepted first.
        """
        config, inputs = self.config, self.inputs
        if config is None or inputs is None:
            return "Train it here: run pytest --ftloop-retrain on the loop of this log."
        train = f"pytest --ftloop-retrain {config.source}"
        if iteration.id in {i.id for i in chain_from(self.iterations, self.start)}:
            return f"Train it here: {train}"
        return f"Train it here: ftloop accept {iteration.number} {config.source} && {train}"

    def trusts(self, iteration: Iteration) -> bool:
        """Whether the loop file lets code of this iteration's model run.

        It does by `trust_remote_code`, and for the model that it names: the record may be a
        stranger's, and says nothing in this.
        """
        config = self.config
        if config is None or not isinstance(config.model, str):
            return False
        stated = config.settings.training
        kwargs = stated.get("model_init_kwargs") or {}
        trusted = kwargs.get("trust_remote_code", stated.get("trust_remote_code", False))
        return trusted is True and model_identity(config.model, config.folder) == iteration.model

    def model_folder(self) -> Path | None:
        """The path of the model if the loop file names a folder; it need not exist."""
        if self.config is None or not isinstance(self.config.model, str):
            return None
        return model_path(self.config.model, self.config.folder)

    def last(self) -> Iteration:
        """The iteration with the highest number."""
        return self.iterations[-1]

    def best(self) -> Iteration:
        """The best by the loop's metric: in the chain of the current loop file, else of all."""
        return best_of(self._chain, self.metric)

    def entry(self) -> Entry:
        """The loop as it is compared with others."""
        return Entry.of(self.log.view, self.best(), self.metric)

    @cached_property
    def _chain(self) -> tuple[Iteration, ...]:
        if self.config is None or self.inputs is None:
            return self.iterations
        return chain_from(self.iterations, self.start) or self.iterations

    @property
    def metric(self) -> str:
        """What the best iteration is chosen by."""
        if self.config is None or self.inputs is None:
            return chosen_by(self._chain[-1])
        return self.config.metric_of(self._chain)


def find_logs(path: Path, log_folder: Path | None, report: Report) -> list[Logged]:
    """The logs for PATH: a loop file's, those of the loops in a folder, or log folders.

    Raises `ConfigError` if there are none.
    """
    if path.is_file():
        return _with_logs([read_loop_file(path)], (), log_folder)
    _check_folder(path)
    if log_folder is not None:  # --log: one folder holds the logs of all loops below PATH
        _check_folder(log_folder)
        return _of_folders(
            _folders(log_folder) or [log_folder], _loop_files(path), report, log_folder
        )
    if _holds_records(path):  # one loop's log: its loop file is beside the improvement_log folder
        return _of_folders([path], files_in(path.absolute().parent.parent), report)
    if path.absolute().name == FOLDER or any(map(_holds_records, _folders(path))):
        return _of_folders(_folders(path) or [path], files_in(path.absolute().parent), report)
    # Loops made in Python have a log without a loop file.
    folders = [found for parent in _searched(path) for found in _folders(parent / FOLDER)]
    logs = _with_logs(_readable(_loop_files(path), report), folders, None)
    if not logs:
        raise _nothing_found(path, "neither a loop file (*.ftloop.yaml) nor an improvement log")
    return logs


def _of_folders(
    folders: Iterable[Path],
    files: Iterable[Path],
    report: Report,
    log_folder: Path | None = None,
) -> list[Logged]:
    """The logs in exactly these folders, each with its loop file if that is among `files`."""
    wanted = {real(folder) for folder in folders}
    logs = _with_logs(_readable(files, report), wanted, log_folder)
    return [logged for logged in logs if real(logged.log.folder) in wanted]


def _with_logs(
    configs: Iterable[LoopConfig], folders: Iterable[Path], log_folder: Path | None
) -> list[Logged]:
    """The log of each loop file, then those of the other folders, without duplicates."""
    logs: dict[Path, Logged] = {}
    for config in configs:
        folder = (log_folder or config.folder / FOLDER) / config.name
        logs.setdefault(real(folder), Logged(ImprovementLog(folder), config))
    for folder in folders:
        logs.setdefault(real(folder), Logged(ImprovementLog(folder)))
    return list(logs.values())


def _readable(files: Iterable[Path], report: Report) -> list[LoopConfig]:
    """Read the loop files. Broken ones are reported and skipped: their logs can still be read."""
    configs: list[LoopConfig] = []
    for file in files:
        try:
            configs.append(read_loop_file(file))
        except FtloopError as error:
            report(error)
    return configs


def find_loop_files(paths: Iterable[Path]) -> list[Path]:
    """The loop files for the PATHs of `ftloop run`, without duplicates.

    Raises `ConfigError` for a PATH without any.
    """
    found, empty = search_loop_files(paths)
    if empty:
        raise nothing_to_run(empty[0])
    return found


def search_loop_files(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The loop files for these PATHs, without duplicates, and the PATHs that have none."""
    files: dict[Path, Path] = {}
    empty: list[Path] = []
    for path in paths:
        if not path.is_file():
            _check_folder(path)
        found = [path] if path.is_file() else list(_loop_files(path))
        if not found:
            empty.append(path)
        for file in found:
            files.setdefault(real(file), file)
    return list(files.values()), empty


def nothing_to_run(path: Path) -> ConfigError:
    """The error for a PATH without a loop file."""
    return _nothing_found(path, "no loop file (*.ftloop.yaml)")


def log_folders(scope: Iterable[Path], log_folder: Path | None) -> list[Path]:
    """The folders of all logs below these folders, or in the one that `--log` names."""
    parents = [log_folder] if log_folder else [p / FOLDER for s in scope for p in _searched(s)]
    found = (folder for parent in parents for folder in _folders(parent))
    return list(dict.fromkeys(folder for folder in found if _holds_records(folder)))


def two_loops_error(log: Path, loop: LoopConfig, other: str) -> ConfigError:
    """The error for a loop whose log another loop writes too."""
    return ConfigError(
        f"wanted a log for each loop, found two loops that write {shown_path(log)}: "
        f"this one and {other}",
        where=loop.locate("name") or Location(loop.source),
        cure="Give one of them another name (name: ...), or another log folder.",
    )


def log_key(log: Path) -> Path:
    """What tells logs apart on every system: on some, the folders X and x are one."""
    place = real(log)
    return place.with_name(place.name.casefold())


def check_log_folders(configs: Iterable[LoopConfig], log_folder: Path | None) -> None:
    """Raise a `ConfigError` where two loop files have one name, and so one log."""
    writers: dict[Path, LoopConfig] = {}
    for config in configs:
        folder = real((log_folder or config.folder / FOLDER) / config.name)
        other = writers.setdefault(log_key(folder), config)
        if other is not config and real(other.file) != real(config.file):
            raise two_loops_error(folder, config, other.source)


def _loop_files(folder: Path) -> Iterator[Path]:
    for searched in _searched(folder):
        yield from files_in(searched)


def _searched(folder: Path) -> Iterator[Path]:
    """A folder and its subfolders, without hidden ones, build output and virtual environments."""
    for parent, names, files in os.walk(folder):
        if "pyvenv.cfg" in files and Path(parent) != folder:
            names.clear()
            continue
        names[:] = sorted(n for n in names if not n.startswith(".") and n not in NOT_SEARCHED)
        yield Path(parent)


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _holds_records(folder: Path) -> bool:
    """Whether a folder is one loop's log, by file names alone: a damaged record is still one."""
    return any(RECORD_NAME.fullmatch(path.name) for path in folder.glob("*.yaml"))


def _meant(path: Path) -> str:
    """What a path that does not exist may stand for: a loop by its name, or one misspelt."""
    beside = path.parent
    named = [beside / f"{path.name}{suffix}" for suffix in SUFFIXES]
    named.append(beside / FOLDER / path.name)
    if found := [candidate for candidate in named if candidate.exists()]:
        return f"Did you mean {str(found[0])!r}?"
    if not beside.is_dir() or not path.name:
        return ""
    near = [p.name for p in beside.iterdir() if p.is_dir() or p.name.endswith(SUFFIXES)]
    cure = did_you_mean(path.name, (name for name in near if not name.startswith(".")))
    return cure if cure.startswith("Did you mean") else ""


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise ConfigError("no such file or folder", where=Location(str(path)), cure=_meant(path))
    if not os.access(path, os.R_OK | os.X_OK):
        raise ConfigError("can't be read: permission denied", where=Location(str(path)))


def _nothing_found(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{what} found in {shown_path(path.absolute())}",
        cure="'ftloop init' writes a loop to start from.",
    )
