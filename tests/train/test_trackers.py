"""Experiment trackers: each iteration is a run of its own there, and training does not notice.

The real libraries are tested where they are installed; `Tracker` stands in for them elsewhere.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, MLflowCallback

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.errors import ConfigError, TrainingError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Settings
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.train import trackers
from pytest_ftloop.train.arguments import sft_config
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.lora_trainer import LoraTrainer
from pytest_ftloop.train.trackers import Tracked, check_trackers, reported, settings_to_report
from tests.small_base import LORA, TRAINING, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")

VARIABLES = (
    *("TENSORBOARD_LOGGING_DIR", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_NESTED_RUN"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "TRACKIO_SPACE_ID"),
)


class Tracker(TrainerCallback):
    """A tracker as the trainer knows one; what it is told, by run."""

    runs: dict[str, list[dict[str, Any]]]

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.logs = self.runs.setdefault(args.run_name, [])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
        self.logs.append({"step": state.global_step, **logs})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[dict[str, Any]]]:
    """What the tracker `fake` is told, by run."""
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "fake", Tracker)
    monkeypatch.setattr(Tracker, "runs", {}, raising=False)
    return Tracker.runs


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def loop(folder: Path, report_to: Any, iterations: int = 2, **training: Any) -> LoopConfig:
    stated = {**TRAINING, "num_train_epochs": 1, "learning_rate": 1e-3, "report_to": report_to}
    return from_python(
        name="topics",
        folder=folder,
        source="test.py",
        train=rows(48, 1),
        eval=rows(8, 2),
        lora=LORA,
        training={**stated, **training},
        loop={"iterations": iterations, "patience": 9},
    )


def run(config: LoopConfig) -> LoopResult:
    return Loop(config, Options(explore=True)).run()


# training does not notice


def test_reporting_changes_no_loss(base: Base, task: Any, runs: Any, tmp_path: Path) -> None:
    """Losses and figures are the same to the last bit, whoever is told of them."""
    silent = run_lora(base, task(), settings(), Silent())
    tracked = Tracked("topics/001-a", tmp_path)
    told = run_lora(base, task(), settings(report_to=["fake"]), Silent(), tracked=tracked)
    assert silent.training == told.training
    assert silent.evaluation == told.evaluation


def test_trackers_are_told_of_steps_and_evaluation_points(
    base: Base, task: Any, runs: Any, tmp_path: Path
) -> None:
    """Every step's own figures and those of each evaluation point reach the tracker, once."""
    tracked = Tracked("topics/001-a", tmp_path)
    done = run_lora(base, task(), settings(report_to="fake"), Silent(), tracked=tracked)
    logs = runs.pop("topics/001-a")
    assert {} == runs
    steps = [log for log in logs if "loss" in log]
    assert [(s.step, s.loss) for s in done.training.steps] == [
        (x["step"], x["loss"]) for x in steps
    ]
    assert all({"grad_norm", "mean_token_accuracy", "num_tokens"} <= set(log) for log in steps)
    points = [log for log in logs if "eval_loss" in log]
    assert [(p.step, p.eval_loss, p.token_accuracy) for p in done.training.evals] == [
        (x["step"], x["eval_loss"], x["eval_mean_token_accuracy"]) for x in points
    ]
    assert not any("mean_token_accuracy" in log for log in points)


def test_holdout_and_default_report_nothing(runs: Any, tmp_path: Path) -> None:
    """Without report_to, with none and with null nobody is told."""
    for nothing in ({}, {"report_to": "none"}, {"report_to": None}, {"report_to": []}):
        config = sft_config(Settings({}, nothing), str(tmp_path), lambda _: None)
        assert [] == config.report_to


# names


def test_each_run_has_its_name(runs: Any, tmp_path: Path) -> None:
    """Iterations are told apart by number and id, seed runs by their seed beside."""
    config = loop(tmp_path, "fake")
    result = run(config)
    expected = [f"topics/{iteration.name}" for iteration in result.chain]
    assert expected == list(runs)
    Loop(config, Options(explore=True)).calibrate(2)
    assert [f"topics/{result.best.name}-seed-43"] == list(runs)[2:]


def test_run_name_takes_the_loops_place(tmp_path: Path) -> None:
    """A stated run_name is what the runs' names begin with; TensorBoard's folder is the loop's."""
    tracked = Tracked.of(loop(tmp_path, "none", run_name="../mine"), "001-a")
    assert ("../mine/001-a", tmp_path / "runs/topics/001-a") == (tracked.name, tracked.folder)


