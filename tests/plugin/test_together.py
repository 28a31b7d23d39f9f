"""Loops of one pytest run whose trainings idle workers begin before it is their turn."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fake_worker import ROOT, wait_for_files
from tests.processes import LONG_S, is_running

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

RATES = {"a": "2.0e-4", "b": "8.0e-4", "c": "1.0e-3", "d": "1.2e-3", "e": "1.6e-3"}
LOOP = """\
data: {{train: train.jsonl, eval: {eval}.jsonl}}
lora: {{r: 8, lora_alpha: 16}}
training: {{learning_rate: {rate}, num_train_epochs: 2}}
gates: {{eval_loss: "<= 1.9"}}
loop: {{iterations: 1{more}}}
"""
"""One iteration; the gate of the loop a fails."""

TWO = ("--ftloop", "--ftloop-parallel", "2")


@dataclass
class Several:
    """A folder with loops of one iteration. `begun` has a file for each loop a worker trained."""

    project: Project
    begun: Path
    kill: Path
    cache: Path

    def write(self, names: str = "ab", **more: str) -> None:
        """Write the loops of these names; `more` is what their section `loop` has besides."""
        (self.project.path / "x.ftloop.yaml").unlink(missing_ok=True)
        for name in names:
            text = LOOP.format(rate=RATES[name], eval="eval", more=more.get(name, ""))
            self.project.write(f"{name}.ftloop.yaml", text)

    def in_turn(self, *args: str) -> tuple[dict[str, bytes], dict[str, int]]:
        """The logs and the outcomes of a run in turn; the logs are not there any more."""
        result = self.project.run("--ftloop", *args)
        logs = self.project.log()
        for name in logs:
            (self.project.path / "improvement_log" / name).unlink()
        self.project.trained_file.unlink(missing_ok=True)
        assert [] == self.trained_by_workers()
        return logs, result.parseoutcomes()

    def run(self, *args: str) -> dict[str, int]:
        """The outcomes of a run with two workers."""
        return self.project.run(*TWO, *args).parseoutcomes()

    def trained(self) -> list[str]:
        """The names of the loops that were trained, in order; one line each."""
        return [line.split()[0] for line in self.project.trained()]

    def trained_by_workers(self) -> list[str]:
        """The names of the loops that a worker has begun."""
        return sorted(file.name for file in self.begun.glob("[a-z]"))

    def specs(self) -> list[Path]:
        """The folders of trainings that are kept for a later run."""
        return sorted((self.cache / "workers").glob("*"))

    def worker(self, loop: str) -> int:
        """The process that has begun this loop's training."""
        return int((self.begun / loop).read_text(encoding="utf-8"))


