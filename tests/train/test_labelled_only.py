"""`loop.labelled_only`: training projects labelled positions alone, on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.labelled import with_labelled_only
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.train.lora import run_lora
from tests.small_base import settings

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ftloop.core.records import Run, Settings
    from pytest_ftloop.train.base import Base


@pytest.mark.usefixtures("quietly")
def test_training_is_the_same_with_it(base: Base, task: Any) -> None:
    """Losses of steps and of train and eval examples agree, and it takes fewer operations."""

    def ran(how: Settings) -> tuple[Run, int]:
        with FlopCounterMode(display=False) as counted:
            run = run_lora(base, task(), how, Silent(), base_eval_loss=5.0)
        return run, counted.get_total_flops()

    stated = settings(max_steps=6)
    every, operations = ran(stated)
    alone, fewer = ran(with_labelled_only(stated, on=True))
    assert fewer < operations
    for one, other in (
        ([s.loss for s in every.training.steps], [s.loss for s in alone.training.steps]),
        (
            [e.losses[0] for e in every.training.trained],
            [e.losses[0] for e in alone.training.trained],
        ),
        ([e.loss for e in every.evaluation.examples], [e.loss for e in alone.evaluation.examples]),
    ):
        assert len(one) >= 6
        assert one == pytest.approx(other, abs=1e-3)


def test_it_is_a_setting(tmp_path: Path) -> None:
    """It is part of what determines the weights; off, settings are as before."""

    def read(loop: str) -> Settings:
        file = tmp_path / "x.ftloop.yaml"
        file.write_text(f"model: tiny\ndata: {{train: a.jsonl, eval: b.jsonl}}\nloop: {loop}\n")
        return read_loop_file(file).settings

    plain = read("{patience: 2}")
    assert plain == read("{labelled_only: false}")
    assert with_labelled_only(plain, on=True) == read("{labelled_only: true}")
