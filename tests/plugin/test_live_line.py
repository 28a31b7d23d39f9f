"""The live line: drawn in place, at most ten times a second, and only on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.core.progress import ToldOnce
from pytest_ftloop.report.escape import columns_of
from pytest_ftloop.report.live import CLEAR, EVERY_S, LiveLine, StayingLines
from tests.fakes import fake_finding
from tests.plugin.conftest import EVAL, TRAIN
from tests.processes import LONG_S

if TYPE_CHECKING:
    from tests.plugin.conftest import Project


@dataclass
class Screen:
    """A terminal's writer and a clock that stands still."""

    written: list[str] = field(default_factory=list)
    now: float = 100.0

    def line(self, width: int = 80, before: str = "") -> LiveLine:
        return LiveLine(self.written.append, width, lambda: self.now, lambda: before)

    def texts(self) -> list[str]:
        """What was drawn, one text a redraw."""
        assert all(text.startswith(CLEAR) for text in self.written)
        return [text.removeprefix(CLEAR) for text in self.written]


def test_draws_what_is_under_way() -> None:
    """Loop, iteration, step, loss and time left are on the line; other work says what it is."""
    screen = Screen()
    line = screen.line()
    line.working("loading torch and the base model")
    screen.now += 1
    line.iteration("sentiment", "iteration 2/4")
    line.step(1, 60, 2.5)
    screen.now += 10
    line.step(20, 60, 1.25)
    screen.now += 1
    line.working("scoring", 40, 200)
    loading, _, step, scoring = screen.texts()
    assert "loading torch and the base model" == loading
    assert step.startswith("sentiment  iteration 2/4  step 20/60 ")
    assert "loss 1.250" in step
    assert "0:20 left" in step
    assert "sentiment  iteration 2/4  scoring 40/200" == scoring


def test_throttled() -> None:
    """A thousand steps in a second are ten redraws; the first is drawn at once."""
    screen = Screen(now=0.0)
    line = screen.line()
    line.iteration("x", "iteration 1/1")
    for step in range(1, 1001):
        line.step(step, 1000, 1.0)
        screen.now += 0.001
    assert 9 <= len(screen.written) <= 11
    assert "step 1/1000" in screen.written[0]
    assert pytest.approx(EVERY_S) == 0.1


def test_beginning_and_end_of_other_work_are_drawn() -> None:
    """The first and the last of a piece of work are drawn whatever was drawn just before."""
    screen = Screen()
    line = screen.line()
    for done in range(11):
        line.working("scoring", done, 10)
    assert ["scoring 0/10", "scoring 10/10"] == screen.texts()


def test_taken_away() -> None:
    """`done` clears the line and puts back what stood there; it does nothing if nothing did."""
    screen = Screen()
    line = screen.line(before="test_x.py .")
    line.done()
    assert [] == screen.written
    line.working("scoring")
    line.done()
    line.done()
    assert ["scoring", "test_x.py ."] == screen.texts()


@pytest.mark.parametrize("width", [1, 5, 10, 20, 40, 80, 200])
@pytest.mark.parametrize("name", ["x", "a-very-long-name-of-a-loop" * 3, "\u611f\u60c5" * 20])
def test_fits_the_width(width: int, name: str) -> None:
    """No redraw is as wide as the terminal: a line that wraps can't be cleared."""
    screen = Screen()
    line = screen.line(width)
    line.iteration(name, "iteration 12/100")
    line.step(12345, 123456, float("inf"))
    screen.now += 1
    line.working("measuring the loss of the eval set " * 3, 7, 100)
    screen.now += 1
    line.working("\u6e2c" * 60)
    assert 3 == len(screen.written)
    assert all(columns_of(text) < max(width, 1) for text in screen.texts())


LEAK = fake_finding("leak", "warning", message="In both.", remedy="Take them out.")


def test_findings_of_the_data_stay() -> None:
    """Lines that stay are written above the line, which is drawn below them again."""
    screen = Screen()
    line = screen.line(before="test_x.py .")
    line.working("loading")
    line.found("x", [LEAK])
    line.working("training")
    said = "ftloop x: warning leak: In both. Take them out.\n"
    assert ["loading", f"{said}test_x.py .", "training"] == screen.texts()


def test_findings_where_nothing_is_redrawn() -> None:
    """Into a file they stand below the line that had begun, which goes on after them."""
    written: list[str] = []
    for before in ("test_x.py .", ""):
        lines = StayingLines(written.append, 80, lambda before=before: before)
        lines.working("loading")
        lines.found("x", [LEAK])
        lines.found("x", [LEAK])
        lines.found("x", [fake_finding(severity="info")])
        lines.done()
        lines.done()
    said = "ftloop x: warning leak: In both. Take them out.\n"
    assert [f"\n{said}", said, "test_x.py .", said, said] == written


