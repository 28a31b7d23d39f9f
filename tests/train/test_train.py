"""A run is a plain SFTTrainer script's run, and the base model comes back clean."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PrinterCallback
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.errors import ConfigError, DataError, TrainingError
from pytest_ftloop.core.metrics import token_mean_loss
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.core.records import Settings
from pytest_ftloop.train.base import Base, load_base
from pytest_ftloop.train.early_end import Pace
from pytest_ftloop.train.lora import run_lora
from pytest_ftloop.train.recorder import evaluation_points
from tests.small_base import LORA, TRAINING, data_set, rows, settings

pytestmark = pytest.mark.usefixtures("quietly")


def plain_script_losses(
    folder: Path, rows_: list[dict[str, Any]] | Dataset, out: Path, **training: Any
) -> list[float]:
    """Per-step losses of the script a user would write."""
    trainer = SFTTrainer(
        model=str(folder),
        args=SFTConfig(
            output_dir=str(out),
            use_cpu=True,
            bf16=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **{**TRAINING, **training},
        ),
        train_dataset=Dataset.from_list(rows_) if isinstance(rows_, list) else rows_,
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


@pytest.fixture
def incomplete(tiny: Path, tmp_path: Path) -> Path:
    """The folder of a model without weights for its output layer: to load it draws them."""
    config = LlamaConfig(
        vocab_size=1024, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    weights = {name: w for name, w in model.state_dict().items() if "lm_head" not in name}
    model.save_pretrained(tmp_path / "model", state_dict=weights)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_base_whose_weights_are_drawn(incomplete: Path, task: Any, tmp_path: Path) -> None:
    """With each seed it has the weights and the losses that a plain script has with that seed."""
    base = load_base(str(incomplete), {}, None)
    for seed in (42, 7):
        changed = {"seed": seed, "max_steps": 3}
        plain = plain_script_losses(incomplete, rows(48, 1), tmp_path, **changed)
        assert plain == losses_of(run_lora(base, task(), settings(**changed), Silent()))


def losses_of(run: Any) -> list[float]:
    return [step.loss for step in run.training.steps]


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "warmup_steps": 0.1},
        pytest.param(
            {"packing": True, "max_length": 64, "packing_strategy": "wrapped"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"activation_checkpointing": True, "seed": 7}, marks=pytest.mark.slow),
        pytest.param({"shuffle_dataset": True, "max_steps": 9}, marks=pytest.mark.slow),
    ],
    ids=["plain", "accumulation", "packing", "checkpointing", "shuffled"],
)
def test_first_and_third_run_have_a_plain_scripts_losses(
    base: Base, tiny: Path, task: Any, tmp_path: Path, training: dict[str, Any]
) -> None:
    """Per-step losses equal a plain script's to the last bit, also in a loop's third iteration."""
    changed = [settings(**training), settings(**training, learning_rate=1e-3), settings(**training)]
    runs = [run_lora(base, task(), each, Silent()) for each in changed]
    expected = plain_script_losses(tiny, rows(48, 1), tmp_path, **training)
    assert len(expected) >= 4
    assert expected == losses_of(runs[0])
    assert expected == losses_of(runs[2])
    assert expected != losses_of(runs[1])


def test_evaluating_more_often_changes_no_loss(base: Base, task: Any) -> None:
    """Where we evaluate in between leaves training as it is."""
    often = run_lora(base, task(), settings(eval_strategy="steps", eval_steps=1), Silent())
    seldom = run_lora(base, task(), settings(eval_strategy="no"), Silent())
    assert losses_of(seldom) == losses_of(often)
    assert [point.step for point in often.training.evals] == list(range(1, 13))
    assert [point.step for point in seldom.training.evals] == [12]


def snapshot(model: torch.nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: p.detach().clone() for name, p in model.state_dict().items()},
        "modules": [(name, type(module).__name__) for name, module in model.named_modules()],
        "own": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "hooks": sum(len(module._forward_hooks) for module in model.modules()),
        "trainable": [p.requires_grad for p in model.parameters()],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict(),
        "training": model.training,
    }


@pytest.mark.parametrize(
    "lora",
    [
        {},
        pytest.param({"bias": "all"}, marks=pytest.mark.slow),
        {"modules_to_save": ["ln_f"]},
        {"init_lora_weights": "pissa"},
        pytest.param({"use_dora": True, "target_modules": ["c_attn"]}, marks=pytest.mark.slow),
    ],
    ids=["plain", "bias", "modules_to_save", "pissa", "dora"],
)
def test_base_comes_back_clean(base: Base, task: Any, lora: dict[str, Any]) -> None:
    """After a run the base model has its own modules, weights, hooks, flags and config again."""
    before = snapshot(base.model)
    changed = Settings(
        lora={**LORA, **lora}, training={**TRAINING, "activation_checkpointing": True}
    )
    run_lora(base, task(), changed, Silent())
    after = snapshot(base.model)
    weights, now = before.pop("weights"), after.pop("weights")
    assert before == after
    assert weights.keys() == now.keys()
    assert [name for name in weights if not torch.equal(weights[name], now[name])] == []


def test_base_comes_back_clean_after_an_interrupt(base: Base, task: Any) -> None:
    """Ctrl-C in the middle of a run leaves no adapter on the base model."""

    class Interrupting(Silent):
        def step(self, step: int, steps: int, loss: float) -> None:
            if step == 3:
                raise KeyboardInterrupt

    before = snapshot(base.model)
    with pytest.raises(KeyboardInterrupt):
        run_lora(base, task(), settings(), Interrupting())
    after = snapshot(base.model)
    assert before.pop("weights").keys() == after.pop("weights").keys()
    assert before == after


def test_best_point_is_kept(base: Base, task: Any) -> None:
    """The result is the evaluation point with the lowest eval loss, not the last one."""
    few = data_set(rows(8, 3), "train")
    run = run_lora(
        base,
        task(train=few, train_sample=few.examples),
        settings(num_train_epochs=30, learning_rate=2e-2, lr_scheduler_type="constant"),
        Silent(),
    )
    losses = {point.step: point.eval_loss for point in run.training.evals}
    assert run.training.best_step == min(losses, key=lambda step: losses[step])
    assert losses[run.training.best_step] == token_mean_loss(run.evaluation.examples)
    assert run.training.best_step != max(losses)  # it overfits: else this shows nothing
    assert run.evaluation.train_examples != run.evaluation.final_train_examples


def test_hopeless_run_is_ended(base: Base, task: Any) -> None:
    """A run far behind the best is ended at half time, its losses so far those of the whole run."""
    slow = settings(learning_rate=1e-6)
    whole = run_lora(base, task(), slow, Silent())
    best = tuple(replace(point, eval_loss=0.1) for point in whole.training.evals)
    pace = Pace(best, whole.training.planned_steps, needed=0.1)
    ended = run_lora(base, task(), slow, Silent(), pace=pace)
    half = whole.training.planned_steps // 2
    assert losses_of(whole)[:half] == losses_of(ended)
    assert f"; {half} steps were saved" in ended.training.ended_early
    assert (half, whole.training.planned_steps) == (
        ended.training.evals[-1].step,
        ended.training.planned_steps,
    )


def test_nan_ends_the_run_and_is_recorded(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN is never hidden: the run ends at once, with NaN figures and the reason."""
    real = SFTTrainer.compute_loss

    def poisoned(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = real(self, *args, **kwargs)
        return loss * math.nan if self.state.global_step >= 2 else loss

    monkeypatch.setattr(SFTTrainer, "compute_loss", poisoned)
    run = run_lora(base, task(), settings(), Silent())
    assert "nan" in run.training.ended_early
    assert [True, True, False] == [math.isfinite(loss) for loss in losses_of(run)]
    assert 12 == run.training.planned_steps
    assert 0 == run.training.best_step
    assert math.isnan(token_mean_loss(run.evaluation.examples))


class MemoryShortage:
    """Makes training steps raise OutOfMemoryError above a batch size, from a step on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, above: int, from_step: int) -> None:
        self.raised = 0
        real = SFTTrainer.training_step

        def short(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if trainer.state.global_step >= from_step and len(inputs["input_ids"]) > above:
                self.raised += 1
                raise torch.OutOfMemoryError("planted")
            return real(trainer, model, inputs, *args, **kwargs)

        monkeypatch.setattr(SFTTrainer, "training_step", short)


@pytest.mark.parametrize("from_step", [pytest.param(0, marks=pytest.mark.slow), 8])
def test_out_of_memory_goes_on_with_half_the_batch(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch, from_step: int
) -> None:
    """After an out-of-memory error the run goes on from its last point as if nothing had been."""
    no_dropout = Settings(lora={**LORA, "lora_dropout": 0.0}, training=TRAINING)
    whole = run_lora(base, task(), no_dropout, Silent())
    shortage = MemoryShortage(monkeypatch, above=4, from_step=from_step)
    survived = run_lora(base, task(), no_dropout, Silent())
    assert 1 == shortage.raised
    came_from = {0: 0, 8: 6}[from_step]
    assert (
        f"out of memory: batch 8 -> 4, accumulation 1 -> 2, from step {came_from}",
    ) == survived.training.recoveries
    # The same examples a step in other micro-batches: equal but for the order of summation.
    assert losses_of(whole) == pytest.approx(losses_of(survived), rel=1e-4)
    assert losses_of(whole)[:came_from] == losses_of(survived)[:came_from]
    points = [(point.step, round(point.eval_loss, 3)) for point in whole.training.evals]
    assert points == [(point.step, round(point.eval_loss, 3)) for point in survived.training.evals]


def test_out_of_memory_at_batch_one_says_what_to_do(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When even one example does not fit, the error says what to lower."""
    MemoryShortage(monkeypatch, above=0, from_step=0)
    with pytest.raises(TrainingError, match=r"batch of one example\n.*max_length"):
        run_lora(base, task(), settings(), Silent())


def test_adapter_is_saved_as_peft_folder(base: Base, task: Any, tmp_path: Path) -> None:
    """The best adapter is a normal PEFT folder."""
    run_lora(base, task(), settings(), Silent(), adapter=tmp_path / "adapter")
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names


def test_temporary_files_and_global_states_are_left_alone(
    base: Base, task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run writes nothing to the working folder."""
    monkeypatch.chdir(tmp_path)
    run_lora(base, task(), settings(), Silent())
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lora", "training", "words"),
    [
        ({"target_modules": ["q_proj"]}, {}, "target_modules ['q_proj'] match no module"),
        ({"rank": 8}, {}, "lora.rank is not an argument of LoraConfig"),
        ({"r": "eight"}, {}, "lora.r: wanted a whole number, found 'eight'"),
        ({"r": 0}, {}, "lora.r: wanted at least 1, found 0"),
        ({"lora_dropout": 3.0}, {}, "lora.lora_dropout: wanted 0 to 1, found 3.0"),
        ({"target_modules": ["lm_head"]}, {}, "lm_head"),
        ({}, {"learning_rte": 1}, "Did you mean 'learning_rate'?"),
        ({}, {"learning_rate": "fast"}, "training.learning_rate: wanted a number, found 'fast'"),
        ({}, {"lr_scheduler_type": "cosin"}, "Did you mean 'cosine'?"),
        ({}, {"auto_find_batch_size": True}, "continues from its last evaluation point"),
        ({}, {"push_to_hub": True}, "publish the adapter of the best one yourself"),
        ({}, {"deepspeed": "x.json"}, "loop.processes trains on several devices"),
        ({}, {"seed": -1}, "training.seed: wanted 0 or more, found -1"),
        ({}, {"num_train_epochs": 0}, "wanted more than 0, found 0"),
        ({}, {"per_device_train_batch_size": 0}, "wanted at least 1, found 0"),
    ],
)
def test_refused_settings_are_one_clear_error(
    base: Base, task: Any, lora: dict[str, Any], training: dict[str, Any], words: str
) -> None:
    """What peft or trl would refuse, or ignore, is a ConfigError that names the setting."""
    refused = Settings(lora={**LORA, **lora}, training={**TRAINING, **training})
    with pytest.raises(ConfigError) as caught:
        run_lora(base, task(), refused, Silent())
    assert words in str(caught.value)


def test_a_stated_output_folder_is_left_alone(base: Base, task: Any, tmp_path: Path) -> None:
    """Our checkpoints never go to, nor rotate, a folder of the user's."""
    kept = tmp_path / "checkpoint-1" / "model.safetensors"
    kept.parent.mkdir()
    kept.write_text("mine")
    stated = settings(output_dir=str(tmp_path), save_strategy="steps", save_steps=2)
    run_lora(base, task(), stated, Silent())
    assert [kept.parent] == list(tmp_path.iterdir())


def test_training_that_a_library_refuses(
    base: Base, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that is missing for a setting is one clear error, not a traceback."""

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("bitsandbytes is not installed")

    monkeypatch.setattr(SFTTrainer, "create_optimizer", missing)
    with pytest.raises(TrainingError, match="while training: bitsandbytes is not installed"):
        run_lora(base, task(), settings(), Silent())


def test_eval_examples_cut_off_by_max_length_are_an_error(base: Base, task: Any) -> None:
    """trl would drop such rows silently; a figure over the rest would be a lie."""
    long = [{**row, "prompt": "again " * 40 + row["prompt"]} for row in rows(3, 4)]
    eval_ = data_set([*rows(20, 2), *long], "eval")
    with pytest.raises(DataError, match="3 of 23 examples have no labelled token") as caught:
        run_lora(base, task(eval=eval_), settings(max_length=24), Silent())
    assert "'4-000'" in str(caught.value)


def test_train_examples_cut_off_by_max_length_are_counted(base: Base, task: Any) -> None:
    """Train rows that trl drops are counted, and left out of the sample."""
    long = [{**row, "prompt": "again " * 40 + row["prompt"]} for row in rows(3, 4)]
    train_ = data_set([*long, *rows(13, 1)], "train")
    cut = task(train=train_, train_sample=train_.examples)
    run = run_lora(base, cut, settings(max_length=24, max_steps=2), Silent())
    assert 3 == run.training.dropped_examples
    assert 13 == len(run.evaluation.train_examples)


def test_train_set_wholly_cut_off_is_an_error(base: Base, task: Any) -> None:
    """With no label left to train on, the error says what to raise."""
    with pytest.raises(DataError, match="leaves no labelled token in any train example"):
        run_lora(base, task(), settings(max_length=4), Silent())


def test_evaluation_points() -> None:
    """Without an eval_strategy: one an epoch, at least four, the last step always."""
    points = evaluation_points
    assert {3, 6, 9, 12} == points({}, 12, 6)
    assert {5, 10, 15, 20, 25} == points({}, 25, 5)
    assert {1, 2} == points({}, 2, 2)
    assert {12} == points({"eval_strategy": "no"}, 12, 6)
    assert {5, 10, 12} == points({"eval_strategy": "epoch"}, 12, 5)
    assert {5, 10, 12} == points({"eval_strategy": "steps", "eval_steps": 5}, 12, 6)
    assert {3, 6, 9, 12} == points({"eval_strategy": "steps", "eval_steps": 0.25}, 12, 6)


def test_random_states_are_as_before_a_measurement(base: Base) -> None:
    """Measuring leaves Python's, numpy's and torch's random states, and the mode, as they were."""
    from pytest_ftloop.evaluate.measuring import measuring

    model = copy.deepcopy(base.model).train()
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    with measuring(model):
        assert not model.training
        random.random(), np.random.rand(), torch.rand(1)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert model.training


def test_same_run_twice_gives_equal_records(base: Base, task: Any) -> None:
    """Two runs with the same settings give the same training and evaluation."""
    first = run_lora(base, task(), settings(), Silent())
    second = run_lora(base, task(), settings(), Silent())
    assert (first.training, first.evaluation) == (second.training, second.evaluation)


@pytest.mark.slow
def test_scoring_by_choice_and_loss(base: Base, task: Any) -> None:
    """The scorers that read probabilities agree with generation on an easy task."""
    steady = settings(num_train_epochs=6)
    by_exact = run_lora(base, task(), steady, Silent()).evaluation.examples
    choice = task(Scoring("choice"), candidates=("money", "delivery"))
    by_choice = run_lora(base, choice, steady, Silent()).evaluation.examples
    by_loss = run_lora(base, task(Scoring("loss", threshold=0.3)), steady, Silent()).evaluation
    assert [row.passed for row in by_exact] == [row.passed for row in by_choice]
    assert {"money", "delivery"} >= {row.output for row in by_choice}
    assert [row.mean_loss <= 0.3 for row in by_loss.examples] == [
        r.passed for r in by_loss.examples
    ]
    assert sum(bool(row.passed) for row in by_exact) > 10
