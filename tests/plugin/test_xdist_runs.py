"""Several processes of one pytest run: each iteration is trained once, the summary printed once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_gate_items import CHAIN

if TYPE_CHECKING:
    import subprocess

    from tests.plugin.conftest import Project

pytest.importorskip("xdist")

GATES = """\
gates:
  train_loss: "<= 9"
  token_accuracy: ">= 0.1"
  perplexity: "<= 99"
  overfit_gap: "<= 9"
"""


def run(project: Project, *args: str, gates: int) -> subprocess.CompletedProcess[str]:
    """Run with two workers, slowly enough that both are at work; all gates hold."""
    done = project.run_alone("-n", "2", "-v", *args, FAKE_STEP_S="0.002")
    assert pytest.ExitCode.OK == done.returncode, done.stdout
    assert f" {gates} passed" in done.stdout
    return done


def workers(done: subprocess.CompletedProcess[str]) -> set[str]:
    return set(re.findall(r"^\[(gw\d)\] \[", done.stdout, re.MULTILINE))


@pytest.mark.parametrize(
    "option", ["--ftloop", pytest.param("--ftloop-retrain", marks=pytest.mark.slow)]
)
def test_gates_spread_over_workers(project: Project, option: str) -> None:
    """Gates of one loop run in two processes; one of them trains, the summary says what it did."""
    project.edit("x.ftloop.yaml", "gates:\n", GATES)
    done = run(project, option, gates=6)
    assert {"gw0", "gw1"} == workers(done)
    assert CHAIN == project.trained()
    assert 1 == done.stdout.count("- ftloop x -")
    assert "x: 3 iterations (3 trained, " in done.stdout
    assert 1 == done.stdout.count("  git add improvement_log/x\n")
    before = project.log()
    again = run(project, option, gates=6)
    retrained = option == "--ftloop-retrain"
    assert CHAIN * (2 if retrained else 1) == project.trained()
    assert f"x: 3 iterations ({'3 trained, ' if retrained else 'up to date)'}" in again.stdout
    assert before == project.log()


def test_two_loops(project: Project) -> None:
    """Two loops and a test that uses one of them: two summaries, and the files of two logs."""
    project.write("y.ftloop.yaml", (project.path / "x.ftloop.yaml").read_bytes())
    project.write("test_x.py", "def test_x(ftloop):\n    ftloop('x.ftloop.yaml').run()\n" * 2)
    done = run(project, "--ftloop", gates=5)
    both = sorted([*CHAIN, *(line.replace("x", "y") for line in CHAIN)])
    assert both == sorted(project.trained())
    names = re.findall(r"^-+ ftloop (\w+) -+$", done.stdout, re.MULTILINE)
    assert ["x", "y"] == names
    log = [re.sub(r"-[0-9a-f]{8}-[0-9a-f]{4}", "", name) for name in project.log()]
    assert log == [
        f"{loop}/{number:03d}.{kind}"
        for loop in "xy"
        for number in (1, 2, 3)
        for kind in ("examples.csv", "yaml")
    ]


def test_failure_travels(project: Project) -> None:
    """The text of a failing gate and of a failing assert reaches the controller whole."""
    project.edit("x.ftloop.yaml", "<= 1.9", "<= 0.1")
    project.write(
        "test_x.py",
        "def test_x(ftloop):\n    assert ftloop('x.ftloop.yaml').run().eval_loss < 0.2\n",
    )
    done = project.run_alone("-n", "2", "--ftloop", "-v")
    assert pytest.ExitCode.TESTS_FAILED == done.returncode
    assert "eval_loss 1.4400, wanted <= 0.1" in done.stdout
    assert "eval_loss 1.4400, wanted < 0.2" in done.stdout
    assert 2 == done.stdout.count("history of eval_loss:")
    assert 2 == done.stdout.count("try next:")
    assert "  FAILED eval_loss 1.4400, wanted <= 0.1" in done.stdout
