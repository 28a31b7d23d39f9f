"""The parts of training ahead: shares of the machine, files of a training, what is begun."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.errors import ConfigError, FtloopError, Location, TrainingError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import (
    BaseResults,
    Cost,
    Evaluation,
    Finding,
    Run,
    Settings,
    Training,
)
from pytest_ftloop.loop import shares, spec
from pytest_ftloop.loop.ahead import Ahead, AheadBackend
from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.pool import Following, Workers
from pytest_ftloop.loop.processes import Processes
from pytest_ftloop.loop.trained import keep_trained
from pytest_ftloop.loop.worker import _before
from pytest_ftloop.train import threads
from pytest_ftloop.train.early_end import Pace, ended_in_time
from tests.fake_backend import fake_adapter
from tests.fakes import fake_table, fake_training
from tests.loop.loop_cases import config


@pytest.mark.parametrize(
    ("stated", "visible", "xdist", "expected"),
    [
        (3, None, None, 3),
        (3, "0,1", "4", 3),
        ("auto", None, None, 6),
        ("auto", None, "2", 3),
        ("auto", "0,1", None, 2),
        ("auto", "0,1", "2", 1),
        ("auto", "", None, 6),
        ("auto", "-1", "9", 1),
    ],
)
def test_number_of_workers(
    stated: int,
    visible: str | None,
    xdist: str | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A number is taken as it is; auto is one per GPU, else per core, shared by xdist's workers."""
    monkeypatch.setattr(shares, "cores", lambda: 6)
    monkeypatch.setattr(shares, "_gpus", lambda: 0)
    given = {"CUDA_VISIBLE_DEVICES": visible, "PYTEST_XDIST_WORKER_COUNT": xdist}
    environ = {name: value for name, value in given.items() if value is not None}
    assert expected == shares.number_of_workers(stated, environ)


