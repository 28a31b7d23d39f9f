"""One run in several processes: what starts them, what comes back, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError, FtloopError, StaleLogError, TrainingError
from pytest_ftloop.core.progress import Silent, ToldOnce
from pytest_ftloop.core.ranks import every, processes_of, with_processes
from pytest_ftloop.loop.ahead import why_not_ahead
from pytest_ftloop.loop.backend import check_one_process
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.launched import LaunchedBackend, check_launchable
from pytest_ftloop.loop.launcher import command_of, how_it_ended
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from pytest_ftloop.loop.spec import read_error
from pytest_ftloop.loop.worker import work_on
from tests.fake_ranks import FILE, KILLED
from tests.loop.loop_cases import config
from tests.loop.test_workers import ROOT, is_running
from tests.loops import EVAL, TRAIN
from tests.plugin.fake_runner import FakeBackend
from tests.processes import LONG_S

if TYPE_CHECKING:
    from pytest_ftloop.config.loop_config import LoopConfig
    from pytest_ftloop.core.progress import Progress

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

HERE = "processes: 2"
LAUNCHED = f"{HERE}, launcher: '{sys.executable} {FILE} 2'"


class Here(FakeBackend):
    """In place of the backend of the loop's own process, which must train nothing."""

    def __init__(self, config: LoopConfig, inputs: Inputs, progress: Progress) -> None:
        super().__init__(config, inputs, progress)
        self.told = ToldOnce(config.name, progress)

    def train(self, settings: Any, **how: Any) -> Any:
        raise AssertionError("the ranks are to train")

    def release(self) -> None:
        """Hold nothing."""


def launched(config: LoopConfig, inputs: Inputs, progress: Progress) -> LaunchedBackend:
    return LaunchedBackend(config, inputs, progress, Here(config, inputs, progress))  # type: ignore[arg-type]


@dataclass
class Project:
    """A folder with a loop file, whose ranks leave a file each."""

    root: Path

    @property
    def seen(self) -> Path:
        return self.root / "seen"

    @property
    def file(self) -> Path:
        return self.root / "x.ftloop.yaml"

    def write(self, loop: str = LAUNCHED, more: str = "") -> LoopConfig:
        """Write the loop file and its data."""
        for role, rows in (("train", TRAIN), ("eval", EVAL)):
            text = "".join(f"{json.dumps(row)}\n" for row in rows)
            (self.root / f"{role}.jsonl").write_text(text, encoding="utf-8")
        self.file.write_text(
            "data: {train: train.jsonl, eval: eval.jsonl}\n"
            "training: {learning_rate: 2.0e-4, num_train_epochs: 2}\n"
            f"loop: {{iterations: 1, {loop}}}\n{more}",
            encoding="utf-8",
        )
        return read_loop_file(self.file)

    def run(self) -> Any:
        return Loop(read_loop_file(self.file), Options(), backend=launched).run()

    def pids(self) -> list[int]:
        """The ranks' process numbers."""
        return [int(path.read_text()) for path in sorted(self.seen.iterdir())]

    def left(self) -> list[Path]:
        """What was left in the cache's folder of trainings."""
        return sorted((self.root / "cache/workers").glob("*"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    made.seen.mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "FAKE_TRAINED", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RANKS_SEEN", str(made.seen))
    made.write()
    return made


def test_ranks_train_and_the_first_writes(project: Project) -> None:
    """Each rank trains, the first one's run is logged, and nothing is left beside the log."""
    result = project.run()
    assert ["0", "1"] == sorted(path.name for path in project.seen.iterdir())
    plain = replace(read_loop_file(project.file), settings=result.best.settings)
    inputs = Inputs.of(plain, None)
    expected = FakeBackend(plain, inputs, Silent()).train(plain.settings)
    assert expected.evaluation.examples == tuple(result.best.examples)
    assert expected.training.evals == tuple(result.best.evals)
    assert 2 == result.best.settings.training["processes"]
    assert [] == project.left()
    record = next((project.root / "improvement_log/x").glob("001-*.yaml")).read_text()
    assert "    processes: 2\n" in record


@pytest.mark.parametrize(
    ("fails", "kind", "message"),
    [
        ("1 mistake", ConfigError, r"^train.jsonl:3: a row is wrong\n +Mend it.$"),
        ("1 kill", TrainingError, "process 1 was killed by SIGKILL: out of memory"),
        ("1 bug", TrainingError, "ended with exit code 1: RuntimeError: no such thing"),
    ],
)
def test_one_rank_fails(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
    kind: type[FtloopError],
    message: str,
) -> None:
    """All ranks end with one clear error; what a crash printed is kept, and its place is named."""
    monkeypatch.setenv("RANKS_FAIL", fails)
    with pytest.raises(kind, match=message) as raised:
        project.run()
    assert not any(map(is_running, project.pids()))
    assert [] == list((project.root / "improvement_log").rglob("*.yaml"))
    if "mistake" in fails:
        assert [] == project.left()
    else:
        (folder,) = project.left()
        assert f"cache/workers/{folder.name}/output.txt" in str(raised.value)
        assert ("no such thing" in (folder / "output.txt").read_text()) == ("bug" in fails)


PARENT = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.loop.test_launched import Project
Project(Path.cwd()).run()
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_rank_outlives_the_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, sent: int
) -> None:
    """However the run ends, launcher and ranks end."""
    if sent == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends a process with its parent")
    monkeypatch.setenv("RANKS_FAIL", "0 hang")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=str(ROOT))],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + LONG_S
    try:
        while len(list(project.seen.iterdir())) < 2:
            assert parent.poll() is None, parent.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        parent.send_signal(sent)
        parent.communicate(timeout=LONG_S)
    finally:
        parent.kill()
    while any(map(is_running, project.pids())):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_processes_are_a_setting(project: Project) -> None:
    """Their number is in the identity of the iteration and of its weights; one leaves it as it is.

    So a changed number is named where a log is out of date.
    """
    one, two = project.write("patience: 2"), project.write(HERE)
    plain, inputs = one.settings, Inputs.of(one, None)
    assert plain == project.write("processes: 1").settings
    assert plain == with_processes(plain, 1)
    assert two.settings == with_processes(plain, 2)
    assert [1, 2] == [processes_of(plain), processes_of(two.settings)]
    for identity in (
        lambda settings: inputs.fingerprint(one, settings),
        lambda settings: inputs.group(one, settings),
        inputs.weights,
    ):
        assert 3 == len({identity(with_processes(plain, count)) for count in (1, 2, 3)})
    project.write()
    project.run()
    project.write("patience: 2")
    with pytest.raises(StaleLogError, match=r"training\.processes 2 -> not set"):
        Loop(read_loop_file(project.file), Options(replay=True)).run()