def test_findings_of_several_runs_are_told_once() -> None:
    """What each run of a loop shows anew is told by the first; what is new, when it comes."""
    written: list[str] = []
    told = ToldOnce("x", StayingLines(written.append, 80))
    cut = fake_finding("truncated-labels", "warning", message="2 rows.", remedy="Raise it.")
    for findings in ([LEAK], [LEAK], [], [cut, LEAK], [cut]):
        told.found(findings)
    assert [
        "ftloop x: warning leak: In both. Take them out.\n",
        "ftloop x: warning truncated-labels: 2 rows. Raise it.\n",
    ] == written


def test_a_line_a_minute_where_nothing_is_redrawn() -> None:
    """Also while the work reports nothing, as a download does; none after the end."""
    written: list[str] = []
    came = threading.Event()

    def write(text: str) -> None:
        written.append(text)
        came.set()

    lines = StayingLines(write, 80, every_s=0.01, clock=lambda: 100.0)
    lines.working("loading torch and the base model")
    assert came.wait(LONG_S)
    assert "ftloop: loading torch and the base model, for 0.0 s\n" == written[0]
    lines.done()
    count = len(written)
    time.sleep(0.05)
    assert count == len(written)


def test_lines_of_an_iteration_where_nothing_is_redrawn() -> None:
    """Begin, a step with loss and time left, other work, the end with figures: each a line."""
    written: list[str] = []
    now = [100.0]
    lines = StayingLines(written.append, 80, clock=lambda: now[0], every_s=LONG_S)
    lines.ended({"eval_loss": 1.0})  # evaluated again: no iteration had begun
    lines.iteration("x", "iteration 2/4")
    lines.step(1, 60, 2.5)
    now[0] += 15
    lines.working("evaluating", 1, 200)  # in between: it is part of the time that steps take
    now[0] += 5
    lines.step(20, 60, 1.25)
    lines.tell()
    lines.working("evaluating", 40, 200)
    now[0] += 70
    lines.working("evaluating", 80, 200)
    lines.tell()
    lines.ended({"eval_loss": 0.5, "pass_rate": 0.75, "train_loss": 1.0})
    lines.done()
    lines.tell()
    assert [
        "ftloop x: iteration 2/4 begins\n",
        "ftloop x  iteration 2/4  step 20/60 [===>      ] loss 1.250  0:40 left\n",
        "ftloop x: evaluating 80/200, for 1 min 10 s\n",
        "ftloop x: iteration 2/4 done in 1 min 30 s, eval_loss 0.5000, pass_rate 75.0%\n",
    ] == written


def test_nothing_is_said_between_two_iterations() -> None:
    """The last step of one that has ended is not under way."""
    written: list[str] = []
    lines = StayingLines(written.append, 80, every_s=LONG_S, clock=lambda: 100.0)
    lines.iteration("x", "iteration 1/2")
    lines.step(60, 60, 1.0)
    lines.ended({})
    lines.tell()
    lines.done()
    assert [
        "ftloop x: iteration 1/2 begins\n",
        "ftloop x: iteration 1/2 done in 0.0 s\n",
    ] == written


def test_time_left_of_a_training_that_goes_on() -> None:
    """After an interruption the first step is a later one: the time is that of the steps since."""
    screen = Screen()
    written: list[str] = []
    redrawn = screen.line()
    staying = StayingLines(written.append, 80, clock=lambda: screen.now, every_s=LONG_S)
    for line in (redrawn, staying):
        line.iteration("x", "iteration 1/1")
    screen.now += 600  # the base model is loaded
    for line in (redrawn, staying):
        line.step(501, 1000, 1.0)
    screen.now += 100
    for line in (redrawn, staying):
        line.step(600, 1000, 1.0)
    staying.tell()
    staying.done()
    assert "6:40 left" in screen.texts()[-1]
    assert "6:40 left" in written[-1]


def run_on_a_terminal(project: Project, *args: str, term: str = "xterm") -> tuple[int, str]:
    """Run pytest on a pseudo-terminal of 100 columns; exit code and all it received."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        project.command("--ftloop", *args),
        cwd=project.path,
        env=os.environ | {"FAKE_STEP_S": "0.005", "TERM": term},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    received = b""
    try:
        while chunk := os.read(ours, 65536):
            received += chunk
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(ours)
    return process.wait(timeout=LONG_S), received.decode()


def shown(received: str) -> list[str]:
    """The lines that are left on the screen, without colours."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", received).replace("\r\n", "\n")
    return [line.rpartition(CLEAR)[2] for line in plain.split("\n")]


terminals = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


