"""Every train example's losses are recorded as training computes them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from trl import SFTTrainer

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Settings
from pytest_ftloop.train.base import Base
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.train_losses import TrainLosses
from tests.small_base import LORA, TRAINING, data_set, rows, settings
from tests.train.test_train import MemoryShortage

pytestmark = pytest.mark.usefixtures("quietly")

NO_DROPOUT = {**LORA, "lora_dropout": 0.0}


def courses(base: Base, task: Any, **training: Any) -> dict[str, tuple[float, ...]]:
    run = run_lora(
        base, task, Settings(lora=NO_DROPOUT, training={**TRAINING, **training}), Silent()
    )
    return {example.id: example.losses for example in run.training.trained}


def test_one_loss_an_epoch_of_every_example(base: Base, task: Any) -> None:
    """Each example has a loss for each epoch, in the order of the train set."""
    found = courses(base, task())
    assert [row["id"] for row in rows(48, 1)] == list(found)
    assert {2} == {len(losses) for losses in found.values()}
    assert all(math.isfinite(loss) for losses in found.values() for loss in losses)


def test_losses_are_those_that_were_trained_on(base: Base, task: Any) -> None:
    """A whole epoch in one step: the token mean of the examples' losses is the step's loss."""
    whole = Settings(
        lora=NO_DROPOUT,
        training={**TRAINING, "per_device_train_batch_size": 48, "num_train_epochs": 3},
    )
    rows_ = data_set(rows(48, 1), "train")
    run = run_lora(base, task(train_sample=rows_.examples), whole, Silent())
    tokens = {row.id: row.tokens for row in run.evaluation.train_examples}
    for step in run.training.steps:
        total = sum(e.losses[step.step - 1] * tokens[e.id] for e in run.training.trained)
        assert step.loss == pytest.approx(total / sum(tokens.values()), rel=1e-5)


def test_steps_and_right_tokens_of_each_pass(base: Base, task: Any) -> None:
    """A pass has the step that it came before, and how many labelled tokens were top-1 in it."""
    once = Settings(
        lora=NO_DROPOUT,
        training={**TRAINING, "per_device_train_batch_size": 48, "num_train_epochs": 2},
    )
    rows_ = data_set(rows(48, 1), "train")
    run = run_lora(base, task(train_sample=rows_.examples), once, Silent())
    measured = {row.id: row for row in run.evaluation.train_examples}
    assert not run.training.noisy_forwards
    for example in run.training.trained:
        assert (0, 1) == example.steps
        assert measured[example.id].tokens == example.tokens
        assert all(0 <= count <= example.tokens for count in example.correct)
    tokens = sum(example.tokens for example in run.training.trained)
    assert 0 < sum(example.correct[1] for example in run.training.trained) < tokens


@pytest.mark.parametrize(
    ("lora", "training"),
    [({"lora_dropout": 0.1}, {}), ({}, {"neftune_noise_alpha": 5})],
    ids=["dropout", "NEFTune"],
)
def test_noise_of_the_training_forward_is_known(
    base: Base, task: Any, lora: dict[str, Any], training: dict[str, Any]
) -> None:
    """Losses that dropout or NEFTune raised are marked so."""
    noisy = Settings(lora={**NO_DROPOUT, **lora}, training={**TRAINING, "max_steps": 1, **training})
    assert run_lora(base, task(), noisy, Silent()).training.noisy_forwards


@pytest.mark.parametrize(
    "training",
    [
        {"activation_checkpointing": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        pytest.param({"shuffle_dataset": True}, marks=pytest.mark.slow),
        pytest.param({"train_sampling_strategy": "group_by_length"}, marks=pytest.mark.slow),
    ],
    ids=["checkpointing", "accumulation", "shuffled", "by length"],
)
def test_every_forward_counts_once(base: Base, task: Any, training: dict[str, Any]) -> None:
    """A forward that is computed twice, or a step of several, gives each example's loss once."""
    found = courses(base, task(), **training)
    assert [row["id"] for row in rows(48, 1)] == list(found)
    assert {2} == {len(losses) for losses in found.values()}


def test_evaluations_in_between_do_not_count(base: Base, task: Any) -> None:
    """What is measured on the eval set or the train sample is no training."""
    often = courses(base, task(), eval_strategy="steps", eval_steps=1)
    assert courses(base, task(), eval_strategy="no") == often


def test_packed_rows_have_no_losses(base: Base, task: Any) -> None:
    """Where rows are not examples nothing is recorded."""
    assert courses(base, task(), packing=True, max_length=64, packing_strategy="wrapped") == {}


def test_examples_of_equal_tokens_share_their_losses(base: Base, task: Any) -> None:
    """Two copies of a row are told apart by nothing: both have both losses of each epoch."""
    copies = [*rows(16, 1), {**rows(16, 1)[0], "id": "copy"}]
    found = courses(base, task(train=data_set(copies, "train")))
    assert found["copy"] == found[copies[0]["id"]]
    assert 4 == len(found["copy"])


def test_only_trained_examples_are_named(base: Base, task: Any) -> None:
    """A run of one step names the examples of that step."""
    assert 8 == len(courses(base, task(), max_steps=1))


@pytest.mark.parametrize("from_step", [pytest.param(0, marks=pytest.mark.slow), 8])
def test_repeated_steps_count_once(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch, from_step: int
) -> None:
    """Steps made again after an out-of-memory error are recorded once."""
    whole = courses(base, task())
    shortage = MemoryShortage(monkeypatch, above=4, from_step=from_step)
    survived = courses(base, task())
    assert 1 == shortage.raised
    assert list(whole) == list(survived)
    for id_, losses in whole.items():
        assert losses == pytest.approx(survived[id_], rel=1e-3)


def test_recording_changes_no_loss(base: Base, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training with and without recording gives the same losses to the last bit."""
    with_it = run_lora(base, task(), settings(), Silent())
    monkeypatch.setattr(TrainLosses, "watch", lambda self, trainer: None)
    without = run_lora(base, task(), settings(), Silent())
    assert with_it.training.trained
    assert not without.training.trained
    assert [s.loss for s in with_it.training.steps] == [s.loss for s in without.training.steps]
    assert with_it.evaluation == without.evaluation


def test_kept_batches_are_few(base: Base, task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits on the device is copied before it grows; the losses are the same."""
    at_the_end = courses(base, task())
    monkeypatch.setattr("pytest_ftloop.train.train_losses.KEPT_ON_DEVICE", 1)
    waiting: list[int] = []
    real = SFTTrainer.training_step

    def watched(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        loss = real(trainer, *args, **kwargs)
        (hook,) = trainer.model._forward_hooks.values()
        waiting.append(len(hook.__self__._waiting))
        return loss

    monkeypatch.setattr(SFTTrainer, "training_step", watched)
    assert at_the_end == courses(base, task())
    assert {0} == set(waiting)
