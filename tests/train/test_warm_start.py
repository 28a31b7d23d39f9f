"""`lora.init_from`: an adapter goes on being trained, as a plain script would train it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.cache import adapter_folder
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.small_base import rows

if TYPE_CHECKING:
    from pytest_ftloop.core.records import Iteration
    from pytest_ftloop.loop.result import LoopResult

pytestmark = pytest.mark.usefixtures("quietly", "tiny")

LOOP = """\
model: tiny
data: {{train: train.jsonl, eval: eval.jsonl}}
lora: {{r: 4, lora_alpha: 8, target_modules: {modules}, lora_dropout: 0.1{init}}}
training: {{learning_rate: {rate}, max_steps: 4, per_device_train_batch_size: 8,
  activation_checkpointing: false}}
scoring: {{scorer: loss, threshold: 1.0}}
loop: {{iterations: 1}}
"""


def write(folder: Path, init: str = "", rate: str = "5.0e-3", modules: str = "all-linear") -> Path:
    for role, seed, count in (("train", 1, 32), ("eval", 2, 8)):
        Dataset.from_list(rows(count, seed)).to_json(folder / f"{role}.jsonl")
    file = folder / "s.ftloop.yaml"
    init = f", init_from: {init}" if init else ""
    file.write_text(LOOP.format(init=init, rate=rate, modules=modules))
    return file


def run(file: Path, **options: Any) -> LoopResult:
    return Loop(read_loop_file(file), Options(**options)).run()


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iteration:
    """A first iteration of a loop in `tmp_path`, in a cache of its own but for the base."""
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tiny").symlink_to(tiny.parent)
    return run(write(tmp_path)).best


def plain_losses(base: Path, adapter: Path, folder: Path) -> list[float]:
    """Per-step losses of the script that goes on with a saved adapter."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), str(adapter), is_trainable=True
    )
    args = SFTConfig(
        output_dir=str(folder / "out"), use_cpu=True, bf16=False, logging_steps=1,
        save_strategy="no", report_to="none", disable_tqdm=True, learning_rate=1e-3, max_steps=4,
        per_device_train_batch_size=8, activation_checkpointing=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=args, train_dataset=Dataset.from_json(str(folder / "train.jsonl")),
        processing_class=AutoTokenizer.from_pretrained(base),
    )  # fmt: skip
    trainer.train()
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def test_best_goes_on_being_trained(parent: Iteration, tmp_path: Path, tiny: Path) -> None:
    """It starts at its parent's figures, has a plain script's losses, and stays up to date."""
    file = write(tmp_path, init="best", rate="1.0e-3")
    found = run(file)
    (child,) = found.chain
    assert found.trained == (child.id,)
    assert child.facts["start_eval_loss"] == pytest.approx(parent.metrics["eval_loss"], abs=1e-6)
    assert child.facts["init_from"] == {
        "stated": "best", "of": parent.name, "adapter": parent.adapter,
    }  # fmt: skip
    assert child.settings.lora["init_from"] == parent.adapter
    assert child.weights != parent.weights
    losses = plain_losses(tiny, adapter_folder(parent.weights), tmp_path)
    assert losses == pytest.approx([step.loss for step in child.steps], rel=1e-6)
    # The child is better now. What `best` meant when it was trained still counts.
    assert child.metrics["eval_loss"] < parent.metrics["eval_loss"]
    again = run(file)
    assert (again.trained, again.best.id) == ((), child.id)
    # Accepting writes the hash into the loop file, which names the same adapter.
    write(tmp_path, init=parent.adapter, rate="1.0e-3")
    assert run(file, replay=True).best.id == child.id


@pytest.mark.parametrize(
    ("init", "modules", "said"),
    [
        ("9", "all-linear", "wanted best, baseline, an iteration of the log"),
        ("1, r: 2", "all-linear", "lora.r"),
        ("1", "[c_proj]", "is of other modules: it has transformer.h.0.attn.c_attn"),
    ],
    ids=["unknown", "rank", "modules"],
)
def test_an_adapter_that_does_not_fit(
    parent: Iteration, tmp_path: Path, init: str, modules: str, said: str
) -> None:
    """One line says what differs and where; nothing is written to the log."""
    file = write(tmp_path, init=init, modules=modules)
    if "r: 2" in init:
        file.write_text(file.read_text().replace("r: 4, ", ""))
    before = {p.name for p in (tmp_path / "improvement_log/s").iterdir()}
    with pytest.raises(ConfigError) as caught:
        run(file)
    assert said in str(caught.value)
    assert "s.ftloop.yaml:3" in str(caught.value)
    assert before == {p.name for p in (tmp_path / "improvement_log/s").iterdir()}
