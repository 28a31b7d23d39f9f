"""The hook `pytest_ftloop_executor`: a conftest.py runs the workers of the loops beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from tests.plugin.conftest import Project

ENGINE = """\
pytest_plugins = ["tests.plugin.fake_runner"]
from pathlib import Path
from pytest_ftloop.loop.executor import Ended
from pytest_ftloop.loop.worker import work_on

class Inline:
    def submit(self, spec):
        with Path(__file__).with_name("specs").open("a") as file:
            file.write(f"{spec}\\n")
        work_on(str(spec))
        return self

    def ended(self):
        return Ended()

    def close(self):
        Path(__file__).with_name("closed").touch()

def pytest_ftloop_executor(name, options, count):
    return Inline() if (name, options) == ("inline", {"size": 2}) else None
"""


def test_workers_of_a_conftest(project: Project) -> None:
    """The loop file names the engine; the log is the one that is written without it."""
    project.run("--ftloop").assert_outcomes(passed=2)
    wanted = project.log()
    for name in wanted:
        (project.path / "improvement_log" / name).unlink()
    project.write("conftest.py", ENGINE)
    project.edit("x.ftloop.yaml", "patience: 9", "patience: 9, run_on: {inline: {size: 2}}")
    project.run("--ftloop").assert_outcomes(passed=2)
    assert wanted == project.log()
    assert 3 == len((project.path / "specs").read_text(encoding="utf-8").splitlines())
    assert (project.path / "closed").exists()


def test_nobodys_engine(project: Project) -> None:
    """A name that no plugin has fails the gates with one line, and no traceback."""
    project.write("conftest.py", ENGINE)
    project.edit("x.ftloop.yaml", "patience: 9", "patience: 9, run_on: slrum")
    result: pytest.RunResult = project.run("--ftloop")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*x.ftloop.yaml:7: loop.run_on: no plugin has the engine 'slrum'"])
    result.stdout.no_fnmatch_line("*Traceback*")
