"""Train the baseline on this machine from its own commit: its loop file, code and data.

The commit is checked out to a temporary worktree, and trained in a separate process: the modules of
both commits (data functions, scorers) must not mix, and memory need not hold both models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.core.cache import cache_folder
from pytest_ftloop.core.errors import ConfigError, DataError, FtloopError, TrainingError
from pytest_ftloop.core.git import GitError, Repository
from pytest_ftloop.core.records import SeedRun, Settings
from pytest_ftloop.core.runs import environment_changes
from pytest_ftloop.data.identity import model_path
from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.gate.baseline import Baseline

_START = (
    "import sys; sys.path = list(filter(None, sys.path)); "
    "from pytest_ftloop.loop.retrain import main; sys.exit(main())"
)
"""The process's code. It drops the working folder from the path, which `-m` would put first."""


def retrain_baseline(
    config: LoopConfig, baseline: Baseline, candidate: Iteration, log: ImprovementLog
) -> SeedRun:
    """Train the baseline's settings on its commit's data, and log the run in the candidate's log.

    Raises `TrainingError` if the process fails, or if the candidate's figures are not from this
    environment either; `ConfigError` for a loop that can't be trained from a commit.
    """
    iteration, folder = baseline.iteration, baseline.folder
    assert iteration is not None
    assert folder is not None
    if not config.lines:
        raise ConfigError(
            f"the baseline of {config.name} can't be trained again: the loop is made in Python",
            cure="--ftloop-retrain-baseline needs a loop file that the commit has too.",
        )
    repository = Repository.containing(config.folder)
    with repository.worktree(baseline.commit) as tree:
        folders = [tree / folder.parent.parent]
        with suppress(GitError):  # a log elsewhere (--ftloop-log) is not beside the loop file
            folders.append(tree / repository.relative(config.folder))
        loop_file = _loop_file(folders, folder.name, config, baseline.shown)
        with tempfile.TemporaryDirectory(prefix="ftloop-") as made:
            request = _request(loop_file, iteration, config, Path(made))
            _train_apart(request, repository.root, tree)
            (run,) = ImprovementLog(Path(made)).view.seed_runs()
            # Examples are read lazily: read them before the temporary folder is removed.
            run = replace(run, examples=tuple(run.examples))
    if changed := environment_changes(run.environment, candidate.environment):
        raise TrainingError(
            "the baseline was trained here, but the candidate in the log is from another "
            f"environment ({', '.join(changed)}), so the comparison is not fair",
            cure="Add --ftloop-retrain, which trains the candidate here too.",
        )
    return log.append_seed_run(run)


def main() -> int:
    """Run in the training process: read the request, write the run to the folder that it names."""
    try:
        _train(json.loads(sys.argv[1]))
    except FtloopError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # the parent is interrupted too, and prints the message
    return 0


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
        "here": str(config.folder.resolve()),
        "settings": asdict(iteration.settings),
        "into": str(into),
        "loop": iteration.loop,
        "iteration": iteration.id,
        "name": iteration.name,
        "seed": iteration.seed,
        "group": iteration.group,
        "model": iteration.model,
        "data": {role: dict(facts) for role, facts in iteration.data.items()},
    }


def _train_apart(request: dict[str, Any], root: Path, tree: Path) -> None:
    """Train in a process with the worktree's modules and working folder, not the user's."""
    here = Path.cwd().resolve()
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
    own = Path(__file__).resolve().parents[2]
    for entry in dict.fromkeys(sys.path):
        path = Path(entry).resolve()
        if path != own and root in (path, *path.parents):
            mapped = tree / path.relative_to(root)
            if mapped.is_dir():
                yield str(mapped)


def _train(request: dict[str, Any]) -> None:
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.core.metrics import best_metrics
    from pytest_ftloop.core.progress import Silent
    from pytest_ftloop.loop import backend as backends
    from pytest_ftloop.loop.inputs import Inputs, data_facts

    loop_file, here = Path(request["loop_file"]), Path(request["here"])
    in_commit = read_loop_file(loop_file)
    config = with_what_git_lacks(in_commit, here)
    settings = Settings(**request["settings"])
    # Trackers would write to the worktree, which is removed afterwards.
    settings = replace(settings, training={**settings.training, "report_to": "none"})
    config = replace(config, settings=settings)
    inputs = Inputs.of(config, None)
    data = {"train": data_facts(inputs.train), "eval": data_facts(inputs.eval)}
    for role in ("train", "eval"):
        stated, logged = getattr(in_commit, role), request["data"].get(role, {})
        if getattr(config, role) != stated:
            _check_unchanged(role, stated, data[role]["sha256"], logged.get("sha256"), request)
            data[role] = {**data[role], "source": stated}
    if config.model != in_commit.model:
        _check_unchanged("model", in_commit.model, inputs.model, request["model"], request)
    run = backends.local(config, inputs, Silent()).train(
        settings, name=f"{request['name']}-baseline"
    )
    ImprovementLog(Path(request["into"])).append_seed_run(
        SeedRun(
            loop=request["loop"],
            iteration=request["iteration"],
            seed=request["seed"],
            role="baseline",
            fingerprint=inputs.fingerprint(config, config.settings),
            group=request["group"],
            scoring=inputs.scoring,
            data=data,
            metrics=best_metrics(run.evaluation),
            environment=run.environment,
            cost=run.cost,
            examples=run.evaluation.examples,
        )
    )


def with_what_git_lacks(config: LoopConfig, here: Path) -> LoopConfig:
    """A checked-out loop with the model and data that git does not keep taken from `here`.

    They become absolute paths; all other sources stay as in the loop file.
    """

    def found(source: Any) -> Any:
        if not isinstance(source, str) or model_path(source, config.folder).exists():
            return source
        return str(here / source) if (here / source).exists() else source

    model = config.model if config.model == "tiny" else found(config.model)
    return replace(config, model=model, train=found(config.train), eval=found(config.eval))


def _check_unchanged(what: str, stated: str, now: str, then: str | None, request: Any) -> None:
    """Raise `DataError` if a model or data set outside git has changed since the iteration."""
    if now != then:
        raise DataError(
            f"{what} {stated} is not under version control, and has changed since iteration "
            f"{request['name']} was trained",
            cure="Restore it, or compare with a commit that contains it.",
        )
