"""The process that trains a baseline in a checkout of its commit; `retrain` starts it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ftloop.config.sources import Mixture
from pytest_ftloop.core.errors import DataError, FtloopError
from pytest_ftloop.core.records import SeedRun, Settings
from pytest_ftloop.data.identity import model_path
from pytest_ftloop.log import FOLDER, ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig


def main() -> int:
    """Run in the training process: read the request, write the run to the folder that it names."""
    try:
        request = json.loads(sys.argv[1])
        (_train_whole if request.get("whole") else _train)(request)
    except FtloopError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # the parent is interrupted too, and prints the message
    return 0


def _train(request: dict[str, Any]) -> None:
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.core.metrics import best_metrics
    from pytest_ftloop.core.progress import Silent
    from pytest_ftloop.loop import backend as backends
    from pytest_ftloop.loop.inputs import Inputs, data_facts, sampled, with_limit
    from pytest_ftloop.loop.warm_start import warm_started

    loop_file, here = Path(request["loop_file"]), Path(request["here"])
    in_commit = read_loop_file(loop_file)
    config = with_what_git_lacks(in_commit, here)
    settings = config.only_it_decides(Settings(**request["settings"]))
    # Trackers would write to the worktree, which is removed afterwards.
    settings = replace(settings, training={**settings.training, "report_to": "none"})
    config = replace(config, settings=settings)
    log = ImprovementLog(config.folder / FOLDER / config.name)
    config, inputs = warm_started(config, Inputs.of(config, None), log)
    train = {**data_facts(inputs.train), "sampled": sampled(config, inputs.train)}
    data = {"train": train, **inputs.measured_data}
    for role in ("train", "eval"):
        stated, logged = getattr(in_commit, role), request["data"].get(role, {})
        if getattr(config, role) != stated:
            _check_unchanged(role, stated, data[role]["sha256"], logged.get("sha256"), request)
            data[role] = {**data[role], "source": stated}
    if config.model != in_commit.model:
        _check_unchanged("model", in_commit.model, inputs.model, request["model"], request)
    run = backends.local(config, inputs, Silent()).train(
        settings, name=f"{request['name']}-baseline", metric=request["metric"]
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
            data=with_limit(data, run.evaluation),
            metrics=best_metrics(run.evaluation, inputs.set_metrics),
            environment=run.environment,
            cost=run.cost,
            examples=run.evaluation.examples,
            guards=run.evaluation.guards,
        )
    )


def _train_whole(request: dict[str, Any]) -> None:
    """Train the checked-out loop file's own settings as an iteration of a log of their own."""
    from pytest_ftloop.config.loop_config import read_loop_file
    from pytest_ftloop.loop.loop import Loop
    from pytest_ftloop.loop.options import Options

    config = with_what_git_lacks(read_loop_file(Path(request["loop_file"])), Path(request["here"]))
    settings = config.settings
    if "report_to" in settings.training:  # trackers would write to the worktree
        settings = replace(settings, training={**settings.training, "report_to": "none"})
    # Seeds, holdout and policy are the candidate's matter: this is only what it is compared with.
    # Elsewhere the loop file would be read again, without what git lacks.
    plain = config.loop.model_copy(update={"seeds": 1, "run_on": None})
    config = replace(config, settings=settings, loop=plain, holdout=None)
    Loop(config, Options(explore=False, log_folder=Path(request["into"]))).run()


def with_what_git_lacks(config: LoopConfig, here: Path) -> LoopConfig:
    """A checked-out loop with the model and data that git does not keep taken from `here`.

    They become absolute paths; all other sources stay as in the loop file.
    """

    def found(source: Any) -> Any:
        if isinstance(source, Mixture):
            return Mixture(tuple((found(part), weight) for part, weight in source.parts))
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
