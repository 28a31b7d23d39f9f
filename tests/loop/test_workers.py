"""Trainings in worker processes: the log is the one that the loop writes without them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.chain import best_of
from pytest_ftloop.core.errors import ConfigError, FtloopError, TrainingError
from pytest_ftloop.core.records import Finding, Settings
from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.processes import Processes
from pytest_ftloop.loop.result import LoopResult
from pytest_ftloop.loop.spec import Spec, read_spec, write_error
from pytest_ftloop.train.early_end import Pace
from tests.fake_backend import fake_adapter
from tests.fake_worker import COMMAND, ROOT, executor
from tests.loops import EVAL, TRAIN
from tests.plugin.fake_runner import FakeBackend
from tests.processes import LONG_S, is_running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

LIST = "{policy: [" + ", ".join(
    f"{{training.learning_rate: {rate}}}" for rate in ("4.0e-4", "6.0e-4", "8.0e-4", "1.0e-3")
) + "]}"  # fmt: skip

SAMPLER = (
    "{iterations: 5, policy: {sampler: RandomSampler, "
    "space: {training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}}}"
)


@dataclass
class Project:
    """A folder with a loop file, whose trainings are noted."""

    root: Path
    kill: Path

    def write(self, loop: str = "{iterations: 1}", more: str = "", lora: str = "") -> None:
        """Write the loop file and its data."""
        for role, rows in (("train", TRAIN), ("eval", EVAL)):
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            (self.root / f"{role}.jsonl").write_text(text, encoding="utf-8")
        (self.root / "x.ftloop.yaml").write_text(
            "data: {train: train.jsonl, eval: eval.jsonl}\n"
            f"lora: {{r: 8, lora_alpha: 16{lora}}}\n"
            "training: {learning_rate: 2.0e-4, num_train_epochs: 2}\n"
            f"loop: {loop}\n{more}",
            encoding="utf-8",
        )

    def loop(self, parallel: int = 2, **options: Any) -> Loop:
        """The loop, whose workers are fakes too."""
        return Loop(
            read_loop_file(self.root / "x.ftloop.yaml"),
            Options(parallel=parallel, **options),
            backend=FakeBackend,
            executor=executor,
        )

    def log(self) -> dict[str, bytes]:
        """The log's files, byte for byte."""
        root = self.root / "improvement_log"
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        files = [path for path in files if path.suffix != ".tmp"]  # left by a killed process
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    def trained(self) -> list[str]:
        """One line for each training, in the order in which they began; it is forgotten then."""
        file = self.root / "trained"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def finished(self) -> set[str]:
        """The seeds that are in the log or complete; for a moment one is both."""
        logged = (self.root / "improvement_log").rglob("seeds/*.yaml")
        seeds = {path.stem.split("-")[1] for path in logged}
        for run in (self.root / "cache" / "workers").glob("*/run.json"):
            with contextlib.suppress(FileNotFoundError):  # it has been logged since
                spec = json.loads((run.parent / "spec.json").read_text(encoding="utf-8"))
                seeds.add(spec["name"].rpartition("-")[2])
        return seeds

    def specs(self) -> list[Path]:
        """The folders of trainings that are kept for a later run."""
        return sorted((self.root / "cache" / "workers").glob("*"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A folder of its own, with a cache of its own."""
    made = Project(tmp_path, tmp_path / "kill")
    made.kill.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_TRAINED", str(tmp_path / "trained"))
    monkeypatch.setenv("FAKE_KILL", str(made.kill))
    monkeypatch.setenv("FAKE_NOISE", "0.02")
    monkeypatch.setenv("FAKE_BASE", "1")
    made.write()
    return made


def in_turn(project: Project, calibrates: int = 0) -> dict[str, bytes]:
    """The log that the loop writes in turn; it is not there any more."""
    loop = project.loop(parallel=1)
    loop.calibrate(calibrates) if calibrates else loop.run()
    log = project.log()
    for name in log:
        (project.root / "improvement_log" / name).unlink()
    project.trained()
    return log


def noting(loop: Loop) -> tuple[Loop, list[Spec]]:
    """The loop, and a list of the specs that its workers will be given."""
    given: list[Spec] = []

    class Noting(Processes):
        def submit(self, spec: Path) -> Any:
            given.append(read_spec(spec))
            return super().submit(spec)

    loop.executor = lambda count: Noting(count, COMMAND)
    return loop, given


def test_log_of_seeds(project: Project) -> None:
    """Seeds that workers train give the log of seeds that are trained in turn, byte for byte."""
    wanted = in_turn(project, calibrates=5)
    project.loop().calibrate(5)
    assert wanted == project.log()
    begun = project.trained()
    assert begun[0] == "x 0.0002"
    assert sorted(begun[1:]) == [f"x 0.0002 seed {seed}" for seed in (43, 44, 45, 46)]
    assert [] == project.specs()


def test_log_of_a_list(project: Project) -> None:
    """So do the entries of a list, though each follows from the one before it in the log."""
    project.write(LIST)
    wanted = in_turn(project)
    project.loop(parallel=3).run()
    assert wanted == project.log()
    assert 5 == len(project.trained())
    assert [] == project.specs()


@pytest.mark.parametrize("policy", [LIST, SAMPLER])
def test_first_of_all_is_not_waited_for(
    project: Project, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """What follows the first training whatever it gives is begun beside it, once, by workers."""
    project.write(policy)
    wanted = in_turn(project)
    loop, given = noting(project.loop(parallel=3))
    for name in ("train", "environment"):
        monkeypatch.setattr(FakeBackend, name, lambda *_, **__: pytest.fail("torch is loaded here"))
    loop.run()
    assert wanted == project.log()
    assert 5 == len(project.trained())
    assert [None] * 3 == [spec.base_eval_loss for spec in given[:3]]


def test_environment_is_asked_for_settings_that_may_decide_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker has told of other settings is no answer: an optimizer may bring its package."""
    project.write("{policy: [{training.learning_rate: 4.0e-4}, {training.optim: adafactor}]}")
    asked: list[object] = []

    def environment(_: FakeBackend, settings: Settings) -> dict[str, str]:
        asked.append(settings.training.get("optim"))
        return {"device": "cpu"}

    monkeypatch.setattr(FakeBackend, "environment", environment)
    project.loop().run()
    assert {"adafactor"} == set(asked)


def test_fault_of_the_first_ends_the_list(project: Project) -> None:
    """What was begun beside it ends where it is; only a run that is complete is kept."""
    project.write(LIST)
    fault = Finding("no-memory", "error", "it remembers nothing", {}, "", tunable=False)

    def run(parallel: int) -> LoopResult:
        loop = project.loop(parallel)
        loop.diagnose_hook = lambda *_: [fault]
        return loop.run()

    run(parallel=1)
    wanted = project.log()
    for name in wanted:
        (project.root / "improvement_log" / name).unlink()
    (project.kill / "0.0004").write_text("hang", encoding="utf-8")
    result = run(parallel=2)
    assert ("fault", 1) == (result.chain[-1].decision.kind, len(result.chain))
    assert wanted == project.log()
    assert all((folder / "run.json").exists() for folder in project.specs())
    assert not any(is_running(int(begun.stem)) for begun in project.kill.glob("*.hangs"))


def test_nothing_is_begun_beside_a_known_fault(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in the data ends the loop after one training: nothing is begun that follows it."""
    project.write(LIST)
    fault = Finding("leak", "error", "eval rows are in the train set", {}, "", tunable=False)
    monkeypatch.setattr("pytest_ftloop.loop.course.find_in_data", lambda _: (fault,))
    loop = project.loop()
    loop.executor = lambda _: pytest.fail("no worker is wanted")
    assert "fault" == loop.run().chain[-1].decision.kind


def test_retrained_start_of_a_finished_loop_is_trained_alone(project: Project) -> None:
    """Nothing follows settings that `ftloop accept` has written, so nothing is begun beside it."""
    project.write(LIST)
    project.loop(parallel=1).run()
    file = project.root / "x.ftloop.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("2.0e-4, num", "8.0e-4, num"))
    assert project.loop(parallel=1).run().is_finished
    loop = project.loop(parallel=3, retrain=True)
    loop.executor = lambda _: pytest.fail("no worker is wanted")
    assert loop.run().is_finished


def test_log_of_a_warm_start(project: Project) -> None:
    """Workers go on with the adapter that `lora.init_from` names."""
    start = fake_adapter(project.root / "start")
    project.write(LIST, lora=", init_from: ./start")
    wanted = in_turn(project)
    project.loop(parallel=3).run()
    assert wanted == project.log()
    assert 5 == len(project.trained())
    records = [text for name, text in wanted.items() if name.endswith(".yaml")]
    assert records
    assert all(start.encode() in text for text in records)


RULES = "{iterations: 5, patience: 9}"


def test_quick_rules_are_not_guessed(project: Project) -> None:
    """Where a training takes no longer than a worker to begin, the rules train one by one here."""
    project.write(RULES)
    wanted = in_turn(project)
    loop = project.loop()
    loop.executor = lambda _: pytest.fail("no worker is wanted")
    loop.run()
    assert wanted == project.log()


@pytest.mark.parametrize("parallel", [2, 3, 5])
@pytest.mark.parametrize("rate", ["2.0e-5", "2.0e-4", "1.6e-3", "5.0e-3"])
def test_log_of_the_rules(
    project: Project, monkeypatch: pytest.MonkeyPatch, rate: str, parallel: int
) -> None:
    """What the rules are guessed to train next, rightly or wrongly, leaves no trace in the log."""
    monkeypatch.setattr("pytest_ftloop.loop.course.WORTH_S", 0.0)
    project.write(RULES)
    file = project.root / "x.ftloop.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("2.0e-4", rate), encoding="utf-8")
    wanted = in_turn(project)
    project.loop(parallel=parallel).run()
    assert wanted == project.log()


def test_right_guess_is_trained_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration that was guessed is taken from the worker that has begun it."""
    monkeypatch.setattr("pytest_ftloop.loop.course.WORTH_S", 0.0)
    project.write("{iterations: 3, patience: 9}")
    third = project.loop(parallel=1).run().chain[2].settings
    in_turn(project)
    monkeypatch.setattr("pytest_ftloop.adjust.guess", lambda *_: (third,))
    project.loop().run()
    assert 3 == len(project.trained())
    assert [] == project.specs()


def test_run_that_went_on_too_long_is_trained_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the best iteration of now would have ended, a worker is given again with its pace."""
    project.write(LIST)
    wanted = in_turn(project)
    monkeypatch.setattr("pytest_ftloop.loop.ahead.ended_in_time", lambda *_: False)
    loop, given = noting(project.loop())
    loop.run()
    assert wanted == project.log()
    assert 5 * 2 == len(given)
    for settings in {repr(spec.settings) for spec in given}:
        first, again = (spec for spec in given if repr(spec.settings) == settings)
        chain = [i for i in loop.log.read() if i.settings != first.settings]
        bests = [best_of(chain[: n + 1], "eval_loss") for n in range(len(chain))]
        paces = [None, *(Pace.of(best, ()) for best in bests)]
        assert first.folder == again.folder
        assert paces.index(first.pace) <= paces.index(again.pace)
        assert (again.base_eval_loss is None) == (again.pace is None)  # the first measures the base


def test_wrong_guess_is_ended(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guess that turns out wrong is ended where it is, and nothing of it is kept."""
    monkeypatch.setattr("pytest_ftloop.loop.course.WORTH_S", 0.0)
    project.write("{iterations: 3, patience: 9}")
    wanted = in_turn(project)
    hung = 9.9e-4
    start = project.loop().config.settings
    guessed = (replace(start, training={**start.training, "learning_rate": hung}),)
    weights = project.loop()._cycle().inputs.weights(guessed[0])
    point = project.root / "cache" / "unfinished" / f"{weights[:32]}-x"
    point.mkdir(parents=True)
    monkeypatch.setattr("pytest_ftloop.adjust.guess", lambda *_: guessed)
    (project.kill / f"{hung:g}").write_text("hang", encoding="utf-8")
    loop, given = noting(project.loop())
    loop.run()
    assert wanted == project.log()
    assert [] == project.specs()
    assert not point.exists()
    assert hung in {spec.settings.get("training.learning_rate") for spec in given}
    assert not any(is_running(int(begun.stem)) for begun in project.kill.glob("*.hangs"))


@pytest.mark.parametrize("error", [TrainingError("out of memory"), ConfigError("no such rank")])
@pytest.mark.parametrize("right", [True, False])
def test_failed_guess(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: FtloopError, right: bool
) -> None:
    """A guess that fails is forgotten; where it was right, the loop trains it in its turn."""
    monkeypatch.setattr("pytest_ftloop.loop.course.WORTH_S", 0.0)
    project.write("{iterations: 3, patience: 9}")
    third = project.loop(parallel=1).run().chain[2].settings
    wanted = in_turn(project)
    wrong = replace(third, training={**third.training, "learning_rate": 9.9e-4})
    guessed = third if right else wrong
    monkeypatch.setattr("pytest_ftloop.adjust.guess", lambda *_: (guessed,))
    failed: list[Path] = []

    class Failing(Processes):
        def submit(self, spec: Path) -> Any:
            if read_spec(spec).settings == guessed and not failed:
                failed.append(spec)
                write_error(spec.parent, error)
                return SimpleNamespace(ended=Ended, cancel=lambda: None)
            return super().submit(spec)

    loop = project.loop()
    loop.executor = lambda count: Failing(count, COMMAND)
    loop.run()
    assert 1 == len(failed)
    assert wanted == project.log()
    assert right or not failed[0].exists()


def test_killed_worker(project: Project) -> None:
    """A training whose worker is killed once is trained by another; nobody sees a difference."""
    wanted = in_turn(project, calibrates=4)
    (project.kill / "44").touch()
    project.loop().calibrate(4)
    assert wanted == project.log()


@pytest.mark.parametrize(
    ("how", "message"),
    [("always", "seed 43: its worker was killed by SIGKILL"), ("memory", "out of memory")],
)
def test_failing_seed(project: Project, how: str, message: str) -> None:
    """The others are trained and logged before the error of one is raised; the next run mends."""
    wanted = in_turn(project, calibrates=5)
    (project.kill / "43").write_text(how, encoding="utf-8")
    with pytest.raises(TrainingError, match=message):
        project.loop().calibrate(5)
    assert {name for name in wanted if "-43-" not in name} <= set(project.log())
    assert len(project.log()) < len(wanted)
    project.trained()
    (project.kill / "43").unlink()
    project.loop().calibrate(5)
    assert ["x 0.0002 seed 43"] == project.trained()
    assert wanted == project.log()


def test_failing_entry(project: Project) -> None:
    """What others of a list have trained is kept: the next run takes it, and trains the rest."""
    project.write(LIST)
    wanted = in_turn(project)
    (project.kill / "0.0006").write_text("always", encoding="utf-8")
    with pytest.raises(TrainingError, match="iteration 3: its worker was killed by SIGKILL"):
        project.loop().run()
    began = project.trained()
    assert {"x 0.0008", "x 0.001"} & set(began)
    (project.kill / "0.0006").unlink()
    project.loop().run()
    assert wanted == project.log()
    assert sorted([*began, *project.trained()]) == sorted(
        f"x {rate}" for rate in ("0.0002", "0.0004", "0.0006", "0.0008", "0.001")
    )


def test_mistake(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's mistake that shows in a worker is the error of the run, as it would be in turn."""
    (project.root / "scorers.py").write_text(
        "def score(output, expected, example):\n    return 1\n", encoding="utf-8"
    )
    project.write("{iterations: 1}", "scoring: {scorer: 'scorers:score'}\n")
    project.loop().run()
    loop = project.loop()
    cycle = loop._cycle()
    monkeypatch.setattr(Loop, "_cycle", lambda *_: cycle)
    text = (project.root / "eval.jsonl").read_text(encoding="utf-8")
    (project.root / "eval.jsonl").write_text(text.replace("answer 1", "answer 7"), encoding="utf-8")
    with pytest.raises(FtloopError, match="has changed since the run began"):
        loop.calibrate(3)


def test_changed_rows_take_no_decision_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that change while a list is trained are no fault of its settings: it stays decided."""
    project.write(LIST)
    before = project.loop(parallel=1, iterations=2).run().chain
    loop = project.loop()
    cycle = loop._cycle()
    monkeypatch.setattr(Loop, "_cycle", lambda *_: cycle)
    text = (project.root / "eval.jsonl").read_text(encoding="utf-8")
    (project.root / "eval.jsonl").write_text(text.replace("answer 1", "answer 7"), encoding="utf-8")
    with pytest.raises(FtloopError, match=r"^x.ftloop.yaml: wanted the .* has changed since"):
        loop.run()
    assert before == tuple(loop.log.read())


PARENT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.loop.test_workers import Project
Project(Path.cwd(), Path("kill")).loop().calibrate(4)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(project: Project, sent: int) -> None:
    """However the parent ends, its workers end; what they finished is taken by the next run."""
    wanted = in_turn(project, calibrates=4)
    project.loop(parallel=1).run()
    project.trained()
    (project.kill / "44").write_text("hang", encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=str(ROOT))],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until = time.monotonic() + LONG_S
        while not (hangs := list(project.kill.glob("*.hangs"))) or len(project.finished()) < 2:
            assert parent.poll() is None, parent.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        parent.send_signal(sent)
        parent.communicate(timeout=LONG_S)
    finally:
        parent.kill()
    (hanging,) = (int(path.stem) for path in hangs)
    while is_running(hanging):
        assert time.monotonic() < until
        time.sleep(0.05)
    (project.kill / "44").unlink()
    project.trained()
    project.loop().calibrate(4)
    assert wanted == project.log()
    assert ["x 0.0002 seed 44"] == project.trained()
