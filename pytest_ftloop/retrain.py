"""Train the baseline's own commit here: its loop file, code and data, from a temporary worktree.

In a process of its own, so that modules of both commits (data functions, scorers) do not mix, and
neither the models of both in memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.errors import ConfigError, FtloopError, TrainingError
from pytest_ftloop.git import Repository
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.records import SeedRun, Settings

if TYPE_CHECKING:
    from pytest_ftloop.baseline import Baseline
    from pytest_ftloop.config import LoopConfig
    from pytest_ftloop.records import Iteration


def retrain_baseline(config: LoopConfig, baseline: Baseline, log: ImprovementLog) -> SeedRun:
    """Train the baseline's settings with its commit's data, and log the run beside the candidate's.

    Raises `TrainingError` when its process fails, `ConfigError` for a loop without a file.
    """
    iteration, folder = baseline.iteration, baseline.folder
    assert iteration is not None
    assert folder is not None
    if not config.lines:
        raise ConfigError(
            f"the baseline of {config.name} can't be trained again: the loop is made in Python",
            cure="--ftloop-retrain-baseline needs a loop file, which its commit has too.",
        )
    repository = Repository.containing(config.folder)
    with repository.worktree(baseline.commit) as tree:
        loop_file = _loop_file(tree / folder.parent.parent, folder.name, config)
        with tempfile.TemporaryDirectory(prefix="ftloop-") as made:
            _train_apart(loop_file, iteration, config, Path(made))
            (run,) = ImprovementLog(Path(made)).view.seed_runs()
            rows = tuple(run.examples)
            return log.append_seed_run(replace(run, examples=rows))


def main(arguments: Sequence[str]) -> int:
    """The process that trains: reads the request, writes the run into the folder it names."""
    request = json.loads(arguments[0])
    try:
        _train(request)
    except FtloopError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _loop_file(folder: Path, name: str, config: LoopConfig) -> Path:
    """The loop file that wrote the log `improvement_log/<name>` in the worktree's `folder`."""
    from pytest_ftloop.config import read_loop_file
    from pytest_ftloop.search import files_in

    files = files_in(folder) if folder.is_dir() else []
    named = [file for file in files if read_loop_file(file).name == name]
    if not named:
        raise ConfigError(
            f"the baseline's commit has no loop file of the loop {name!r}",
            where=config.locate("name"),
            cure="Name a commit that has it with --ftloop-baseline.",
        )
    return named[0]


def _train_apart(loop_file: Path, iteration: Iteration, config: LoopConfig, into: Path) -> None:
    request = {
        "loop_file": str(loop_file),
        "here": str(config.folder.resolve()),
        "settings": asdict(iteration.settings),
        "into": str(into),
        "loop": iteration.loop,
        "iteration": iteration.id,
        "seed": iteration.seed,
        "group": iteration.group,
    }
    command = [sys.executable, "-m", __name__, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        shown = said if done.returncode == 2 else said[-1:]
        raise TrainingError("the baseline could not be trained here: " + "\n".join(shown))


def _train(request: dict[str, Any]) -> None:
    from pytest_ftloop.config import read_loop_file
    from pytest_ftloop.fingerprint import scoring_identity
    from pytest_ftloop.loop import Inputs, data_facts, lora_runner
    from pytest_ftloop.metrics import best_metrics
    from pytest_ftloop.progress import Silent

    loop_file, here = Path(request["loop_file"]), Path(request["here"])
    config = _with_what_git_lacks(read_loop_file(loop_file), here)
    config = replace(config, settings=Settings(**request["settings"]))
    inputs = Inputs.of(config, None)
    run = lora_runner(inputs, config, Silent())(config.settings, None, None)
    ImprovementLog(Path(request["into"])).append_seed_run(
        SeedRun(
            loop=request["loop"],
            iteration=request["iteration"],
            seed=request["seed"],
            role="baseline",
            fingerprint=inputs.fingerprint(config, config.settings),
            group=request["group"],
            scoring=scoring_identity(config.scoring, config.folder),
            data={"train": data_facts(inputs.train), "eval": data_facts(inputs.eval)},
            metrics=best_metrics(run.evaluation),
            environment=run.environment,
            cost=run.cost,
            examples=run.evaluation.examples,
        )
    )


def _with_what_git_lacks(config: LoopConfig, here: Path) -> LoopConfig:
    """Model and data that are not under version control are taken from where they are now."""

    def found(source: Any) -> Any:
        if not isinstance(source, str) or (config.folder / source).exists():
            return source
        return str(here / source) if (here / source).exists() else source

    return replace(
        config, model=found(config.model), train=found(config.train), eval=found(config.eval)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
