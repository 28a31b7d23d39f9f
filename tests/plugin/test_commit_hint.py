"""The last hint of a run, the command that commits the log, works as printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from tests.gitfakes import GitRepo, isolate

if TYPE_CHECKING:
    from tests.loops import Loops
    from tests.plugin.conftest import Project


def hinted(lines: list[str]) -> tuple[str, list[str]]:
    """The line above the hinted command, and the command."""
    at = next(n for n, line in enumerate(lines) if line.startswith("  git "))
    return lines[at - 1], lines[at].split()


@pytest.fixture
def repo(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitRepo:
    isolate(monkeypatch)
    return GitRepo.init(project.path)


def test_git_add(project: Project, repo: GitRepo) -> None:
    """What `git add` is given are the log's six files."""
    head, command = hinted(project.run("--ftloop").outlines)
    assert "to commit (6 files):" == head
    repo.git(*command[1:])
    assert 6 == len(repo.git("ls-files", "improvement_log").splitlines())


def test_git_ignores_the_log(project: Project, repo: GitRepo) -> None:
    """Where git would refuse the log, the run says so, and its command names the rule."""
    project.write(".gitignore", "# not these\nimprovement_log/\n")
    head, command = hinted(project.run("--ftloop").outlines)
    assert "git ignores 6 of 6 files to commit; this shows the rule:" == head
    assert repo.git(*command[1:]).startswith(".gitignore:2:improvement_log/")


def test_ftloop_run(loops: Loops, capsys: pytest.CaptureFixture[str]) -> None:
    """`ftloop run` hints the same: of a table that git ignores, not of the record beside it."""
    loops.write()
    loops.put(".gitignore", "*.csv\n")
    main(["run"])
    head, command = hinted(capsys.readouterr().out.splitlines())
    assert "git ignores 1 of 2 files to commit; this shows the rule:" == head
    assert loops.repo.git(*command[1:]).startswith(".gitignore:1:*.csv")
