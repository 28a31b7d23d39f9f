"""A real adapter that is measured again gives the figures that measuring all of it gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.loop.local_backend import LocalBackend
from pytest_ftloop.loop.loop import Loop
from tests.small_base import LORA, TRAINING, rows


def loop_of(folder: Path, eval_: Any, **changes: Any) -> Loop:
    config = from_python(
        **{
            "folder": folder,
            "source": "test_again.py",
            "name": "s",
            "train": rows(16, 1),
            "eval": eval_,
            "lora": LORA,
            "training": {**TRAINING, "num_train_epochs": 1},
            "loop": {"iterations": 1},
            **changes,
        }
    )
    return Loop(config)


def test_only_new_rows_are_measured_and_nothing_trained(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row more, then another scorer: the figures are those of the whole set, measured anew."""
    eval_ = rows(9, 2)
    (first,) = loop_of(tmp_path, eval_[:8]).run().chain
    assert first.adapter
    monkeypatch.delattr(LocalBackend, "train")
    loop = loop_of(tmp_path, eval_)
    again = loop.run().best
    assert (first.adapter, 1) == (again.adapter, again.facts["measured_again"]["rows"])
    cycle = loop._cycle()
    anew = cycle.backend.measure(again.settings, adapter_folder(again.weights), cycle.inputs.eval)
    found = {row.id: row for row in again.examples}
    for row in anew:
        same = found[row.id]
        assert (row.tokens, row.correct, row.passed) == (same.tokens, same.correct, same.passed)
        assert row.output == same.output
        assert pytest.approx(row.loss, abs=1e-4) == same.loss
    assert pytest.approx(base_loss(loop), abs=1e-4) == again.base["eval_loss"]
    monkeypatch.delattr(LocalBackend, "measure_missing")
    scored = loop_of(tmp_path, eval_, scoring="contains").run().best
    assert again.metrics["eval_loss"] == scored.metrics["eval_loss"]
    assert [r.output for r in again.examples] == [r.output for r in scored.examples]


def base_loss(loop: Loop) -> float:
    """The untrained base's loss on the loop's eval set, measured by itself."""
    measured = loop._cycle().backend.measure_base(loop.config.settings).results.examples
    return sum(row.loss for row in measured) / sum(row.tokens for row in measured)


def test_an_adapter_that_can_not_be_saved(
    tmp_path: Path, tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the adapters' place: the record is written all the same, with a note and why."""
    own = tmp_path / "cache"
    for part in ("tiny", "digests"):
        if (cache / part).is_dir():
            shutil.copytree(cache / part, own / part)
    monkeypatch.setenv("FTLOOP_CACHE", str(own))
    (own / "adapters").write_text("in the way")
    result = loop_of(tmp_path, rows(4, 2)).run()
    assert any("could not be saved" in note for note in result.notes)
    assert result.best.facts["adapter_not_saved"]
    assert ("", None) == (result.best.adapter, result.adapter)
    assert all(row.passed is not None for row in result.best.examples)
