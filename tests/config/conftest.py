"""Fixtures that several files of this room use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.loop_config import read_loop_file

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def read(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read a text as the loop file `s.ftloop.yaml` of the working folder."""
    monkeypatch.chdir(tmp_path)
    return lambda text: read_loop_file(write("s.ftloop.yaml", text))
