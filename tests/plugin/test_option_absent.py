"""A pytest run without --ftloop: nothing is read, imported, trained or printed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

TEST = "def test_plain():\n    pass\n"

SPY = """\
import atexit
import sys
from pathlib import Path

def note(file):
    Path(file).write_text("\\n".join(sorted(sys.modules)))

def pytest_unconfigure():
    note("unconfigured.txt")

atexit.register(note, "exited.txt")
"""


def test_loop_files_are_not_read(project: Project) -> None:
    """Without --ftloop a loop file, a broken one too, is as if it were not there."""
    project.write("broken.ftloop.yaml", "{")
    project.write("test_plain.py", TEST)
    result = project.run()
    result.assert_outcomes(passed=1)
    assert "yaml" not in result.stdout.str()


def test_fixture_skips(project: Project) -> None:
    """A test that uses the fixture is skipped, and the reason names the option."""
    project.write("test_loop.py", "def test_x(ftloop):\n    ftloop('missing.ftloop.yaml').run()\n")
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["SKIPPED*test_loop.py*needs --ftloop: without it nothing is trained*"]
    )


@pytest.mark.parametrize("name", ["x.ftloop.yaml", "broken.ftloop.yml"])
def test_named_loop_file_is_one_skipped_item(project: Project, name: str) -> None:
    """A loop file that is named gives one skipped item that says what is missing."""
    project.write("broken.ftloop.yml", "{")
    result = project.run("-rs", name)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*needs --ftloop: without it loop files are not read"])
    assert [] == project.trained()


def test_nothing_heavy_is_imported(project: Project) -> None:
    """At the very end of a plain run neither torch nor our own modules have been imported."""
    project.write("conftest.py", SPY)
    project.write("test_plain.py", TEST)
    done = project.run_alone()
    assert 0 == done.returncode, done.stdout
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "numpy", "pydantic", "yaml"}
    heavy |= {"ruamel.yaml", "filelock", "tabulate", "wcwidth"}
    for when in ("unconfigured.txt", "exited.txt"):
        imported = set((project.path / when).read_text(encoding="utf-8").split())
        assert set() == heavy & imported, when
        assert {
            "pytest_ftloop",
            "pytest_ftloop.plugin",
            "pytest_ftloop.plugin.entry",
            "pytest_ftloop.plugin.hookspecs",
        } == {name for name in imported if name.startswith("pytest_ftloop")}


def test_nothing_is_printed(project: Project) -> None:
    """But for pytest's own list of plugins, the output is that of a run without the plugin."""
    project.write("conftest.py", "")
    project.write("test_plain.py", TEST)

    def said(*args: str) -> str:
        text = project.run("--strict-markers", *args).stdout.str()
        return re.sub(r"plugins: .*|in [\d.]+s|=", "", text)

    assert said("-p", "no:ftloop") == said()


def test_strict_markers(project: Project) -> None:
    """The marker is registered, also where nothing is trained."""
    project.write("test_plain.py", f"import pytest\n\n@pytest.mark.ftloop\n{TEST}")
    project.run("--strict-markers").assert_outcomes(passed=1)


@pytest.mark.parametrize("args", [(), ("--ftloop",)])
def test_fixture_users_are_marked(project: Project, args: tuple[str, ...]) -> None:
    """-m selects the users of the fixture and the gates by the marker."""
    project.write("test_loop.py", f"def test_x(ftloop):\n    pass\n\n{TEST}")
    result = project.run(*args, "-m", "not ftloop")
    result.assert_outcomes(passed=1, deselected=3 if args else 1)
    result = project.run(*args, "-m", "ftloop")
    assert 1 == result.parseoutcomes()["deselected"]


def test_blocked_plugin(project: Project) -> None:
    """-p no:ftloop leaves a folder with loop files and no fixture."""
    project.write("conftest.py", "")
    project.write("test_loop.py", f"def test_x(ftloop):\n    pass\n\n{TEST}")
    result = project.run("-p", "no:ftloop")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'ftloop' not found"])


def test_markers_and_help(project: Project) -> None:
    """--markers, --fixtures and --help show what there is."""
    project.run("--markers").stdout.fnmatch_lines(["@pytest.mark.ftloop: runs a fine-tuning loop*"])
    project.run("--fixtures").stdout.fnmatch_lines(
        ["ftloop -- *", "*Make a fine-tuning loop from a loop file or from Python objects*"]
    )
    text = project.run("--help").stdout.str()
    group = text.partition("fine-tuning loops (pytest-ftloop):")[2].partition("\n\n")[0]
    options = re.findall(r"^  (--[\w-]+)", group, re.MULTILINE)
    assert ["--ftloop", "--ftloop-retrain", "--ftloop-replay"] == options[:3]
    assert {"--ftloop-iterations", "--ftloop-log"} <= set(options)
    assert all(option.startswith("--ftloop") for option in options)
