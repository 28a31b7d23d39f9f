"""What was trained for real is restored where it would be trained the same, and only there."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.config.loop_config import LoopConfig
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.loop import Loop
from tests.small_base import LORA, TRAINING, rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def config(folder: Path, **training: Any) -> LoopConfig:
    return from_python(
        folder=folder,
        source="test_restored.py",
        name="s",
        train=rows(16, 1),
        eval=rows(8, 2),
        lora=LORA,
        training={**TRAINING, "num_train_epochs": 1, **training},
        loop={"iterations": 1},
    )


def environment(loop: LoopConfig) -> Mapping[str, str]:
    return LocalBackend(loop, Inputs.of(loop, None), Silent()).environment(loop.settings)


def test_restored(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was lost is the same to the byte, with another environment it is trained."""
    monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "kept"))
    log = tmp_path / "improvement_log"
    loop = config(tmp_path)
    (trained,) = Loop(loop).run().chain
    assert trained.environment == environment(loop)
    before = {p.name: p.read_bytes() for p in (log / "s").iterdir() if p.is_file()}
    shutil.rmtree(log)
    with monkeypatch.context() as patch:
        patch.delattr(LocalBackend, "train")
        result = Loop(loop).run()
    assert ((), (trained.id,)) == (result.trained, result.restored)
    assert before == {p.name: p.read_bytes() for p in (log / "s").iterdir() if p.is_file()}
    assert result.adapter is not None
    shutil.rmtree(log)
    monkeypatch.setattr("torch.__version__", "1.0.0")
    again = Loop(loop).run()
    assert ((trained.id,), ()) == (again.trained, again.restored)
    assert "environment changed (torch " in again.notes[0]


def test_precision_that_is_stated(tmp_path: Path) -> None:
    """The environment is that of the settings: the precision may be stated."""
    loop = config(tmp_path, use_cpu=True, bf16=True)
    assert "bf16" == environment(loop)["precision"]


def test_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the light install nothing is of this environment: it could not be trained here."""
    monkeypatch.setitem(sys.modules, "pytest_ftloop.train.environment", None)
    monkeypatch.delattr("pytest_ftloop.train.environment", raising=False)
    loop = config(tmp_path)
    assert {} == environment(loop)