@terminals
@pytest.mark.parametrize(
    "args",
    [
        (),
        ("-s",),
        pytest.param(("--capture=sys",), marks=pytest.mark.slow),
        pytest.param(("-q",), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_shown_on_a_terminal(project: Project, args: tuple[str, ...]) -> None:
    """On a terminal the line is drawn, whatever is captured, and nothing of it is left."""
    project.write(
        "test_x.py",
        "def test_x(ftloop):\n    print('mine')\n    ftloop('x.ftloop.yaml').run()\n",
    )
    began = time.monotonic()
    code, received = run_on_a_terminal(project, *args)
    most = (time.monotonic() - began) / EVERY_S
    assert 0 == code, received
    drawn = re.findall(r"\r\x1b\[2Kx  iteration (\d)/3  step \d+/100 \[[=> ]{10}\] loss", received)
    assert {"1", "2", "3"} == set(drawn)
    assert 3 * 3 <= len(drawn) <= most + 3
    left = shown(received)
    assert not any(re.search(r"step \d+/", line) for line in left)
    assert ("mine" in received) == ("-s" in args)


@terminals
@pytest.mark.parametrize(
    ("args", "expected"), [((), "x.ftloop.yaml .."), (("-v",), "x.ftloop.yaml::eval_loss PASSED")]
)
def test_pytests_own_line_is_put_back(
    project: Project, args: tuple[str, ...], expected: str
) -> None:
    """The line that pytest had begun is whole again when the loop is done."""
    _, received = run_on_a_terminal(project, *args)
    assert any(line.startswith(expected) for line in shown(received)), shown(received)


@terminals
def test_quiet_on_a_dumb_terminal(project: Project) -> None:
    """A terminal that knows no escape sequences gets none."""
    code, received = run_on_a_terminal(project, "--color=no", term="dumb")
    assert 0 == code
    assert "\x1b" not in received


def test_quiet_without_a_terminal(project: Project) -> None:
    """Into a pipe or a file nothing is drawn."""
    done = project.run_alone("--ftloop", FAKE_STEP_S="0.002")
    assert 0 == done.returncode
    assert "\x1b" not in done.stdout + done.stderr
    assert "step 1/" not in done.stdout


def leaking(project: Project) -> None:
    """Put the eval set's rows into the train set."""
    project.write_rows("train.jsonl", [*TRAIN, *({**row, "id": f"t{row['id']}"} for row in EVAL)])


def test_findings_of_the_data_come_before_training(project: Project) -> None:
    """Also into a pipe: what is wrong with the data is said once, before the first iteration."""
    leaking(project)
    done = project.run_alone("--ftloop")
    said = "ftloop x: warning leak: 5 of 5 eval examples are in the train set"
    assert 1 == done.stdout.count(said)
    lines = done.stdout.splitlines()
    assert lines.index("x.ftloop.yaml ") < next(i for i, x in enumerate(lines) if said in x)
    assert any(line.startswith("x.ftloop.yaml ..") for line in lines)
    again = project.run_alone("--ftloop", "-v")  # up to date: nothing is trained
    assert said not in again.stdout
    assert "warning leak: 5 of 5" in again.stdout  # in the summary


@terminals
def test_findings_of_the_data_on_a_terminal(project: Project) -> None:
    """On a terminal they stay on the screen when the line is gone."""
    leaking(project)
    code, received = run_on_a_terminal(project)
    assert 0 == code, received
    assert sum(line.startswith("ftloop x: warning leak:") for line in shown(received)) == 1


AT_WORK = [("seed 43", "12/40 loss 1.234"), ("seed 44", "preparing")]


def test_line_of_workers() -> None:
    """One line shows what all workers are doing, cut to the screen, ten times a second at most."""
    screen = Screen()
    line = screen.line()
    line.together("x", AT_WORK, 2)
    line.together("x", [], 0)
    screen.now += 2 * EVERY_S
    line.together("x", AT_WORK[:1], 0)
    assert [
        "x  2 at once  seed 43: 12/40 loss 1.234  seed 44: preparing  (2 waiting)",
        "x  1 at once  seed 43: 12/40 loss 1.234",
    ] == screen.texts()
    narrow = Screen()
    narrow.line(40).together("x", AT_WORK, 2)
    assert columns_of(narrow.texts()[0]) < 40


def test_heartbeat_of_workers() -> None:
    """Where nothing is redrawn, a line a minute shows that workers are at work."""
    written: list[str] = []
    lines = StayingLines(written.append, 80, every_s=LONG_S)
    lines.together("x", AT_WORK, 0)
    assert [] == written
    lines.tell()
    lines.together("x", [], 0)
    lines.tell()
    lines.done()
    lines.tell()
    said = "x  2 at once  seed 43: 12/40 loss 1.234  seed 44: preparing"
    assert 2 * [said] == "".join(written).splitlines()