@pytest.fixture
def several(project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Several:
    """Two loops, in a folder whose workers are fakes."""
    made = Several(project, tmp_path / "begun", tmp_path / "kill", tmp_path / "cache")
    made.begun.mkdir()
    made.kill.mkdir()
    monkeypatch.setenv("FTLOOP_CACHE", str(made.cache))
    monkeypatch.setenv("FAKE_BEGUN", str(made.begun))
    monkeypatch.setenv("FAKE_KILL", str(made.kill))
    monkeypatch.setenv("FAKE_BASE", "1")
    project.write("conftest.py", 'pytest_plugins = ["tests.plugin.fake_workers"]\n')
    made.write()
    return made


def waits(monkeypatch: pytest.MonkeyPatch, several: Several, loop: str, for_: str) -> None:
    """Let the training of a loop wait until a worker has begun that of another."""
    monkeypatch.setenv(f"FAKE_WAIT_{loop}", str(several.begun / for_))


def test_two_loops_at_once(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trains until the other has begun; logs and outcomes are those of a run in turn."""
    wanted = several.in_turn()
    waits(monkeypatch, several, "a", "b")
    waits(monkeypatch, several, "b", "a")
    outcomes = several.run()
    assert wanted == (several.project.log(), outcomes)
    assert {"failed": 1, "passed": 1} == outcomes
    assert ["a", "b"] == several.trained_by_workers()
    assert [] == several.specs()


def test_five_loops(several: Several) -> None:
    """More loops than workers: each is trained once, and nothing is left behind."""
    several.write("abcde")
    wanted = several.in_turn()
    assert wanted == (several.run(), several.project.log())[::-1]
    assert [*"abcde"] == sorted(several.trained())
    assert [*"abcde"] == several.trained_by_workers()
    assert [] == several.specs()
    assert not any(is_running(several.worker(loop)) for loop in "abcde")


def test_more_than_one_iteration(several: Several) -> None:
    """Loops that go on after their first training are trained as they are in turn."""
    for name in "ab":
        text = LOOP.format(rate=RATES[name], eval="eval", more=", patience: 9")
        several.project.write(f"{name}.ftloop.yaml", text.replace("iterations: 1", "iterations: 3"))
    wanted = several.in_turn()
    assert wanted == (several.run(), several.project.log())[::-1]
    assert [] == several.specs()


def test_mistake_in_the_second(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that can't be read does not disturb those before it; the error is its own."""
    several.write("abc")
    text = LOOP.format(rate=RATES["b"], eval="missing", more="")
    several.project.write("b.ftloop.yaml", text)
    wanted = several.in_turn()
    waits(monkeypatch, several, "a", "c")
    result = several.project.run(*TWO)
    assert wanted == (several.project.log(), result.parseoutcomes())
    result.stdout.fnmatch_lines(["*missing.jsonl*"])
    assert ["a", "c"] == several.trained_by_workers()


def test_second_is_up_to_date(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows it is begun beside the first; it is not trained."""
    several.write("abc")
    wanted = several.in_turn()
    several.project.run("--ftloop", "b.ftloop.yaml")
    waits(monkeypatch, several, "a", "c")
    assert wanted == (several.run(), several.project.log())[::-1]
    assert ["a", "c"] == several.trained_by_workers()
    assert [*"abc"] == sorted(several.trained())


def test_second_is_restored(
    several: Several, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor is one begun that an earlier run has trained and kept outside of its log."""
    several.write("abc")
    wanted = several.in_turn()
    monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "records"))
    several.project.run("--ftloop", "b.ftloop.yaml")
    shutil.rmtree(several.project.path / "improvement_log" / "b")
    waits(monkeypatch, several, "a", "c")
    assert wanted == (several.run(), several.project.log())[::-1]
    assert ["a", "c"] == several.trained_by_workers()
    assert [*"abc"] == sorted(several.trained())


def test_loop_that_never_runs(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """After -x nothing is left of a loop that was begun and never ran; a next run trains it."""
    wanted = several.in_turn()
    waits(monkeypatch, several, "a", "b")
    (several.kill / "0.0008").write_text("hang", encoding="utf-8")
    assert {"failed": 1} == several.run("-x")
    assert not is_running(several.worker("b"))
    assert [] == several.specs()
    assert {name for name in wanted[0] if name.startswith("a/")} == set(several.project.log())
    (several.kill / "0.0008").unlink()
    assert wanted == (several.run(), several.project.log())[::-1]


def test_complete_run_is_kept(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete when -x ended the run: the next one takes it, and trains nothing again."""
    wanted = several.in_turn()
    monkeypatch.setenv("FAKE_WAIT_a", str(several.cache / "workers" / "*" / "run.json"))
    assert {"failed": 1} == several.run("-x")
    assert 1 == len(several.specs())
    assert wanted == (several.run(), several.project.log())[::-1]
    assert ["a", "b"] == sorted(several.trained())
    assert [] == several.specs()


def test_ctrl_c(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is left after Ctrl-C, of no loop; the next run goes on."""
    wanted = several.in_turn()
    for rate in ("0.0002", "0.0008"):
        (several.kill / rate).write_text("hang", encoding="utf-8")
    process = subprocess.Popen(
        several.project.command(*TWO),
        cwd=several.project.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for loop in "ab":
            wait_for_files(str(several.begun / loop))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    assert pytest.ExitCode.INTERRUPTED == process.returncode, out
    assert "ftloop: a was interrupted" in out
    assert not any(is_running(several.worker(loop)) for loop in "ab")
    for file in several.kill.iterdir():
        file.unlink()
    assert wanted == (several.run(), several.project.log())[::-1]


HOLDER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from pytest_ftloop.log.files import locked
from tests.fake_worker import wait_for_files
with locked(Path("improvement_log/b"), lambda: None):
    Path("holds").touch()
    wait_for_files("improvement_log/a/*.yaml")
    if "c" in sys.argv:
        with locked(Path("improvement_log/c"), lambda: None):
            pass
"""


def holding(several: Several, *args: str) -> subprocess.Popen[str]:
    """Another process, which has the lock of b until a is in the log."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(root=str(ROOT)), *args],
        cwd=several.project.path,
        text=True,
    )
    wait_for_files(str(several.project.path / "holds"))
    return process


def test_another_process_trains_the_second(several: Several) -> None:
    """It is left alone until its turn, and then waited for."""
    wanted = several.in_turn()
    process = holding(several)
    assert wanted == (several.run(), several.project.log())[::-1]
    assert 0 == process.wait(timeout=LONG_S)
    assert [] == several.trained_by_workers()


def test_who_waits_holds_nothing(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits for a lock has given back those of the loops that it has begun."""
    several.write("abc")
    wanted = several.in_turn()
    waits(monkeypatch, several, "a", "c")
    process = holding(several, "c")
    assert wanted == (several.run(), several.project.log())[::-1]
    assert 0 == process.wait(timeout=LONG_S)
    assert {"a", "c"} <= set(several.trained_by_workers())


def test_xdist(several: Several) -> None:
    """A worker of pytest-xdist knows a part of the gates only, and begins no other loop."""
    pytest.importorskip("xdist")
    wanted, outcomes = several.in_turn()
    done = several.project.run_alone(*TWO, "-n", "1")
    assert "1 failed, 1 passed" in done.stdout
    assert {"failed": 1, "passed": 1} == outcomes
    assert wanted == several.project.log()
    assert [] == several.trained_by_workers()


@pytest.mark.parametrize("args", [("--deselect", "b.ftloop.yaml"), ("a.ftloop.yaml",)])
def test_not_selected(several: Several, args: tuple[str, ...]) -> None:
    """A loop whose gates are not to run is not begun."""
    several.run(*args)
    assert ["a"] == several.trained()
    assert [] == several.trained_by_workers()


def test_another_test_between(several: Several) -> None:
    """Nothing is begun past a test of another kind, which may change what a loop trains on."""
    several.project.write("a_test.py", "def test_it():\n    pass\n")
    several.project.run(*TWO, "a.ftloop.yaml", "a_test.py", "b.ftloop.yaml")
    assert ["a", "b"] == several.trained()
    assert [] == several.trained_by_workers()


CHANGES = """\
pytest_plugins = ["tests.plugin.fake_workers"]
from pathlib import Path

def pytest_runtest_setup(item):
    if item.path.name.startswith("b"):
        file = Path(__file__).with_name("eval.jsonl")
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("answer 1", "answer 7"), encoding="utf-8")
"""


def test_rows_that_change_before_its_turn(
    several: Several, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop is trained on the rows that it has in its turn, whatever was begun before."""
    rows = (several.project.path / "eval.jsonl").read_bytes()
    several.write("abc")
    several.project.write("conftest.py", CHANGES)
    wanted = several.in_turn()
    several.project.write("eval.jsonl", rows)
    waits(monkeypatch, several, "a", "b")
    assert wanted == (several.run(), several.project.log())[::-1]


@pytest.mark.parametrize("how", ["", "always"])
def test_killed_worker(several: Several, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The training of a following loop is tried again; if that fails too, its gates fail."""
    logs, _ = several.in_turn()
    waits(monkeypatch, several, "a", "b")
    (several.kill / "0.0008").write_text(how, encoding="utf-8")
    result = several.project.run(*TWO)
    if not how:
        assert logs == several.project.log()
        return
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*iteration 1: its worker was killed by SIGKILL*"])
    assert {name for name in logs if name.startswith("a/")} == set(several.project.log())


def test_failed_beside_another(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that fails before its loop's turn, such as for want of memory, is tried again."""
    wanted = several.in_turn()
    (several.kill / "0.0008").write_text("memory", encoding="utf-8")
    monkeypatch.setenv("FAKE_WAIT_a", str(several.cache / "workers" / "*" / "error.json"))
    assert wanted == (several.run(), several.project.log())[::-1]
    assert ["a", "b"] == several.trained_by_workers()
    assert [] == several.specs()


def test_rows_that_end_python(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the code of a following loop raises, in whatever way, fails that loop alone."""
    several.write("abc")
    several.project.write("rows.py", "import sys\n\nsys.exit(3)\n")
    text = LOOP.format(rate=RATES["b"], eval="eval", more="")
    several.project.write("b.ftloop.yaml", text.replace("train.jsonl", "'rows:train'"))
    wanted = several.in_turn()
    waits(monkeypatch, several, "a", "c")
    assert wanted == (several.run(), several.project.log())[::-1]
    assert {"failed": 2, "passed": 1} == wanted[1]


SKIPS = """\
pytest_plugins = ["tests.plugin.fake_workers"]
import pytest

def pytest_runtest_setup(item):
    if item.path.name.startswith("b"):
        pytest.skip("not today")
"""

ALONE = """\
from pathlib import Path
from pytest_ftloop.log.files import locked

def test_it():
    with locked(Path("improvement_log/b"), lambda: 1 / 0):
        pass
"""


def test_skipped_loop(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun of a loop whose gates are skipped ends before a test of the user's begins."""
    several.project.write("conftest.py", SKIPS)
    several.project.write("z_test.py", ALONE)
    waits(monkeypatch, several, "a", "b")
    (several.kill / "0.0008").write_text("hang", encoding="utf-8")
    outcomes = several.run("a.ftloop.yaml", "b.ftloop.yaml", "z_test.py")
    assert {"failed": 1, "skipped": 1, "passed": 1} == outcomes
    assert ["a", "b"] == several.trained_by_workers()
    assert not is_running(several.worker("b"))


def test_same_settings(several: Several) -> None:
    """Loops that train the same weights do so one after the other."""
    for name in "bc":
        several.project.write(
            f"{name}.ftloop.yaml", (several.project.path / "a.ftloop.yaml").read_bytes()
        )
    wanted = several.in_turn()
    assert wanted == (several.run(), several.project.log())[::-1]
    assert ["a", "b", "c"] == sorted(several.trained())
    assert [] == several.specs()


def test_time_budget_is_of_one_loop(several: Several) -> None:
    """A loop with a time budget has the machine for itself, before others and after them."""
    several.write("abc", b=", time_budget_s: 100")
    wanted = several.in_turn()
    assert wanted == (several.run(), several.project.log())[::-1]
    assert [] == several.trained_by_workers()


def test_retrain(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that are trained again are begun in the same way."""
    wanted = several.in_turn()
    several.project.run("--ftloop")
    several.project.trained_file.unlink()
    waits(monkeypatch, several, "a", "b")
    assert wanted == (several.run("--ftloop-retrain"), several.project.log())[::-1]
    assert ["a", "b"] == sorted(several.trained())
