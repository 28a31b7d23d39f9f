"""Resolve `[BASE..HEAD] [PATH ...]`: loop files, the commit they are of, the commit to compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.cli.command import log_argument
from pytest_ftloop.core.errors import ConfigError, FtloopError, shown_path
from pytest_ftloop.core.files import real

if TYPE_CHECKING:
    import argparse

    from pytest_ftloop.config.gates import Gate, Regression
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.gate.reference import Range
    from pytest_ftloop.log import ImprovementLog
    from pytest_ftloop.loop.options import Options
    from pytest_ftloop.loop.result import LoopResult


@dataclass(frozen=True)
class Candidates:
    """The loop files to judge, and the commit to compare them with (`base`, None: the default).

    `log` is the folder given by `--log`, in the same commit as the files. If a commit is judged,
    `root` is the repository's folder and `tree` its temporary checkout. `scope` are the folders
    that were searched, `empty` those of them without a loop file.
    """

    files: tuple[Path, ...]
    base: str | None
    log: Path | None = None
    root: Path | None = None
    tree: Path | None = None
    scope: tuple[Path, ...] = ()
    empty: tuple[Path, ...] = ()

    @classmethod
    def of(cls, paths: Sequence[Path], base: str | None, **fields: Any) -> Candidates:
        """The candidates below these paths."""
        from pytest_ftloop.loop.workspace import search_loop_files

        files, empty = search_loop_files(paths)
        scope = tuple(path for path in paths if path.is_dir())
        return cls(tuple(files), base, scope=scope, empty=tuple(empty), **fields)

    def check_names(self) -> None:
        """Raise a `ConfigError` where two loops write one log."""
        from pytest_ftloop.config.loop_config import read_loop_file
        from pytest_ftloop.config.loop_yaml import files_in
        from pytest_ftloop.loop.workspace import check_log_folders

        beside = [file for folder in {f.parent for f in self.files} for file in files_in(folder)]
        configs = []
        for file in dict.fromkeys(real(path) for path in (*self.files, *beside)):
            with suppress(FtloopError):  # a broken loop file is reported when it is judged
                configs.append(read_loop_file(Path(os.path.relpath(file))))
        check_log_folders(configs, self.log)

    def rest(
        self,
        done: Sequence[LoopResult | Path],
        rule: Regression | None = None,
        thresholds: Callable[[ImprovementLog], Sequence[Gate]] = lambda _: (),
    ) -> Iterator[tuple[str, LoopResult | FtloopError]]:
        """What else is to be judged in these folders, once their loop files are `done`.

        Those are the logs without a loop file, each with its result by these gates (None: the
        default one), and those that nothing judges any more, each with an `UnjudgedError`. A loop
        that raised is given by its log's folder.
        """
        from pytest_ftloop.config.gates import DEFAULT_REGRESSION
        from pytest_ftloop.core.git import GitError
        from pytest_ftloop.loop.census import Census, judged_from_log

        options, results, rule = self.options(), list(done), rule or DEFAULT_REGRESSION
        try:
            census = Census.of(self.scope, results, options)
        except GitError:
            # Where no loop could be judged, each was an error for the same reason.
            if not self.files or any(not isinstance(each, Path) for each in done):
                raise
            return
        for log in census.without_loop_file():
            source = shown_path(log.folder)
            results.append(log.folder)
            try:
                results.append(result := judged_from_log(log, options, rule, thresholds(log)))
                yield source, result
            except FtloopError as error:
                yield source, error
        if len(results) > len(done):  # one of these may continue a log that was moved
            census = Census.of(self.scope, results, options)
        for unjudged in census.unjudged():
            yield unjudged.log, unjudged

    def check_not_empty(self) -> None:
        """Raise a `ConfigError` for a path without a loop file."""
        from pytest_ftloop.loop.workspace import nothing_to_run

        if self.empty:
            raise nothing_to_run(self.empty[0])

    def read(self, file: Path) -> LoopConfig:
        """Read a loop file; data and models that git lacks are taken from the working tree."""
        from pytest_ftloop.config.loop_config import read_loop_file

        config = read_loop_file(file)
        if self.root is None or self.tree is None:
            return config
        from pytest_ftloop.loop.retrain_process import with_what_git_lacks

        return with_what_git_lacks(config, self.root / real(config.folder).relative_to(self.tree))

    def log_folder(self, config: LoopConfig) -> Path:
        """The folder of a loop's log."""
        from pytest_ftloop.log import FOLDER

        return (self.log or config.folder / FOLDER) / config.name

    def likely_log_folder(self, file: Path) -> Path:
        """The folder of the log of a loop file that may have mistakes."""
        from pytest_ftloop.config.loop_config import likely_name
        from pytest_ftloop.log import FOLDER

        return (self.log or file.parent / FOLDER) / likely_name(file)

    def options(self) -> Options:
        """The options to replay these loops with."""
        from pytest_ftloop.loop.options import Options

        log = self.log and self.log.absolute()
        return Options(replay=True, baseline=self.base, log_folder=log)


