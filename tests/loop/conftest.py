"""Fixtures of the loop's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.data import examples as data_module
from tests.gitfakes import GitRepo, isolate
from tests.loop.lab import HOLDOUT, Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Every loading of the holdout is noted; nothing else may load it."""
    isolate(monkeypatch)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    found = Lab(GitRepo.init(tmp_path / "project").root)
    load = data_module.load

    def noted(source: Any, role: str, *arguments: Any, **more: Any) -> Any:
        if role == "holdout":
            found.happened.append("load")
        else:
            assert source is not HOLDOUT
        return load(source, role, *arguments, **more)

    monkeypatch.setattr(data_module, "load", noted)
    return found
