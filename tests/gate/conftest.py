"""Fixtures that several files of this room use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gitfakes import isolate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of the machine, no CI; the temporary folder may itself lie in a repository."""
    isolate(monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
