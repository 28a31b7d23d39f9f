"""A run that is ended from outside: what was finished is kept, and the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.log import ImprovementLog
from tests.plugin.test_gate_items import CHAIN
from tests.processes import LONG_S, wait_for

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

HINT = (
    "ftloop: x was interrupted; its finished iterations are in the improvement log, and the next "
    "pytest --ftloop continues from them"
)


def end_in_iteration(project: Project, number: int, sent: int, *args: str) -> tuple[int, str]:
    """Start a run, send a signal while iteration `number` trains; its exit code and output."""
    process = subprocess.Popen(
        project.command("--ftloop", *args),
        cwd=project.path,
        env=os.environ | {"FAKE_HANG": str(number)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    hangs = project.trained_file.with_name(f"{project.trained_file.name}.hangs")
    try:
        wait_for(hangs, process)
        process.send_signal(sent)
        out, _ = process.communicate(timeout=LONG_S)
    finally:
        process.kill()
    hangs.unlink()
    return process.returncode, out


@pytest.fixture
def whole(project: Project) -> dict[str, bytes]:
    """The log that an uninterrupted run writes; it is not there any more."""
    project.run("--ftloop")
    log = project.log()
    for name in log:
        (project.path / "improvement_log" / name).unlink()
    project.trained_file.unlink()
    return log


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
@pytest.mark.parametrize(
    "number", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
def test_next_run_goes_on(
    project: Project, whole: dict[str, bytes], number: int, sent: signal.Signals
) -> None:
    """Finished iterations are logged whole; the next run goes on and ends as one run would."""
    end_in_iteration(project, number, sent)
    assert CHAIN[:number] == project.trained()
    kept = project.log()
    assert dict(list(whole.items())[: 2 * (number - 1)]) == kept
    read = ImprovementLog(project.path / "improvement_log/x").read()
    assert [5] * (number - 1) == [len(iteration.examples) for iteration in read]
    result = project.run("--ftloop")
    result.assert_outcomes(passed=2)
    assert [*CHAIN[:number], *CHAIN[number - 1 :]] == project.trained()
    assert whole == project.log()
    result.stdout.fnmatch_lines([f"x: 3 iterations ({4 - number} trained, *"])


def test_interrupt_says_what_is_kept(project: Project) -> None:
    """After Ctrl-C one line says that the next run goes on."""
    code, out = end_in_iteration(project, 2, signal.SIGINT)
    assert pytest.ExitCode.INTERRUPTED == code
    assert HINT in out.splitlines()
    assert "no tests ran" in out or "KeyboardInterrupt" in out


def test_interrupt_between_loops(project: Project) -> None:
    """A loop that was finished before Ctrl-C is summed up; the hint names the other."""
    project.write("a.ftloop.yaml", (project.path / "x.ftloop.yaml").read_bytes())
    _, out = end_in_iteration(project, 5, signal.SIGINT)
    assert "a: 3 iterations (3 trained, " in out
    assert HINT in out.splitlines()


def test_half_written_record_is_no_record(project: Project, whole: dict[str, bytes]) -> None:
    """What a killed process left of a file it was writing does not disturb the next run."""
    first = next(iter(whole))
    project.write(f"improvement_log/{first}", whole[first])  # the table without its record
    project.write("improvement_log/x/.001-00000000.yaml.999999999.1.tmp", "schema: 1\nloo")
    project.run("--ftloop").assert_outcomes(passed=2)
    assert whole.items() <= project.log().items()
