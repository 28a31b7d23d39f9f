"""FTLOOP_RECORDS: what the terminal says of iterations that an earlier run trained."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import IN_DOUBT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Project


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that FTLOOP_RECORDS names."""
    folder = tmp_path_factory.mktemp("kept")
    monkeypatch.setenv("FTLOOP_RECORDS", str(folder))
    return folder


def lose_log(project: Project) -> None:
    shutil.rmtree(project.path / "improvement_log")


def test_restored(project: Project) -> None:
    """Headline and table say what was restored, and what to commit; with --ftloop-retrain trained.

    The log is the same to the byte.
    """
    project.run("--ftloop", "-v")
    before, trained = project.log(), project.trained()
    lose_log(project)
    result = project.run("--ftloop", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "x: 3 iterations (3 restored), best 003-*",
            " =  1 *",
            "[*]=  3 *",
            "[*]  best   =  restored, not trained *",
            "  git add improvement_log/x",
        ]
    )
    assert (before, trained) == (project.log(), project.trained())
    lose_log(project)
    result = project.run("--ftloop-retrain")
    result.stdout.fnmatch_lines(["x: 3 iterations (3 trained, *"])
    assert (before, [*trained, *trained]) == (project.log(), project.trained())


def test_restored_and_trained(project: Project) -> None:
    """Where an earlier run was shorter, the terminal tells the two apart."""
    project.run("--ftloop", "-v", "--ftloop-iterations", "2")
    lose_log(project)
    result = project.run("--ftloop", "-v")
    result.stdout.fnmatch_lines(
        [
            "x: 3 iterations (1 trained, 1.0 s, 2 restored), best 003-*",
            "[*]+  3 *",
            "[*]  best   +  trained now   =  restored, not trained *",
        ]
    )


def test_seeds_of_a_verdict_in_doubt(gated: Project) -> None:
    """Seeds that a verdict asks for are restored too, and told beside it."""
    gated.rate(IN_DOUBT)
    gated.run("--ftloop")
    before, trained = gated.log(), gated.trained()
    assert 3 == len(trained)
    lose_log(gated)
    gated.repo.git("checkout", "improvement_log")
    result = gated.run("--ftloop")
    result.stdout.fnmatch_lines(
        [
            "x: 1 iteration (1 restored), *",
            "  note: seed 43 of 002-* was restored, not trained",
            "  note: seed 44 of 002-* was restored, not trained",
        ]
    )
    assert (before, trained) == (gated.log(), gated.trained())


def test_another_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it had to be trained, though something was kept, is told with the reason."""
    project.run("--ftloop")
    lose_log(project)
    monkeypatch.setenv("FAKE_DEVICE", "gpu")
    result = project.run("--ftloop")
    result.stdout.fnmatch_lines(
        [
            "x: 3 iterations (3 trained, *",
            "  note: 001-* was not restored: environment changed (device cpu -> gpu)",
        ]
    )


def test_damaged(project: Project, kept: Path) -> None:
    """A record that is not sound is named, and trained again."""
    project.run("--ftloop", "--ftloop-iterations", "1")
    (record,) = kept.rglob("*.yaml")
    record.write_text("nothing")
    lose_log(project)
    result = project.run("--ftloop", "--ftloop-iterations", "1")
    result.stdout.fnmatch_lines(["  note: a kept record was ignored:*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert 2 == len(project.trained())


@pytest.mark.slow
def test_several_processes(project: Project) -> None:
    """Of several processes one restores, and the summary is that one's."""
    project.run("--ftloop")
    trained = project.trained()
    lose_log(project)
    done = project.run_alone("--ftloop", "-n", "2")
    assert "x: 3 iterations (3 restored), best 003-" in done.stdout
    assert trained == project.trained()