def commit_arguments(to: argparse.ArgumentParser) -> None:
    """Add `[BASE..HEAD] [PATH ...]`, `--baseline`, `--staged` and `--log`."""
    to.add_argument(
        "where",
        nargs="*",
        metavar="[BASE..HEAD] [PATH]",
        help="what to compare: BASE or BASE.. is a commit and the current files, A..B two commits, "
        "A...B their merge base and B (default: where the change starts, or HEAD if it is not "
        "committed yet, and the current files); then loop files, or folders to search for "
        "*.ftloop.yaml (default: .)",
    )
    to.add_argument("--baseline", metavar="REF", help="the commit to compare with, like BASE")
    to.add_argument(
        "--staged",
        action="store_true",
        help="judge the files that are staged in git, not the current ones",
    )
    log_argument(to)


@contextmanager
def candidates(arguments: argparse.Namespace) -> Iterator[Candidates]:
    """The candidates of the command line; a named HEAD is checked out while they are used."""
    from pytest_ftloop.core.git import at_one_moment

    with at_one_moment():
        yield from _candidates(arguments)


def _candidates(arguments: argparse.Namespace) -> Iterator[Candidates]:
    from pytest_ftloop.core.git import GitError, Repository
    from pytest_ftloop.gate.reference import Range, reference, reference_of

    stated, paths = _split(arguments.where)
    if stated and arguments.baseline:
        raise ConfigError(
            f"the baseline is named twice: {arguments.baseline} and {stated.base or 'a range'}",
            cure="Give one of them.",
        )
    named, log = stated or Range(arguments.baseline, None), arguments.log
    if arguments.staged and named.head is not None:
        raise ConfigError(
            f"the candidate is named twice: --staged and {named.head}", cure="Give one of them."
        )
    # Most calls judge the current files: these need no checkout, and not even a repository.
    if named.head is None and not named.merge_base and not arguments.staged:
        yield Candidates.of(paths, named.base, log=log)
        return
    repository = Repository.containing(paths[0])
    head = repository.staged() if arguments.staged else named.head
    # Resolved before the checkout, in which HEAD is the candidate itself.
    if named.merge_base:
        base = repository.merge_base(named.base or "HEAD", named.head or "HEAD")
    else:
        try:
            if named.base is None and named.head is not None:
                base = reference_of(repository, named.head, os.environ).commit
            else:
                base = reference(repository, named.base, os.environ).commit
        except GitError as error:
            if head is None or not arguments.staged or error.kind != "no-commit":
                raise
            base = head  # before the first commit there is nothing else to compare with
    if head is None:
        yield Candidates.of(paths, base, log=log)
        return
    inside = [repository.relative(path) for path in paths]
    if log is not None:  # a log inside the repository is read in the commit, another one as it is
        log = real(log)
        log = Path(repository.relative(log)) if _is_inside(log, repository.root) else log
    here = Path.cwd()
    with repository.worktree(head) as tree:
        below = tree / repository.relative(here) if _is_inside(here, repository.root) else tree
        # Messages show paths relative to the working folder: so they look as the user wrote them.
        os.chdir(below if below.is_dir() else tree)
        try:
            paths = [Path(os.path.relpath(tree / path)) for path in inside]
            in_tree = None if log is None else tree / log
            yield Candidates.of(paths, base, log=in_tree, root=repository.root, tree=tree)
        finally:
            os.chdir(here)


def _split(words: Sequence[str]) -> tuple[Range | None, list[Path]]:
    """The range among the words, and the paths. A word is a path if a file of that name exists."""
    from pytest_ftloop.gate.reference import split_range

    paths = [Path(word) for word in words if Path(word).exists()]
    others = [word for word in words if not Path(word).exists()]
    if len(others) > 1:
        raise ConfigError(
            f"wanted one commit or range; {others[0]!r} and {others[1]!r} are neither files nor "
            "folders, so both would be commits",
            cure="For example: ftloop diff main..HEAD examples",
        )
    if others and (
        others[0].endswith((".yaml", ".yml"))
        or others[0].startswith(("/", "./", "../"))
        or "/." in others[0]
    ):
        raise ConfigError(f"no such file or folder: {others[0]}")
    return (split_range(others[0]) if others else None), paths or [Path()]


def _is_inside(path: Path, root: Path) -> bool:
    return root in (real(path), *real(path).parents)