def test_folder_of_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's own variable takes the place of `runs`; the runs stay apart in it."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "boards"))
    tracked = Tracked.of(loop(tmp_path, "none"), "001-a")
    assert tmp_path / "boards/topics/001-a" == tracked.folder


def test_the_loop_file_says_where_to_report_to(runs: Any, tmp_path: Path) -> None:
    """What an iteration was logged with does not count: a later one reports where asked to now."""
    run(loop(tmp_path, "none", iterations=1))
    result = run(loop(tmp_path, "fake", iterations=2))
    assert [f"topics/{result.chain[1].name}"] == list(runs)
    logged = Settings({}, {"seed": 1, "report_to": "wandb", "project": "old"})
    now = settings_to_report(logged, loop(tmp_path, "none"))
    assert {"seed": 1, "report_to": "none"} == now.training


# mistakes


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (
            "wandbb",
            "line 3: training.report_to: unknown tracker 'wandbb'\n  Did you mean 'wandb'?",
        ),
        ("wandb", "needs the package wandb, which is not installed\n  pip install wandb"),
        ("[tensorboard, comet_ml]", "needs the package tensorboard, which is not installed"),
        ("comet_ml", "comet_ml needs the package comet-ml, which is not installed"),
    ],
)
def test_tracker_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str, said: str
) -> None:
    """An unknown tracker, or one without its library, is told with its line before training."""
    from pytest_ftloop.config.loop_config import read_loop_file

    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    for role in ("train", "eval"):
        Path(f"{role}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    file = Path("x.ftloop.yaml")
    file.write_text(
        f"data: {{train: train.jsonl, eval: eval.jsonl}}\ntraining:\n  report_to: {stated}\n"
    )
    config = read_loop_file(file)
    monkeypatch.setattr(
        "pytest_ftloop.train.lora_trainer.base_of", lambda *_: pytest.fail("too late")
    )
    with pytest.raises(ConfigError) as caught:
        LoraTrainer.loaded(config, Inputs.of(config, None).task(config), Silent())
    assert str(caught.value).startswith("x.ftloop.yaml:3: ")
    assert said.removeprefix("line 3: ") in str(caught.value)


def test_every_tracker_of_the_trainer_is_known() -> None:
    """Each tracker has the package to install; kubeflow needs none."""
    assert set(INTEGRATION_TO_CALLBACK) - {"kubeflow"} == set(trackers.PACKAGES)


def test_folder_that_looks_like_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `swanlab/` that an older run left is not the library."""
    (tmp_path / "swanlab").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="pip install swanlab"):
        check_trackers("swanlab", None)


def test_tracker_that_refuses(
    base: Base, task: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an integration raises is the user's to mend, not a traceback."""
    module = sys.modules[MLflowCallback.__module__]
    code = (
        "def on_train_begin(self, *args, **kwargs):\n    raise RuntimeError('no key\\nand more')\n"
    )
    space = vars(module)
    exec(code, space)
    monkeypatch.setattr(Tracker, "on_train_begin", space.pop("on_train_begin"))
    with pytest.raises(TrainingError, match="reporting to fake failed: no key\n"):
        run_lora(base, task(), settings(report_to="fake"), Silent())


# the end of a run


class Library:
    """A tracker's library, as far as runs are begun and ended; `ended` has how."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Any = None) -> None:
        self.run, self.ended = run, []
        current = SimpleNamespace(get=lambda: self.run)
        self.context_vars = SimpleNamespace(current_run=current)
        for name in ("wandb", "mlflow", "trackio"):
            monkeypatch.setitem(sys.modules, name, self)

    def active_run(self) -> Any:
        return self.run

    def finish(self, exit_code: int | None = None) -> None:
        self.end_run(exit_code)

    def end_run(self, status: Any = None) -> None:
        self.run = None
        self.ended.append(status)


def arguments(report_to: str) -> Any:
    return SimpleNamespace(report_to=[report_to], run_name=None)


@pytest.mark.parametrize(
    ("name", "well", "badly"),
    [("wandb", 0, 1), ("mlflow", "FINISHED", "FAILED"), ("trackio", None, None)],
)
def test_each_run_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, well: Any, badly: Any
) -> None:
    """A run that was begun is ended, told whether it failed; by Ctrl-C too."""
    library, tracked = Library(monkeypatch), Tracked("topics/001-a", tmp_path)
    with reported(arguments(name), tracked):
        library.run = "ours"

    def interrupted() -> None:
        with reported(arguments(name), tracked):
            library.run = "ours"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with reported(arguments(name), tracked) as report:
        library.run = "ours"
        report.failed = True  # out of memory
    assert [well, badly, badly] == library.ended


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_run_of_the_users_own_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """What was under way before is not ended; MLflow nests ours in it, where it belongs."""
    library = Library(monkeypatch, run="theirs")
    tracked = Tracked("topics/001-a", tmp_path, project="mine")
    args = arguments(name)
    with reported(args, tracked):
        nested = name == "mlflow"
        assert ("TRUE" if nested else None) == os.environ.get("MLFLOW_NESTED_RUN")
        assert (None if nested else "mine") == os.environ.get("MLFLOW_EXPERIMENT_NAME")
        assert "mine" == os.environ.get("WANDB_PROJECT")
    assert ([], "theirs", "topics/001-a") == (library.ended, library.run, args.run_name)
    assert [] == [v for v in VARIABLES if v in os.environ]


def test_variables_of_the_user_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tracker's own variable is not replaced by `project`."""
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    with reported(arguments("wandb"), Tracked("a", tmp_path, project="mine")):
        assert "theirs" == os.environ["WANDB_PROJECT"]
    assert "theirs" == os.environ["WANDB_PROJECT"]


def test_garbage_ends_no_later_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow's callback ends the active run when it is collected: of a run that is over, not."""
    library = Library(monkeypatch)
    callback = MLflowCallback.__new__(MLflowCallback)
    callback._ml_flow, callback._auto_end_run = library, True
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[callback]))
    with reported(arguments("mlflow"), Tracked("a", tmp_path)) as report:
        report.watch(trainer)
    library.run = "a later one"
    del callback, trainer, report
    gc.collect()
    assert "a later one" == library.run


