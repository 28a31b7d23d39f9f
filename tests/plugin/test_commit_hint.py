"""The last hint of a run, the command that commits the log, works as printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.cli import main
from tests.gitfakes import GitRepo, isolate
from tests.loops import IN_DOUBT, Loops

if TYPE_CHECKING:
    from pathlib import Path

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
    assert "mend the rules, which this shows:" == head
    assert repo.git(*command[1:]).startswith(".gitignore:2:improvement_log/")


def test_ftloop_run(loops: Loops, capsys: pytest.CaptureFixture[str]) -> None:
    """`ftloop run` hints the same: of a table that git ignores, not of the record beside it."""
    loops.write()
    loops.put(".gitignore", "*.csv\n")
    main(["run"])
    lines = capsys.readouterr().out.splitlines()
    head, command = hinted(lines)
    assert "mend the rules, which this shows:" == head
    assert "  tables of examples: a clone finds the log damaged" in lines
    assert not any(line.startswith("  records: ") for line in lines)
    assert loops.repo.git(*command[1:]).startswith(".gitignore:1:*.csv")


RULES = {
    "seeds/": ["seeds"],
    "verdicts": ["verdicts"],
    "x/": ["records", "tables of examples", "seeds", "verdicts", "holdout"],
    "*.yaml": ["records", "seeds", "verdicts", "holdout"],
    "*.csv": ["tables of examples", "seeds", "holdout"],
}


@pytest.mark.parametrize("place", [".gitignore", "improvement_log/.gitignore", "global", "exclude"])
@pytest.mark.parametrize("rule", RULES)
def test_ignored_kinds(
    loops: Loops, capsys: pytest.CaptureFixture[str], tmp_path: Path, rule: str, place: str
) -> None:
    """Each kind that a rule of any place ignores is named, also before there is a file of it."""
    loops.write(rate=IN_DOUBT)
    if place == "global":
        (tmp_path / "rules").write_text(rule)
        loops.repo.git("config", "core.excludesFile", str(tmp_path / "rules"))
    else:
        loops.put(".git/info/exclude" if place == "exclude" else place, rule)
    main(["run", "-q"])
    said = capsys.readouterr().out
    found = [line.split(":")[0].strip() for line in said.splitlines() if line.startswith("  ")]
    assert RULES[rule] == [kind for kind in RULES["x/"] if kind in found]
