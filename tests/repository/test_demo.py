"""The folder in which `make demo` runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_ftloop.core.git import ignored_by_git
from tests.gitfakes import GitRepo, isolate

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as make makes it, in a repository like this one."""
    isolate(monkeypatch)
    repo = GitRepo.init(tmp_path / "project")
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, repo.root)
    shutil.copytree(QUICKSTART, repo.root / "examples" / "quickstart")
    make(repo.root)
    return repo.root / ".demo"


def make(root: Path) -> None:
    subprocess.run(["make", "--silent", ".demo/sentiment.ftloop.yaml"], cwd=root, check=True)


def test_the_log_can_be_committed(demo: Path) -> None:
    """It is the quickstart without its log, and what is logged there is not ignored by git."""
    assert {"data", ".git", "pytest.ini", "sentiment.ftloop.yaml"} == {
        path.name for path in demo.iterdir()
    }
    shutil.copytree(QUICKSTART / "improvement_log", demo / "improvement_log")
    assert () == ignored_by_git(sorted((demo / "improvement_log" / "sentiment").iterdir()))
    GitRepo(demo).git("add", "improvement_log/sentiment")
    assert GitRepo(demo).git("ls-files")


def test_what_was_changed_is_kept(demo: Path) -> None:
    """A second `make demo` goes on with the same folder."""
    loop = demo / "sentiment.ftloop.yaml"
    loop.write_text("mine")
    make(demo.parent)
    assert "mine" == loop.read_text()
