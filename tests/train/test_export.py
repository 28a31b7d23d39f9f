"""An exported adapter, and its merged weights, are what the log says: with plain peft alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from pytest_ftloop.cli import main
from tests.small_base import rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quietly", "no_ci")]

LOOP = """\
model: {model}
data: {{train: train.jsonl, eval: eval.jsonl}}
lora: {{r: 4, lora_alpha: 8, target_modules: all-linear, lora_dropout: 0.1}}
training: {{learning_rate: 5.0e-3, num_train_epochs: 2, activation_checkpointing: false}}
loop: {{iterations: 1}}
"""


@pytest.fixture(params=["tiny", "a folder"])
def exported(
    request: Any, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, float]:
    """The folder that `ftloop export --merged` wrote, and the eval loss in the log."""
    monkeypatch.chdir(tmp_path)
    model = "tiny"
    if request.param == "a folder":
        Path("models").mkdir()
        Path("models/base").symlink_to(tiny)
        model = "models/base"
    for role, seed in (("train", 1), ("eval", 2)):
        Path(f"{role}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows(24, seed)))
    Path("topics.ftloop.yaml").write_text(LOOP.format(model=model))
    assert 0 == main(["run", "-q"])
    assert 0 == main(["export", "best", "-o", "out", "--merged"])
    from pytest_ftloop.log import ImprovementLog

    (iteration,) = ImprovementLog(Path("improvement_log/topics")).read()
    return tmp_path / "out", iteration.metrics["eval_loss"]


def eval_loss(model: Any, tokenizer: Any) -> float:
    """The token-mean loss of the completions, computed by hand."""
    total, count = 0.0, 0
    for row in rows(24, 2):
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = tokenizer(row["prompt"] + row["completion"])["input_ids"]
        whole = [*whole, tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1]
        wanted = torch.tensor(whole[len(prompt) :])
        total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
        count += len(wanted)
    return total / count


def test_plain_peft_gives_the_logged_loss(exported: tuple[Path, float]) -> None:
    """The adapter on the base that its config names, and the merged model: to 1e-4."""
    folder, logged = exported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"]).eval()
    untrained = eval_loss(base, tokenizer)
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    assert logged == pytest.approx(eval_loss(model, tokenizer), abs=1e-4)
    assert logged < untrained - 0.1
    auto = AutoPeftModelForCausalLM.from_pretrained(str(folder)).eval()
    assert logged == pytest.approx(eval_loss(auto, tokenizer), abs=1e-4)
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged").eval()
    assert logged == pytest.approx(
        eval_loss(merged, AutoTokenizer.from_pretrained(folder / "merged")), abs=1e-4
    )
    assert merged.dtype == AutoModelForCausalLM.from_pretrained(base.name_or_path).dtype


def test_card_shows_code_that_works(exported: tuple[Path, float]) -> None:
    """The code in the card loads the adapter."""
    folder, logged = exported
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    space: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder)), space)
    assert logged == pytest.approx(eval_loss(space["model"].eval(), space["tokenizer"]), abs=1e-4)
