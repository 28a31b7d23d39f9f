"""Fixtures that several files of this room use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_ftloop.core.git import Repository
from tests.gitfakes import GitRepo, isolate


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch)
    # A temporary folder below a checkout is in no repository all the same.
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.resolve()))


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """One commit on main, with one file."""
    repo = GitRepo.init(tmp_path / "project")
    repo.commit({"a.txt": "one"})
    return repo


@pytest.fixture
def repository(repo: GitRepo) -> Repository:
    return Repository.containing(repo.root)