def test_base_does_not_depend_on_processes(project: Project) -> None:
    """The untrained base is the same whatever trains it."""
    one, two = project.write("patience: 2"), project.write(HERE)
    inputs = Inputs.of(one, None)
    assert inputs.base_fingerprint(one.settings) == inputs.base_fingerprint(two.settings)


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        ("processes: 0", r"x.ftloop.yaml:3: loop.processes: wanted .*1.* found 0"),
        ("processes: two", r"x.ftloop.yaml:3: loop.processes: wanted .*number"),
        ("launcher: torchrun", "loop.launcher: wanted loop.processes too"),
        ("processes: 1, launcher: torchrun", "loop.launcher: wanted loop.processes too"),
    ],
)
def test_mistakes_in_the_loop_file(project: Project, loop: str, message: str) -> None:
    """Each names its line before anything is trained."""
    with pytest.raises(ConfigError, match=message):
        project.write(loop)


def test_processes_are_no_argument_of_training(project: Project) -> None:
    """The error says where they are stated."""
    text = project.file.read_text(encoding="utf-8")
    project.file.write_text(text.replace("training: {", "training: {processes: 2, "))
    with pytest.raises(ConfigError, match=r"training\.processes is not") as raised:
        read_loop_file(project.file)
    assert "Write loop: {processes: ...}." == raised.value.cure


def test_loops_that_ranks_cannot_read(project: Project, tmp_path: Path) -> None:
    """A loop made in Python, and the scorer `hook`, are named before anything is started."""
    made = config(tmp_path, loop={"iterations": 1, "processes": 2})
    with pytest.raises(ConfigError, match="the loop is made in Python"):
        check_launchable(made, Inputs.of(made, None))
    hooked = project.write(HERE, "scoring: {scorer: hook}\n")
    inputs = Inputs.of(replace(hooked, scoring=made.scoring), None)
    with pytest.raises(ConfigError, match=r"x.ftloop.yaml:3: .*scorer 'hook' needs pytest"):
        check_launchable(hooked, inputs)
    plain = project.write()
    check_launchable(plain, Inputs.of(plain, None))


