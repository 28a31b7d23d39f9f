"""What lies in an improvement log comes by pull request and is data: pytest runs none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project

PLACES = (
    *("improvement_log/conftest.py", "improvement_log/x/conftest.py"),
    *("improvement_log/x/test_a.py", "sub/improvement_log/y/test_b.py"),
)


@pytest.fixture
def ran(project: Project) -> Path:
    """What code in a log makes, once it is run; beside the log there are a test and a loop."""
    marker = project.path / "ran"
    for place in PLACES:
        project.write(place, f"open({str(marker)!r}, 'w').close()\n\n\ndef test_a():\n    pass\n")
    project.write("improvement_log/x/y.ftloop.yaml", "no: loop\n")
    project.write("test_c.py", "def test_c():\n    pass\n")
    return marker


@pytest.mark.parametrize("option", ["--ftloop", "--verbose"])
def test_nothing_in_a_log_is_collected(project: Project, ran: Path, option: str) -> None:
    """Neither tests nor a conftest.py nor a loop file, with the option and without."""
    result = project.run(option)
    assert pytest.ExitCode.OK == result.ret
    result.assert_outcomes(passed=3 if option == "--ftloop" else 1)
    assert not ran.exists()


def test_a_log_that_is_named_is_collected(project: Project, ran: Path) -> None:
    """Whoever names it means it."""
    project.run("improvement_log/x/test_a.py").assert_outcomes(passed=1)
    assert ran.exists()


def test_no_command_looks_for_loops_in_a_log(
    project: Project, ran: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loop file there is not the project's."""
    project.run("--ftloop")
    assert 0 == main(["gate", str(project.path)])
    assert "y.ftloop.yaml" not in capsys.readouterr().out
    assert 2 == main(["gate", str(project.path / "improvement_log/x/y.ftloop.yaml")])
