"""A 4-bit base on the CPU: a plain script's losses, its environment, and what it is merged into."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from pytest_ftloop.cli import main
from pytest_ftloop.config.from_python import from_python
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.train.quantised import quantised_by, versions
from tests.small_base import LORA, rows
from tests.train.test_export import eval_loss
from tests.train.test_train import plain_script_losses

NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


def test_the_package_is_known_without_the_model(tmp_path: Path) -> None:
    """From the settings, or from the configuration in the model's folder; only what is used."""

    def loop(model: str = "tiny", **training: Any) -> Any:
        return from_python(
            folder=tmp_path, source="test", name="x", model=model, train=rows(2, 1),
            eval=rows(2, 2), training=training,
        )  # fmt: skip

    assert "" == quantised_by(loop(learning_rate=1e-3))
    assert "bitsandbytes" == quantised_by(loop(model_init_kwargs={"quantization_config": NF4}))
    asked = BitsAndBytesConfig(load_in_4bit=True)
    assert "bitsandbytes" == quantised_by(loop(model_init_kwargs={"quantization_config": asked}))
    (tmp_path / "stored").mkdir()
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "stored/config.json").write_text(json.dumps(config))
    assert "gptqmodel" == quantised_by(loop("stored"))
    assert {} == versions("", "adamw_torch")


@pytest.fixture
def trained(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_ci: None) -> Any:
    """A loop on a 4-bit base, run and exported; its iteration."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.chdir(tmp_path)
    for role, seed in (("train", 1), ("eval", 2)):
        Path(f"{role}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows(24, seed)))
    Path("base").symlink_to(tiny)
    Path("topics.ftloop.yaml").write_text(
        "model: base\ndata: {train: train.jsonl, eval: eval.jsonl}\n"
        f"lora: {json.dumps(LORA)}\n"
        "training: {learning_rate: 5.0e-3, num_train_epochs: 2, activation_checkpointing: false, "
        f"model_init_kwargs: {{quantization_config: {json.dumps(NF4)}}}}}\n"
        "loop: {iterations: 1}\n"
    )
    assert 0 == main(["run", "-q"])
    (iteration,) = ImprovementLog(Path("improvement_log/topics")).read()
    return iteration


@pytest.mark.slow
def test_losses_and_environment(trained: Any, tiny: Path, tmp_path: Path, quietly: None) -> None:
    """Evaluating in between repacks no weight: all losses are a plain script's."""
    expected = plain_script_losses(
        tiny,
        rows(24, 1),
        tmp_path / "out",
        model_init_kwargs={"quantization_config": dict(NF4)},
    )
    logged = [step.loss for step in trained.steps]
    assert [round(loss, 6) for loss in expected] == [round(loss, 6) for loss in logged]
    assert len(trained.evals) >= 4
    assert version("bitsandbytes") == trained.environment["bitsandbytes"]


@pytest.mark.slow
def test_merged_into_what_it_was_trained_on(
    trained: Any, tmp_path: Path, quietly: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The merged model has the logged loss, in full precision; a note says how to load a base."""
    assert 0 == main(["export", "best", "-o", "out", "--merged"])
    assert "load the base with the quantization_config" in capsys.readouterr().out
    folder = tmp_path / "out" / "merged"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    loss = eval_loss(model, AutoTokenizer.from_pretrained(folder))
    assert trained.metrics["eval_loss"] == pytest.approx(loss, abs=2e-3)
    assert torch.float32 == model.dtype
    assert not hasattr(model.config, "quantization_config")