@pytest.mark.parametrize(
    ("visible", "xdist", "gpus", "expected"),
    [
        (None, None, 0, [None, None, None]),
        (None, None, 2, ["0", "1", "0"]),
        (None, "gw0", 8, ["0", "1", "2"]),
        (None, "gw1", 8, ["3", "4", "5"]),
        (None, "gw2", 8, ["6", "7", "0"]),
        ("3, 5", None, 8, ["3", "5", "3"]),
        ("GPU-aa,-1,GPU-bb", None, 8, ["GPU-aa"] * 3),
        ("", None, 8, ["", "", ""]),
    ],
)
def test_devices_and_threads(
    visible: str | None,
    xdist: str | None,
    gpus: int,
    expected: list[str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers get the visible GPUs in turn, and cores divided by workers unless that is stated."""
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(shares, "_gpus", lambda: gpus)
    given = {"CUDA_VISIBLE_DEVICES": visible, "PYTEST_XDIST_WORKER": xdist}
    environ = {name: value for name, value in given.items() if value is not None}
    made = [shares.environment_of(worker, 3, environ) for worker in range(3)]
    assert expected == [env.get("CUDA_VISIBLE_DEVICES") for env in made]
    assert ["2", "2", "2"] == [env["OMP_NUM_THREADS"] for env in made]
    assert "7" == shares.environment_of(0, 3, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"]


@pytest.mark.parametrize(
    ("visible", "xdist", "count", "expected"),
    [
        (None, None, 2, None),
        ("4,5,6,7", None, 2, "4,5,6,7"),
        ("4,5,6,7", "gw0", 2, "4,5"),
        ("4,5,6,7", "gw1", 2, "6,7"),
        ("4,5,6,7", "gw2", 2, "4,5"),
        ("4,5,6", "gw1", 2, "6,4"),
        ("4", "gw1", 2, "4"),
    ],
)
def test_devices_of_ranks(
    visible: str | None,
    xdist: str | None,
    count: int,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ranks see all devices, in order; those of one xdist worker come after the last's."""
    monkeypatch.setattr(threads, "cores", lambda: 12)
    monkeypatch.setattr(shares, "_gpus", lambda: 0)
    workers = "3" if xdist else None
    given = {
        "CUDA_VISIBLE_DEVICES": visible,
        "PYTEST_XDIST_WORKER": xdist,
        "PYTEST_XDIST_WORKER_COUNT": workers,
    }
    environ = {name: value for name, value in given.items() if value is not None}
    made = shares.environment_of_ranks(count, environ)
    assert expected == made.get("CUDA_VISIBLE_DEVICES")
    assert ("2" if xdist else "6") == made["OMP_NUM_THREADS"]


def a_spec(**changes: object) -> spec.Spec:
    plain = spec.Spec(
        loop_file="x.ftloop.yaml",
        log="improvement_log/x",
        fingerprint="f" * 64,
        settings=Settings({"r": 8, "target_modules": ["q", "v"]}, {"learning_rate": 1e-3}),
        name="001-ffffffff",
        adapter="adapters/f",
        metric="eval_loss",
        base_eval_loss=2.3456789012345678,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def a_run(**changes: object) -> Run:
    evaluation = Evaluation((), (), (), 6.0)
    run = Run(fake_training(), evaluation, Cost(1.5, 3, 9), {"device": "cpu"})
    return replace(run, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Specs of a test are nobody else's."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))


def test_spec_is_read_as_it_was_written() -> None:
    """A spec's file holds all of it."""
    assert a_spec() == spec.read_spec(a_spec().write())


def test_place_of_a_spec() -> None:
    """A later process finds what an earlier one trained, whether or not it would take it."""
    assert a_spec().folder == a_spec(afresh=True).folder
    others = [a_spec(log="y"), a_spec(metric="pass_rate"), a_spec(fingerprint="e" * 64)]
    assert 4 == len({one.folder for one in (a_spec(), *others)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON"),
        ("[]", "wanted a spec of format 1, found None"),
        ('{"format": 2}', "wanted a spec of format 1, found 2"),
        ('{"format": 1}', "wanted the spec of a training"),
    ],
)
def test_no_spec(tmp_path: Path, text: str, message: str) -> None:
    """A file that is no spec is a mistake that names it."""
    file = tmp_path / "spec.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        spec.read_spec(file)
    assert caught.value.where is not None
    assert caught.value.where.file.endswith("spec.json")


def test_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A run keeps each digit, and what is not finite."""
    rows = fake_table([0.1, 1 / 3, 2e-17])
    training = fake_training([1.1, math.inf, 0.30000000000000004])
    run = Run(training, Evaluation(rows, rows, rows, 6.0), Cost(1.5, 3, 9), {"device": "cpu"}, "ab")
    spec.write_run(tmp_path / "run.json", run)
    assert run == spec.read_run(tmp_path / "run.json")
    assert spec.read_run(tmp_path / "none.json") is None
    nan = replace(run, evaluation=replace(run.evaluation, base_eval_loss=math.nan))
    spec.write_run(tmp_path / "run.json", nan)
    assert repr(nan) == repr(spec.read_run(tmp_path / "run.json"))


@pytest.mark.parametrize(
    "error",
    [
        TrainingError("out of memory", where=Location("x.ftloop.yaml", 3), cure="Lower it."),
        ConfigError("wanted a, found b"),
        FtloopError("else"),
    ],
)
def test_error_is_read_as_it_was_written(tmp_path: Path, error: FtloopError) -> None:
    """A mistake in a worker is raised in the loop's process as it was there."""
    spec.write_error(tmp_path, error)
    found = spec.read_error(tmp_path)
    assert (type(error), str(error)) == (type(found), str(found))


def test_old_specs_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody continues for a month is removed, and nothing else."""
    old, new = a_spec().write(), a_spec(log="y").write()
    later = old.stat().st_mtime + spec.KEPT_S
    monkeypatch.setattr(spec.time, "time", lambda: later - 60)
    spec.sweep_specs()
    assert old.exists()
    os.utime(old, (0, 0))
    spec.sweep_specs()
    assert (False, True) == (old.parent.exists(), new.exists())


@pytest.mark.parametrize(
    ("saved_s", "run", "is_left"),
    [(-1, "run.json", False), (-1, "before.json", False), (1, "run.json", True), (-1, "", True)],
    ids=["a wrong guess", "of an earlier process", "trained again since", "not complete"],
)
def test_adapter_of_an_old_run_is_removed(saved_s: int, run: str, is_left: bool) -> None:
    """What a run has saved that no loop asked for goes with it; what was saved since stays."""
    adapter = adapter_folder("0123").absolute()
    fake_adapter(adapter)
    old = a_spec(adapter=str(adapter)).write()
    if run:
        spec.write_run(old.with_name(run), a_run())
        at = old.with_name(run).stat().st_mtime + saved_s
        for file in adapter.iterdir():
            os.utime(file, (at, at))
    os.utime(old, (0, 0))
    spec.sweep_specs()
    assert is_left == adapter.exists()
    assert not old.parent.exists()


def test_adapter_that_was_measured_only_is_not_removed() -> None:
    """Who asks to measure an adapter has not made it; he was killed before he read the answer."""
    adapter = adapter_folder("0123").absolute()
    fake_adapter(adapter)
    old = a_spec(asks="measure", adapter=str(adapter)).write()
    spec.write_answer(old.with_name("run.json"), ())
    os.utime(old, (0, 0))
    spec.sweep_specs()
    assert (True, False) == ((adapter / "adapter_config.json").exists(), old.parent.exists())


def test_adapter_of_a_run_that_was_taken_is_not_removed() -> None:
    """Its folder is left where a process was killed as soon as the run was in the log."""
    adapter = adapter_folder("0123").absolute()
    fake_adapter(adapter)
    old = a_spec(adapter=str(adapter)).write()
    spec.write_run(old.with_name("run.json"), a_run())
    assert [] == keep_trained("0123", a_run(), "iteration 2")
    os.utime(old, (0, 0))
    spec.sweep_specs()
    assert (True, False) == ((adapter / "adapter_config.json").exists(), old.parent.exists())


def test_adapter_that_is_half_removed_is_removed() -> None:
    """A process was killed while it removed the adapter: nothing but its folder is left."""
    adapter = adapter_folder("0123").absolute()
    adapter.mkdir(parents=True)
    old = a_spec(adapter=str(adapter)).write()
    spec.write_run(old.with_name("run.json"), a_run())
    os.utime(old, (0, 0))
    spec.sweep_specs()
    assert (False, False) == (adapter.exists(), old.parent.exists())


def test_adapter_elsewhere_is_not_removed(tmp_path: Path) -> None:
    """Only what is in the cache is the tool's to remove."""
    fake_adapter(tmp_path / "mine")
    old = a_spec(adapter=str(tmp_path / "mine")).write()
    spec.write_run(old.with_name("run.json"), a_run())
    os.utime(old, (0, 0))
    spec.sweep_specs()
    assert (tmp_path / "mine" / "adapter_config.json").exists()


BEST = fake_training(evals=[2.0, 1.0, 0.6, 0.5])
PACE = Pace(BEST.evals, BEST.planned_steps, 0.5)
BAD = fake_training(evals=[4.0, 3.9, 3.8, 3.7])
END = next(filter(None, (PACE.hopeless(BAD.evals[:n], BAD.planned_steps) for n in (2, 3, 4))))
ENDED = replace(BAD, evals=BAD.evals[:2], ended_early=END)


@pytest.mark.parametrize(
    ("training", "pace", "in_time"),
    [
        (BEST, PACE, True),
        (BAD, PACE, False),
        (BAD, None, True),
        (ENDED, PACE, True),
        (ENDED, None, False),
        (ENDED, replace(PACE, needed=3.0), False),
        (replace(ENDED, ended_early=f"{END} (by another)"), PACE, False),
        (replace(BEST, ended_early="diverged: the loss"), PACE, True),
        (replace(BAD, ended_early="diverged: the loss"), PACE, False),
    ],
)
def test_run_is_taken_only_if_it_ended_in_time(
    training: Training, pace: Pace | None, in_time: bool
) -> None:
    """A run that was begun with another pace is taken only if this one would not change its end."""
    assert in_time == ended_in_time(training, pace)


def test_earlier_run_that_ended_elsewhere_is_not_taken(tmp_path: Path) -> None:
    """Of an earlier process only a run is taken that ends where it would end now."""
    run = Run(ENDED, Evaluation((), (), (), 6.0), Cost(1.5, 3, 9), {"device": "cpu"})
    spec.write_run(tmp_path / "before.json", run)
    backend = SimpleNamespace(environment=lambda _: {"device": "cpu"})
    taken = [_before(a_spec(pace=pace), tmp_path, backend) for pace in (PACE, None)]  # type: ignore[arg-type]
    assert [run, None] == taken


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("known", [2.5, None])
def test_run_without_the_base_is_taken_only_where_that_is_known(
    tmp_path: Path, measured: bool, known: float | None
) -> None:
    """Of an earlier process a run that has measured the base is taken where it is known, too."""
    evaluation = Evaluation((), (), (), 6.0, base=BaseResults(()) if measured else None)
    spec.write_run(tmp_path / "before.json", a_run(evaluation=evaluation))
    backend = SimpleNamespace(environment=lambda _: {"device": "cpu"})
    taken = _before(a_spec(base_eval_loss=known), tmp_path, backend)  # type: ignore[arg-type]
    assert (measured or known is not None) == (taken is not None)


def test_what_is_known_makes_no_other_place() -> None:
    """An interrupted run is found again, also if a better one and the base are logged since."""
    assert a_spec().folder == a_spec(pace=PACE).folder == a_spec(base_eval_loss=None).folder
    assert a_spec().folder == a_spec(name="005-0123").folder


def test_files_are_json(tmp_path: Path) -> None:
    """Any machine can read what a worker is doing."""
    spec.write_progress(tmp_path, spec.AtWork(3, 9, 1.23456))
    assert {"step": 3, "steps": 9, "loss": 1.23456, "what": ""} == json.loads(
        (tmp_path / "progress.json").read_text(encoding="utf-8")
    )
    found = spec.read_progress(tmp_path)
    assert found is not None
    assert "3/9 loss 1.235" == found.text
    assert spec.read_progress(tmp_path / "none") is None


def test_a_finding_is_shown_once(tmp_path: Path) -> None:
    """What training here has shown is not shown again because a worker finds it too."""
    shown: list[str] = []

    class Showing(Silent):
        def found(self, loop: str, findings: Sequence[Finding]) -> None:
            shown.extend(finding.message for finding in findings)

    stated, progress = config(tmp_path), Showing()
    inputs = Inputs.of(stated, None)
    here = LocalBackend(stated, inputs, progress)
    ahead = AheadBackend(stated, inputs, progress, here, Processes, lambda: 2, tmp_path)
    first, second = (Finding("template", "warning", text, {}, "") for text in ("one", "two"))
    here.told.found((first,))
    ahead._told.found((first, second))
    assert ["one", "two"] == shown


class Waiting:
    """An executor whose workers never begin; and the handle of each spec that it was given."""

    def __init__(self) -> None:
        self.given: list[spec.Spec] = []
        self.how: Ended | None = None

    def submit(self, file: Path) -> Waiting:
        made = Waiting()
        made.given = [spec.read_spec(file)]
        self.given.append(made.given[0])
        return made

    def ended(self) -> Ended | None:
        return self.how

    def cancel(self) -> None:
        self.how = Ended("was cancelled")

    def close(self) -> None:
        pass


def test_what_waits_gets_what_is_known_since(tmp_path: Path) -> None:
    """What no worker has begun is given again once a better iteration is known, or the base."""
    stated = config(tmp_path)
    inputs = Inputs.of(stated, None)
    here = LocalBackend(stated, inputs, Silent())
    executor = Waiting()
    ahead = AheadBackend(stated, inputs, Silent(), here, lambda _: executor, lambda: 2, tmp_path)

    def trainings(pace: Pace | None) -> list[Ahead]:
        rates = (1e-3, 2e-3, 3e-3)
        of_rates = [Settings(stated.settings.lora, {"learning_rate": rate}) for rate in rates]
        return [Ahead(s, "n", tmp_path / "a", "eval_loss", "it", pace=pace) for s in of_rates]

    assert ahead.begin(trainings(None))
    for base in (None, 6.0, 6.0):
        assert ahead.begin([replace(t, base_eval_loss=base) for t in trainings(PACE)])
    known = [(given.pace, given.base_eval_loss) for given in executor.given]
    assert [(None, None)] * 3 + [(PACE, None)] * 3 + [(PACE, 6.0)] * 3 == known
    settings = [given.settings for given in executor.given]
    assert settings[:3] * 3 == settings


def test_what_another_loop_has_begun_is_of_what_was_known_then(tmp_path: Path) -> None:
    """What waits since before its loop's turn is given again if the base has been measured since.

    The other loop may have measured it, and the store of records has it from there.
    """
    stated = config(tmp_path)
    inputs, executor, workers = Inputs.of(stated, None), Waiting(), Workers()
    here = LocalBackend(stated, inputs, Silent())
    make = lambda _: executor  # noqa: E731 - one object, which is the kind of the workers
    ahead = AheadBackend(stated, inputs, Silent(), here, make, lambda: 2, tmp_path, workers=workers)
    trainings = [
        Ahead(
            Settings(stated.settings.lora, {"learning_rate": rate}),
            "n",
            tmp_path / str(rate),
            "eval_loss",
            "it",
        )
        for rate in (1e-3, 2e-3)
    ]
    workers.open(ahead.kind)
    workers.follow([Following(stated.file, lambda _: ahead.prospect(trainings))])
    workers.fill([])
    assert ahead.begin([replace(training, base_eval_loss=6.0) for training in trainings])
    assert [None, None, 6.0, 6.0] == [given.base_eval_loss for given in executor.given]
