"""What a run does not do because nobody needs it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import datasets
import pytest
import transformers

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.evaluate.evaluator import Evaluator
from pytest_ftloop.train.garbage import spared
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.tokenised import Tokenised
from tests.small_base import data_set, rows, settings

if TYPE_CHECKING:
    from pytest_ftloop.train.base import Base

pytestmark = pytest.mark.usefixtures("quietly")


@pytest.mark.parametrize(("stated", "batches"), [({}, [1, 20]), ({"eval": 8}, [1, 8, 8, 4])])
def test_a_run(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch, stated: dict[str, int], batches: Any
) -> None:
    """Operations are not counted, old objects not searched, outputs generated in few batches."""
    generated: list[int] = []
    frozen: list[int] = []

    def counted(*_: Any) -> int:
        raise AssertionError("operations are counted, and no tracker shows them")

    outputs = Evaluator._batch_outputs

    def watched(self: Evaluator, batch: Any, *how: Any) -> Any:
        generated.append(len(batch))
        frozen.append(gc.get_freeze_count())
        return outputs(self, batch, *how)

    monkeypatch.setattr(transformers.Trainer, "floating_point_ops", counted)
    monkeypatch.setattr(Evaluator, "_batch_outputs", watched)
    sizes = {f"per_device_{role}_batch_size": size for role, size in stated.items()}
    run_lora(base, task(), settings(max_steps=1, **sizes), Silent(), base_eval_loss=5.0)
    assert batches == generated
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(("stated", "found"), [(None, "1"), ("0", "0")])
def test_no_trainer_reports_its_start(stated: str | None, found: str) -> None:
    """Telemetry is off before the hub's library is imported, which reads that then."""
    code = (
        "import os, sys, pytest_ftloop.train; assert 'huggingface_hub' not in sys.modules; "
        "print(os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_DISABLE_TELEMETRY"}
    env |= {} if stated is None else {"HF_HUB_DISABLE_TELEMETRY": stated}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert found == done.stdout.strip()


def test_what_a_user_has_frozen_stays() -> None:
    """Objects that the user's own code spares are spared afterwards too."""
    mine: list[object] = []
    gc.freeze()
    try:
        with spared():
            assert not is_collected(mine)
        assert not is_collected(mine)
    finally:
        gc.unfreeze()
    assert is_collected(mine)


def is_collected(one: object) -> bool:
    """Whether the collector looks at an object; at a frozen one it does not."""
    return any(other is one for other in gc.get_objects())


def _interrupted_while_frozen() -> None:
    assert gc.get_freeze_count() > 0
    raise KeyboardInterrupt


def test_objects_are_given_back_after_an_error() -> None:
    """Also after Ctrl-C nothing stays frozen."""
    with pytest.raises(KeyboardInterrupt), spared():
        _interrupted_while_frozen()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"learning_rate": 1e-4, "seed": 7, "num_train_epochs": 3}, False),
        ({"max_length": 40}, True),
    ],
)
def test_rows_are_tokenised_once(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], again: bool
) -> None:
    """A second run maps no rows unless its settings change them, and its losses are the same."""
    mapped: list[int] = []
    map_ = datasets.Dataset.map

    def watched(self: Any, *how: Any, **named: Any) -> Any:
        mapped.append(len(self))
        return map_(self, *how, **named)

    monkeypatch.setattr(datasets.Dataset, "map", watched)
    loss = Scoring("loss", threshold=1.0)
    fresh = replace(base, tokenised=Tokenised())
    run_lora(fresh, task(loss), settings(max_steps=1), Silent(), base_eval_loss=5.0)
    assert mapped
    mapped.clear()
    other = settings(**{"max_steps": 2, **changed})
    second = run_lora(fresh, task(loss), other, Silent(), base_eval_loss=5.0)
    assert bool(mapped) is again
    alone = replace(base, tokenised=Tokenised())
    plain = run_lora(alone, task(loss), other, Silent(), base_eval_loss=5.0)
    assert plain.evaluation == second.evaluation
    assert [s.loss for s in plain.training.steps] == [s.loss for s in second.training.steps]


def test_other_rows_are_tokenised(base: Base, task: Any) -> None:
    """Rows are known by their content: another eval set in the same place has its own losses."""
    fresh = replace(base, tokenised=Tokenised())
    loss = Scoring("loss", threshold=1.0)
    still = settings(max_steps=1, learning_rate=0.0)
    one, other = (
        run_lora(fresh, task(loss, eval=data_set(rows(20, seed), "eval")), still, Silent())
        for seed in (2, 3)
    )
    alone = replace(base, tokenised=Tokenised())
    plain = run_lora(alone, task(loss, eval=data_set(rows(20, 3), "eval")), still, Silent())
    assert plain.evaluation == other.evaluation
    assert one.evaluation.examples != other.evaluation.examples
