"""The user's own adjustments, by the hook: what is trained next, and mistakes named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from tests.plugin.conftest import Project

CONFTEST = """\
pytest_plugins = ["tests.plugin.fake_runner"]

def pytest_ftloop_adjust(loop, chain):
    assert loop == "x" and chain[0].number == 1
    {body}
"""


def chain(project: Project) -> list[Iteration]:
    return list(ImprovementLog(project.path / "improvement_log" / "x").read())


def test_hook_decides(project: Project) -> None:
    """What the hook returns is trained next, with its name as the reason; {} ends the loop."""
    body = "return {'training.learning_rate': 7e-4} if len(chain) == 1 else {}"
    project.write("conftest.py", CONFTEST.format(body=body))
    project.run("--ftloop", "--ftloop-iterations", "4")
    first, second = chain(project)
    assert 7e-4 == second.settings.get("training.learning_rate")
    assert "returned by pytest_ftloop_adjust" == first.decision.because
    assert ("stop", "exhausted") == (second.decision.action, second.decision.kind)
    again = project.run("--ftloop", "--ftloop-iterations", "4")
    again.stdout.fnmatch_lines(["x: 2 iterations (up to date)*"])


def test_none_leaves_it_to_the_policy(project: Project) -> None:
    """A hook that returns None changes nothing."""
    project.run("--ftloop", "--ftloop-iterations", "2")
    by_rules = [i.settings.get("training.learning_rate") for i in chain(project)]
    project.write("conftest.py", CONFTEST.format(body="return None"))
    project.run("--ftloop", "--ftloop-iterations", "2", "--ftloop-retrain")
    assert by_rules == [i.settings.get("training.learning_rate") for i in chain(project)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 3", "*policy pytest_ftloop_adjust: wanted a mapping of settings, found int*"),
        ("return {'rate': 1}", "*wanted names such as training.learning_rate, found 'rate'*"),
        ("raise KeyError('mine')", "*policy pytest_ftloop_adjust raised KeyError: 'mine'*"),
    ],
)
def test_mistakes(project: Project, body: str, said: str) -> None:
    """A hook that fails or says something else is one clear error without a traceback."""
    project.write("conftest.py", CONFTEST.format(body=body))
    result = project.run("--ftloop")
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*Traceback*")
    # What was trained is not lost: the next run, with the hook mended, goes on from there.
    assert ["pending"] == [iteration.decision.kind for iteration in chain(project)]
    body = "return {'training.learning_rate': 7e-4} if len(chain) == 1 else {}"
    project.write("conftest.py", CONFTEST.format(body=body))
    project.run("--ftloop")
    assert ["x 0.0002", "x 0.0007"] == project.trained()
