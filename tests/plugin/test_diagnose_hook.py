"""The user's own findings: logged beside ours, and mistakes in them named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.log import ImprovementLog

if TYPE_CHECKING:
    from tests.plugin.conftest import Project

ARGS = ("--ftloop", "--ftloop-iterations", "1")

CONFTEST = """\
import pytest
from pytest_ftloop import Finding

pytest_plugins = ["tests.plugin.fake_runner", "other"]

def pytest_ftloop_diagnose(evidence):
    rude = sum("rude" in row.output for row in evidence.results)
    if not rude:
        return [Finding("too-polite", "error", f"{len(evidence.results)} answers are polite.",
                        {"answers": len(evidence.results)}, "Insult.")]
"""

OTHER = """\
from pytest_ftloop import Finding

def pytest_ftloop_diagnose(evidence):
    return (Finding("odd", "info", f"It took {len(evidence.steps)} steps.", {}, ""),)
"""


def findings(project: Project) -> list[str]:
    """The kinds that the only iteration's record has."""
    (iteration,) = ImprovementLog(project.path / "improvement_log" / "x").read()
    return [finding.kind for finding in iteration.findings]


def test_findings_are_logged_and_shown(project: Project) -> None:
    """Those of every plugin are beside ours, errors first, and the summary shows them."""
    project.write("conftest.py", CONFTEST)
    project.write("other.py", OTHER)
    result = project.run(*ARGS, "-v")
    kinds = findings(project)
    assert ("too-polite", "odd") == (kinds[0], kinds[-1])
    said = str(result.stdout)
    assert "error too-polite: 5 answers are polite." in said
    assert "info odd: It took 100 steps." in said


def test_nothing_to_say(project: Project) -> None:
    """A hook that returns nothing changes nothing."""
    project.run(*ARGS)
    expected = findings(project)
    text = (project.path / "conftest.py").read_text()
    project.write("conftest.py", f"{text}def pytest_ftloop_diagnose(evidence): pass\n")
    project.run(*ARGS, "--ftloop-retrain")
    assert expected == findings(project)


@pytest.mark.parametrize(
    ("says", "phrases"),
    [
        ("['rude']", ["wanted a pytest_ftloop.Finding, found str", "Return a list"]),
        ("1 / 0", ["raised ZeroDivisionError", "conftest.py:4"]),
    ],
)
def test_mistakes(project: Project, says: str, phrases: list[str]) -> None:
    """A mistake fails with the plugin's name, and no traceback; what was trained is logged."""
    project.write("other.py", OTHER)
    project.write(
        "conftest.py",
        'pytest_plugins = ["tests.plugin.fake_runner", "other"]\n\n'
        f"def pytest_ftloop_diagnose(evidence):\n    return {says}\n",
    )
    said = str(project.run(*ARGS).stdout)
    for phrase in ("pytest_ftloop_diagnose of ", "conftest.py", *phrases):
        assert phrase in said
    assert "Traceback" not in said
    (iteration,) = ImprovementLog(project.path / "improvement_log" / "x").read()
    assert "pending" == iteration.decision.kind


def test_ours_are_all_the_evidence_there_is(project: Project) -> None:
    """The hook sees what our rules see: curves, examples, results, gates, and the chain before."""
    project.write(
        "conftest.py",
        'pytest_plugins = ["tests.plugin.fake_runner"]\n'
        "from pytest_ftloop import Finding\n\n"
        "def pytest_ftloop_diagnose(evidence):\n"
        "    e = evidence\n"
        "    seen = [len(x) for x in (e.steps, e.evals, e.train, e.eval, e.results, e.gates)]\n"
        '    told = {"seen": str(seen), "before": len(e.history), "metric": e.metric}\n'
        '    return [Finding("seen", "info", "It is seen.", told, "")]\n',
    )
    project.run("--ftloop", "--ftloop-iterations", "2")
    iterations = ImprovementLog(project.path / "improvement_log" / "x").read()
    told = [next(f for f in i.findings if f.kind == "seen").evidence for i in iterations]
    assert [0, 1] == [of["before"] for of in told]
    assert {"[100, 4, 6, 5, 5, 2]"} == {of["seen"] for of in told}
