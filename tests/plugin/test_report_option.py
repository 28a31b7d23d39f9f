"""`--ftloop-report PATH`: one HTML file on all loops that ran, also of several processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("plotly")

if TYPE_CHECKING:
    from tests.plugin.conftest import Project


def test_the_file_is_written_and_named(project: Project) -> None:
    """All loops that ran are in the file, which the summary names; folders to it are made."""
    project.write("y.ftloop.yaml", (project.path / "x.ftloop.yaml").read_bytes())
    result = project.run("--ftloop", "--ftloop-report", "out/page.html")
    result.stdout.fnmatch_lines(["ftloop report: written to out/page.html"])
    page = (project.path / "out/page.html").read_text(encoding="utf-8")
    assert ">x</h1>" in page
    assert ">y</h1>" in page


def test_no_verdict_is_written_for_it(project: Project) -> None:
    """A loop that has no regression gate is compared for the page, and its log stays as it is."""
    project.run("--ftloop")
    before = project.log()
    project.run("--ftloop", "--ftloop-report", "page.html")
    assert before == project.log()


@pytest.mark.slow
def test_processes_of_xdist_give_the_same_file(project: Project) -> None:
    """What workers ran the controller reads from the log: the file is as of one process."""
    pytest.importorskip("xdist")
    project.write("test_x.py", "def test_x(ftloop):\n    ftloop('x.ftloop.yaml').run()\n")
    project.run_alone("--ftloop", "--ftloop-report", "alone.html")
    done = project.run_alone("--ftloop", "-n", "2", "--ftloop-report", "many.html")
    assert "ftloop report: written to many.html" in done.stdout
    assert project.files()["alone.html"] == project.files()["many.html"]


def test_nothing_ran(project: Project) -> None:
    """Where no loop ran no file is written, and that is said."""
    project.write("test_plain.py", "def test_plain():\n    pass\n")
    result = project.run("--ftloop", "--ftloop-report", "page.html", "test_plain.py")
    result.stdout.fnmatch_lines(["ftloop report: not written: no loop ran"])
    assert "page.html" not in project.files()


def test_a_path_that_cannot_be_written_fails_the_run(project: Project) -> None:
    """Tests that passed do not hide that the report is missing."""
    project.write("there/keep.txt", "")
    result = project.run("--ftloop", "--ftloop-report", "there")
    result.stdout.fnmatch_lines(["ftloop report: there: the report can't be written*"])
    assert pytest.ExitCode.USAGE_ERROR == result.ret


def test_missing_extra_is_said_before_training(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without jinja2 or plotly nothing is trained for a report that could not be written."""
    from pytest_ftloop.report.html import page

    monkeypatch.setattr(page, "find_spec", lambda _: None)
    result = project.run("--ftloop", "--ftloop-report", "page.html")
    result.stderr.fnmatch_lines(["*pip install *pytest-ftloop[[]report]*"])
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    assert [] == project.trained()


def test_without_ftloop_it_does_nothing(project: Project) -> None:
    """In addopts it does not make a plain run train."""
    project.write("test_plain.py", "def test_plain():\n    pass\n")
    project.run("--ftloop-report", "page.html").assert_outcomes(passed=1)
    assert "page.html" not in project.files()