# the real libraries, where they are installed


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect garbage at every step: an integration's callback may act when it is collected."""
    from pytest_ftloop.train.recorder import Recorder

    real = Recorder.on_step_end

    def on_step_end(self: Recorder, *args: Any, **kwargs: Any) -> None:
        gc.collect()
        real(self, *args, **kwargs)

    monkeypatch.setattr(Recorder, "on_step_end", on_step_end)


def expected(result: LoopResult) -> dict[str, tuple[int, int]]:
    """By run, how many steps and evaluation points it has."""
    return {f"topics/{i.name}": (len(i.steps), len(i.evals)) for i in result.chain}


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each iteration is a folder beside the loop, and nothing is written anywhere else."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    result = run(loop(tmp_path, "tensorboard"))
    found = {}
    for folder in sorted((tmp_path / "runs/topics").iterdir()):
        events = EventAccumulator(str(folder)).Reload()
        counts = (len(events.Scalars(name)) for name in ("train/loss", "eval/loss"))
        found[f"topics/{folder.name}"] = tuple(counts)
    assert expected(result) == found
    assert [] == list((tmp_path / "work").iterdir())


@pytest.mark.usefixtures("collecting")
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each iteration is a finished run of the experiment that `project` names."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    result = run(loop(tmp_path, "mlflow", project="my project"))
    client = mlflow.MlflowClient()
    found = {}
    for one in mlflow.search_runs(experiment_names=["my project"], output_format="list"):
        assert "FINISHED" == one.info.status
        histories = (client.get_metric_history(one.info.run_id, n) for n in ("loss", "eval_loss"))
        found[one.info.run_name] = tuple(map(len, histories))
    assert expected(result) == found


@pytest.mark.usefixtures("collecting")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each iteration is a run of its own; the last one is ended too."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = run(loop(tmp_path, "wandb"))
    assert wandb.run is None
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    names = [f"topics/{i.name}" for i in result.chain]
    assert len(names) == len(files)
    for name in names:
        assert 1 == sum(name.encode() in file.read_bytes() for file in files)


@pytest.mark.usefixtures("collecting")
def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each iteration is a run of the project."""
    pytest.importorskip("trackio")
    import sqlite3

    for name, module in list(sys.modules.items()):  # its folder is read once, when it is imported
        if name.startswith("trackio") and hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    monkeypatch.chdir(tmp_path)
    result = run(loop(tmp_path, "trackio", project="topics-project"))
    (file,) = (tmp_path / "trackio").glob("topics-project.db")
    with sqlite3.connect(file) as database:
        rows_ = database.execute("select run_name, count(*) from metrics group by run_name")
        found = dict(rows_.fetchall())
    # One more: the trainer's summary at the end.
    assert {name: sum(counts) + 1 for name, counts in expected(result).items()} == found