def test_one_training_at_a_time(project: Project) -> None:
    """Trainings that take all devices are not begun ahead."""
    stated = project.write(HERE)
    why = why_not_ahead(stated, Inputs.of(stated, None))
    assert "each takes 2 processes (loop.processes)" == why


def test_launched_from_outside() -> None:
    """pytest itself started by a launcher is refused in one line, which names loop.processes."""
    check_one_process({})
    check_one_process({"WORLD_SIZE": "1"})
    with pytest.raises(ConfigError, match=r"^wanted one process, found WORLD_SIZE=4") as raised:
        check_one_process({"WORLD_SIZE": "4"})
    assert "loop.processes" in raised.value.cure


def test_another_number_than_the_launcher_starts(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher that starts more or fewer processes than are logged is an error of each."""
    stated = project.write()
    backend = LocalBackend(stated, Inputs.of(stated, None), Silent())
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"x.ftloop.yaml:3: wanted 2 processes .*WORLD_SIZE=3"):
        backend.train(stated.settings, name="001")


def test_a_rank_starts_no_others(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that starts plain processes, without numbers, is an error and no recursion."""
    stated = project.write()
    spec = LaunchedBackend(stated, Inputs.of(stated, None), Silent(), None)._spec(  # type: ignore[arg-type]
        stated.settings, {"name": "001"}
    )
    file = spec.write()
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not work_on(str(file))
    assert "found WORLD_SIZE=1" in str(read_error(file.parent))


def test_commands(tmp_path: Path) -> None:
    """Without a launcher it is torchrun's; files beside the loop file are given by their path."""
    (tmp_path / "fsdp.yaml").touch()
    script = tmp_path / "go.sh"
    script.touch()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    assert [sys.executable, *torchrun] == command_of(None, 4, tmp_path, None)
    stated = f"{sys.executable} -u 'a b' --config_file fsdp.yaml gone.yaml"
    assert [
        *(sys.executable, "-u", "a b", "--config_file"),
        *(str(tmp_path / "fsdp.yaml"), "gone.yaml"),
    ] == command_of(stated, 4, tmp_path, None)
    assert [str(script), "2"] == command_of("go.sh 2", 4, tmp_path, None)
    with pytest.raises(ConfigError, match="found 'nosuch', which is not installed"):
        command_of("nosuch launch", 4, tmp_path, None)
    with pytest.raises(ConfigError, match=r"loop.launcher: No closing quotation"):
        command_of("torchrun 'x", 4, tmp_path, None)


TORCHRUN = """\
W1130 run.py:851] Setting OMP_NUM_THREADS environment variable
E1130 api.py:988] failed (exitcode: -9) local_rank: 1 (pid: 9) of binary: python
Traceback (most recent call last):
  File "run.py", line 1, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
pytest_ftloop FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-30_20:13:47
  host      : here
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 8)  (SIGTERM)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 8
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-30_20:13:47
  host      : here
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 9)  (SIGKILL)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 9
============================================================
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (TORCHRUN, "process 1 was killed by SIGKILL: out of memory?"),
        (KILLED.format(rank=12, number=11), "process 12 was killed by SIGSEGV"),
        (KILLED.format(rank=0, number=99), "process 0 was killed by signal 99"),
        ("[rank1]: KeyError: 'x'\nE api.py failed\n", "exit code 1: [rank1]: KeyError: 'x'"),
        ("srun: no such host\n\n", "the launcher ended with exit code 1: srun: no such host"),
        ("", "the launcher ended with exit code 1"),
    ],
)
def test_how_it_ended(said: str, expected: str) -> None:
    """The rank that was killed first, else the first error, else the last line."""
    assert how_it_ended(1, said).endswith(expected)


def test_killed_launcher() -> None:
    """It tells of nothing itself."""
    assert "the launcher was killed by SIGSEGV" == how_it_ended(-11, "a warning\n")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("batches", [0, 1, 5, 6])
def test_each_batch_has_one_rank(count: int, batches: int) -> None:
    """The shares of all ranks are the batches, each once, and differ by one at most."""
    shares = [list(every(range(batches), number, count)) for number in range(count)]
    assert list(range(batches)) == sorted(batch for share in shares for batch in share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
