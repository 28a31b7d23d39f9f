"""Train the baseline on this machine from its own commit: its loop file, code and data.

The commit is checked out to a temporary worktree, and trained in a separate process: the modules of
both commits (data functions, scorers) must not mix, and memory need not hold both models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.chain import chosen_by, next_number
from pytest_ftloop.core.errors import ConfigError, FtloopError, TrainingError
from pytest_ftloop.core.files import real
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.records import SeedRun
from pytest_ftloop.core.runs import environment_changes
from pytest_ftloop.core.temporary import temporary_folder
from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.baseline import Baseline

_START = (
    "import sys; sys.path = list(filter(None, sys.path)); "
    "from pytest_ftloop.loop.retrain_process import main; sys.exit(main())"
)
"""The process's code. It drops the working folder from the path, which `-m` would put first."""


def retrain_baseline(
    config: LoopConfig, baseline: Baseline, candidate: Iteration, log: ImprovementLog
) -> SeedRun:
    """Train the baseline's settings on its commit's data, and log the run in the candidate's log.

    Raises `TrainingError` if the process fails, or if the candidate's figures are not from this
    environment either; `ConfigError` for a loop that can't be trained from a commit.
    """
    iteration = baseline.iteration
    assert iteration is not None
    with _checked_out(config, baseline) as (loop_file, train), temporary_folder() as made:
        train(_request(loop_file, iteration, config, made))
        (run,) = ImprovementLog(made).view.seed_runs()
        # Examples are read lazily: read them before the temporary folder is removed.
        run = replace(run, examples=tuple(run.examples))
    _check_environment(run.environment, candidate)
    return log.append_seed_run(run)


def train_unlogged(
    config: LoopConfig, baseline: Baseline, candidate: Iteration, log: ImprovementLog
) -> Iteration:
    """Train the loop file of the baseline's commit, of which the log there holds no iteration.

    The iteration is added to the candidate's log, which mends that. Raises as `retrain_baseline`.
    """
    with _checked_out(config, baseline) as (loop_file, train), temporary_folder() as made:
        here = str(real(config.folder))
        train({"loop_file": str(loop_file), "here": here, "into": str(made), "whole": True})
        (folder,) = (path for path in made.iterdir() if path.is_dir())
        trained = ImprovementLog(folder).read()[0]
        trained = replace(trained, examples=tuple(trained.examples))
    _check_environment(trained.environment, candidate)
    number = next_number(log.read())
    return log.append(replace(trained, loop=candidate.loop, number=number))


@contextmanager
def _checked_out(
    config: LoopConfig, baseline: Baseline
) -> Iterator[tuple[Path, Callable[[dict[str, Any]], None]]]:
    """The loop file in a checkout of the baseline's commit, and what trains it from there."""
    folder = baseline.folder
    if not config.lines:
        raise ConfigError(
            f"the baseline of {config.name} can't be trained again: the loop is made in Python",
            cure="--ftloop-retrain-baseline needs a loop file that the commit has too.",
        )
    if not baseline.commit or folder is None:
        raise ConfigError(
            f"the baseline of {config.name} can't be trained again: its log is in no repository",
            cure="Commit the log in the loop's repository, or remove --ftloop-retrain-baseline.",
        )
    repository = Repository.containing(config.folder)
    with repository.worktree(baseline.commit) as tree:
        folders = [tree / folder.parent.parent]
        with suppress(GitError):  # a log elsewhere (--ftloop-log) is not beside the loop file
            folders.append(tree / repository.relative(config.folder))
        loop_file = _loop_file(folders, folder.name, config, baseline.shown)
        yield loop_file, lambda request: _train_apart(request, repository.root, tree)


def _check_environment(trained: Mapping[str, str], candidate: Iteration) -> None:
    if changed := environment_changes(trained, candidate.environment):
        raise TrainingError(
            "the baseline was trained here, but the candidate in the log is from another "
            f"environment ({', '.join(changed)}), so the comparison is not fair",
            cure="Add --ftloop-retrain, which trains the candidate here too.",
        )


def _loop_file(folders: Sequence[Path], name: str, config: LoopConfig, shown: str) -> Path:
    """The file of the loop called `name`, from the first of these folders that has it."""
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.config.loop_yaml import files_in

    for folder in folders:
        for file in files_in(folder) if folder.is_dir() else ():
            found = None
            with suppress(FtloopError):  # another loop's file may be broken
                found = read_loop_file(file)
            if found is None or found.name != name:
                continue
            if found.scoring.scorer == "hook":
                raise ConfigError(
                    f"the baseline can't be trained: its scorer at {shown} is 'hook', which needs "
                    "pytest",
                    cure="For later commits, name the function instead: module:function.",
                )
            return file
    raise ConfigError(
        f"the baseline can't be trained: {shown} has no loop file of {name}",
        where=config.locate("name"),
        cure="Name a commit that has one with --ftloop-baseline.",
    )


def _request(
    loop_file: Path, iteration: Iteration, config: LoopConfig, into: Path
) -> dict[str, Any]:
    return {
        "loop_file": str(loop_file),
        "here": str(real(config.folder)),
        "settings": asdict(iteration.settings),
        "into": str(into),
        "loop": iteration.loop,
        "iteration": iteration.id,
        "name": iteration.name,
        "seed": iteration.seed,
        "group": iteration.group,
        "metric": chosen_by(iteration),
        "model": iteration.model,
        "data": {role: dict(facts) for role, facts in iteration.data.items()},
    }


def _train_apart(request: dict[str, Any], root: Path, tree: Path) -> None:
    """Train in a process with the worktree's modules and working folder, not the user's."""
    here = real(Path.cwd())
    there = tree / here.relative_to(root) if root in (here, *here.parents) else tree
    paths = [*_mapped_paths(root, tree), os.environ.get("PYTHONPATH", "")]
    env = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # Absolute, because the process has another working folder.
        "FTLOOP_CACHE": str(cache_folder().absolute()),
    }
    done = subprocess.run(
        [sys.executable, "-c", _START, json.dumps(request)],
        cwd=there if there.is_dir() else tree,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        # 2 is our own message, shown whole; of a traceback the last line names the error.
        shown = lines if done.returncode == 2 else lines[-1:]
        raise TrainingError("the baseline could not be trained here: " + "\n".join(shown))


def _mapped_paths(root: Path, tree: Path) -> Iterator[str]:
    """The folders on `sys.path` that are inside the repository, mapped to the worktree."""
    own = real(Path(__file__)).parents[2]
    for entry in dict.fromkeys(sys.path):
        path = real(Path(entry))
        if path != own and root in (path, *path.parents):
            mapped = tree / path.relative_to(root)
            if mapped.is_dir():
                yield str(mapped)
