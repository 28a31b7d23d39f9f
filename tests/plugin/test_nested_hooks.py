"""Hooks in the conftest.py files of several folders: each loop has those of its own folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from tests.plugin.conftest import Project

LOOP = """\
data: {train: ../train.jsonl, eval: ../eval.jsonl}
lora: {r: 8, lora_alpha: 16}
training: {learning_rate: 1.0e-3, num_train_epochs: 2}
scoring: {scorer: hook}
gates: {pass_rate: ">= 0%"}
loop: {iterations: 2, patience: 9}
"""

HOOKS = """\
from pytest_ftloop import Finding

def pytest_ftloop_score(output, expected, example):
    return PASSED

def pytest_ftloop_diagnose(evidence):
    return [Finding("by-FOLDER", "info", "It is FOLDER's.", {}, "")]

def pytest_ftloop_adjust(loop, chain):
    return {"training.learning_rate": RATE} if len(chain) == 1 else {}
"""


def hooks(folder: str, passed: str, rate: str) -> str:
    return HOOKS.replace("FOLDER", folder).replace("PASSED", passed).replace("RATE", rate)


@pytest.fixture
def nested(project: Project) -> Project:
    """Loops a and b in folders of their names, each with its own hooks."""
    (project.path / "x.ftloop.yaml").unlink()
    for folder, passed, rate in (("a", "True", "7e-4"), ("b", "False", "8e-4")):
        project.write(f"{folder}/{folder}.ftloop.yaml", LOOP)
        project.write(f"{folder}/conftest.py", hooks(folder, passed, rate))
    return project


def logged(project: Project, loop: str, folder: str | None = None) -> tuple[Iteration, ...]:
    return ImprovementLog(project.path / (folder or loop) / "improvement_log" / loop).read()


def check(project: Project, loop: str, passed: float, rate: float) -> None:
    first, second = logged(project, loop)
    assert passed == first.metrics["pass_rate"] == second.metrics["pass_rate"]
    assert rate == second.settings.get("training.learning_rate")
    own = [f.kind for i in (first, second) for f in i.findings if f.kind.startswith("by-")]
    assert [f"by-{loop}"] * 2 == own


@pytest.mark.parametrize(
    "arguments",
    [(), ("a", "b"), ("b", "a"), pytest.param(("-n", "2"), marks=pytest.mark.slow)],
    ids=lambda given: " ".join(given),
)
def test_each_loop_has_its_own(nested: Project, arguments: tuple[str, ...]) -> None:
    """Whatever the order of the arguments, and in xdist's workers too."""
    (nested.run_alone if "-n" in arguments else nested.run)("--ftloop", *arguments)
    check(nested, "a", 1.0, 7e-4)
    check(nested, "b", 0.0, 8e-4)
    assert logged(nested, "a")[0].scoring["source"] != logged(nested, "b")[0].scoring["source"]
    nested.run("--ftloop-replay", "b", "a").assert_outcomes(passed=4)


def test_hook_above_counts_for_all_below(nested: Project) -> None:
    """A hook of the folder above serves a folder without its own; the nearest wins."""
    (nested.path / "a/conftest.py").unlink()
    text = (nested.path / "conftest.py").read_text(encoding="utf-8")
    nested.write("conftest.py", text + hooks("a", "True", "7e-4"))
    nested.run("--ftloop", "b", "a")
    check(nested, "a", 1.0, 7e-4)
    first, second = logged(nested, "b")
    assert 0.0 == first.metrics["pass_rate"]
    assert 8e-4 == second.settings.get("training.learning_rate")


def test_loop_file_of_another_folder(nested: Project) -> None:
    """A test that runs a loop file elsewhere runs it with the hooks there, collected or not."""
    run = "def test_it(ftloop):\n    ftloop('../{0}/{0}.ftloop.yaml').run()\n"
    nested.write("tests/test_b.py", run.format("b"))
    nested.write("tests/conftest.py", hooks("tests", "True", "9e-4"))
    nested.run("--ftloop", "tests").assert_outcomes(passed=1)
    check(nested, "b", 0.0, 8e-4)


def test_loop_made_in_python(nested: Project) -> None:
    """It has the hooks of its test's folder."""
    nested.write(
        "a/test_py.py",
        "def test_a(ftloop):\n"
        "    ftloop(train='../train.jsonl', eval='../eval.jsonl', scoring='hook',\n"
        "           training={'learning_rate': 1e-3}, loop={'iterations': 2}).run()\n",
    )
    nested.run("--ftloop", "b", "a/test_py.py").assert_outcomes(passed=2)
    (nested.path / "a/improvement_log/a").rename(nested.path / "a/improvement_log/renamed")
    assert [1.0, 1.0] == [i.metrics["pass_rate"] for i in logged(nested, "renamed", "a")]


LAX = """\
def pytest_ftloop_score(output, expected, example):
    return True
"""


def test_changed_hook(nested: Project) -> None:
    """The log of that loop alone is out of date, under pytest and in ftloop gate."""
    nested.run("--ftloop")
    before = nested.trained()
    nested.run("--ftloop-replay").assert_outcomes(passed=4)
    nested.edit("b/conftest.py", "return False", "return True")
    result = nested.run("--ftloop-replay")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        ["*scoring changed since*", "*the code of pytest_ftloop_score, or*"]
    )
    assert [0, 3] == [main(["gate", str(nested.path / folder)]) for folder in "ab"]
    assert before == nested.trained()


def test_fixture_beside_the_hook(nested: Project) -> None:
    """A conftest.py has more than the hook: what scores nothing is no change of the scoring."""
    nested.run("--ftloop")
    for folder in "ab":
        text = (nested.path / folder / "conftest.py").read_text(encoding="utf-8")
        fixture = "import pytest\n\n@pytest.fixture\ndef number():\n    return 1\n"
        nested.write(f"{folder}/conftest.py", f"{fixture}{text}")
    nested.run("--ftloop-replay").assert_outcomes(passed=4)


def test_hook_that_can_not_be_seen(nested: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a plugin that no conftest.py names the code is unknown, which a note says."""
    for folder in "ab":
        (nested.path / folder / "conftest.py").unlink()
    nested.write("lax_plugin.py", LAX)
    nested.pytester.syspathinsert()
    result = nested.run("-p", "lax_plugin", "--ftloop", "a")
    result.stdout.fnmatch_lines(["  note: no conftest.py from the loop's folder upwards defines*"])
    assert {"scorer": "hook"} == dict(logged(nested, "a")[0].scoring)
    capsys.readouterr()
    assert 0 == main(["gate", str(nested.path / "a")])
    assert "  note: no conftest.py from the loop's folder upwards" in capsys.readouterr().out
