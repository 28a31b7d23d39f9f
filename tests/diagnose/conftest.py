"""Fixtures that several files of this room use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.diagnose.any_trainer.found import STATE
from tests.diagnose.trainer_state_cases import Put


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a state of these entries, 100 steps in 2 epochs, below `tmp_path`; its path."""

    def write(*history: Any, folder: str = "", **state: Any) -> Path:
        full = {"global_step": 100, "max_steps": 100, "log_history": list(history), **state}
        path = tmp_path / folder / STATE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(full))
        return path

    return write
