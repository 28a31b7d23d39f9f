"""`ftloop export --check` by a real adapter: sound exports hold, each planted fault is found."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pytest_ftloop.cli import main
from pytest_ftloop.config.scoring import Scoring
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.loop.checked_export import Recheck
from pytest_ftloop.loop.workspace import find_logs
from pytest_ftloop.train.afresh import measure_afresh
from tests.endpoints import Reply, endpoint, message, models
from tests.small_base import rows

Capture = pytest.CaptureFixture[str]

LOOP = """\
model: tiny
data: {train: train.jsonl, eval: eval.jsonl, guards: {general: guard.jsonl}}
lora: {r: 4, lora_alpha: 8, target_modules: all-linear}
training: {learning_rate: 5.0e-3, num_train_epochs: 6, activation_checkpointing: false}
loop: {iterations: 1}
"""


def chat(row: dict[str, str]) -> dict[str, object]:
    """A row of the small task as messages, so that the chat template counts."""
    return {
        "id": row["id"],
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "completion": [{"role": "assistant", "content": row["completion"].strip()}],
    }


@pytest.fixture(scope="session")
def trained(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loop's folder with one iteration in the log and its export, merged too, in `out`."""
    folder = tmp_path_factory.mktemp("checked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("CI", raising=False)
        for role, seed, count in (("train", 1, 24), ("eval", 2, 24), ("guard", 3, 6)):
            lines = [json.dumps(chat(row)) for row in rows(count, seed)]
            Path(f"{role}.jsonl").write_text("\n".join(lines))
        Path("topics.ftloop.yaml").write_text(LOOP)
        assert 0 == main(["run", "-q"])
        assert 0 == main(["export", "-o", "out", "--merged"])
    return folder


@pytest.fixture
def out(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the export to spoil; the working folder is the loop's."""
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "200")
    return Path(shutil.copytree(trained / "out", tmp_path / "out"))


def check(out: Path, capsys: Capture, *more: str) -> tuple[int, list[str]]:
    """The exit code of the check of a folder, and its lines."""
    capsys.readouterr()
    code = main(["export", "-o", str(out), "--check", *more])
    return code, capsys.readouterr().out.splitlines()


def test_sound_export_holds(out: Path, capsys: Capture) -> None:
    """Adapter and merged model in fp32 equal the log: no flip, no other output, one line each."""
    code, lines = check(out, capsys)
    assert 0 == code, lines
    kinds = [
        ("adapter", 24), ("adapter, guard general", 6),
        ("merged model", 24), ("merged model, guard general", 6),
    ]  # fmt: skip
    for line, (what, count) in zip(lines, kinds, strict=True):
        assert line.startswith(f"{what} (cpu, fp32): ok: {count} examples as logged: "), line
        assert "0 flipped (tolerance 0%), 0 outputs changed, losses within" in line


def test_check_changes_nothing(out: Path, capsys: Capture) -> None:
    """An export that exists is checked as it is, not written again."""
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    check(out, capsys)
    assert before == {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_exported_and_checked_at_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Where there is no export yet, `--check` writes it first."""
    monkeypatch.chdir(trained)
    code, lines = check(tmp_path / "new", capsys)
    assert 0 == code
    assert any(line.startswith("wrote ") for line in lines)
    assert lines[-1].startswith("adapter (cpu, fp32): ok")


def test_bf16_merge_is_within_its_tolerance(out: Path, capsys: Capture) -> None:
    """A merged model that was rounded to bf16 has another tolerance, and holds it."""
    model = AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.bfloat16)
    model.save_pretrained(out / "merged")
    code, lines = check(out, capsys)
    assert 0 == code, lines
    assert "merged model (cpu, bf16): ok" in lines[-1]
    assert "(tolerance 5%)" in lines[-1]


def test_stated_tolerance_decides(out: Path, capsys: Capture) -> None:
    """The same bf16 model fails a tolerance below its difference, and the line gives both."""
    model = AutoModelForCausalLM.from_pretrained(out / "merged", dtype=torch.bfloat16)
    model.save_pretrained(out / "merged")
    code, lines = check(out, capsys, "--loss-tolerance", "1e-7", "--tolerance", "100%")
    assert 1 == code
    (line,) = [line for line in lines if line.startswith("merged")]
    assert "FAILED: the loss of" in line
    assert "(tolerance 1e-07)" in line


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def wrong_alpha(out: Path) -> None:
    edit(out / "adapter_config.json", lora_alpha=64)


def another_rank_scaling(out: Path) -> None:
    edit(out / "adapter_config.json", use_rslora=True)


def wrong_template(out: Path) -> None:
    (out / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )


def template_missing(out: Path) -> None:
    (out / "chat_template.jinja").unlink()


def cut_file(out: Path) -> None:
    file = out / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def half_the_tensors(out: Path) -> None:
    file = out / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: weights[name] for name in sorted(weights)[: len(weights) // 2]}, file)


def nan_weights(out: Path) -> None:
    file = out / "adapter_model.safetensors"
    save_file({name: w * float("nan") for name, w in load_file(file).items()}, file)


def another_base(out: Path) -> None:
    config = json.loads((out / "adapter_config.json").read_text())
    torch.manual_seed(1)
    known = AutoConfig.from_pretrained(config["base_model_name_or_path"])
    AutoModelForCausalLM.from_config(known).save_pretrained(out.parent / "other")
    edit(out / "adapter_config.json", base_model_name_or_path=str(out.parent / "other"))


def no_base(out: Path) -> None:
    edit(out / "adapter_config.json", base_model_name_or_path=str(out.parent / "gone"))


def no_tokenizer(out: Path) -> None:
    for file in out.glob("tokenizer*"):
        file.unlink()


def no_config(out: Path) -> None:
    (out / "adapter_config.json").write_text("{")


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (wrong_alpha, "the loss of"),
    (another_rank_scaling, "the loss of"),
    (wrong_template, "have another number of tokens"),
    (template_missing, "chat template"),
    (cut_file, "loading the adapter"),
    (half_the_tensors, "the loss of"),
    (nan_weights, "is nan, in the log"),
    (another_base, "the loss of"),
    (no_base, "loading the adapter"),
    (no_tokenizer, "the tokenizer is missing"),
    (no_config, "loading the adapter"),
]


@pytest.mark.parametrize(("spoil", "said"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_fault_is_found(
    spoil: Callable[[Path], None], said: str, out: Path, capsys: Capture
) -> None:
    """A spoilt adapter fails with exit code 1 and one line that says what differs."""
    shutil.rmtree(out / "merged")
    spoil(out)
    code, lines = check(out, capsys)
    assert 1 == code, lines
    assert lines[0].startswith("adapter"), lines
    assert ": FAILED: " in lines[0]
    assert said in lines[0]
    other_file = spoil in (cut_file, half_the_tensors, nan_weights)
    assert other_file == ("is not the one that iteration 001-" in lines[0])


MERGED_FAULTS = [cut_file, nan_weights, no_tokenizer]


@pytest.mark.parametrize("spoil", MERGED_FAULTS, ids=[spoil.__name__ for spoil in MERGED_FAULTS])
def test_fault_of_the_merged_model_is_found(
    spoil: Callable[[Path], None], out: Path, capsys: Capture
) -> None:
    """A spoilt merged model fails, and the sound adapter beside it holds."""
    weights = out / "merged" / "model.safetensors"
    weights.rename(out / "merged" / "adapter_model.safetensors")
    spoil(out / "merged")
    (out / "merged" / "adapter_model.safetensors").rename(weights)
    code, (adapter, merged, *_) = check(out, capsys)
    assert 1 == code
    assert "adapter (cpu, fp32): ok" in adapter
    assert merged.startswith("merged model")
    assert ": FAILED: " in merged


@pytest.mark.parametrize(
    "scoring",
    [Scoring(scorer="choice"), Scoring(scorer="loss", threshold=0.5)],
    ids=["choice", "loss"],
)
def test_scorers_of_probabilities(out: Path, scoring: Scoring) -> None:
    """They are measured too: the choice by the export's own losses, which are the logged ones."""
    (found,) = find_logs(Path("topics.ftloop.yaml"), None, print)
    (iteration,) = found.iterations
    assert found.config is not None
    task = Recheck.all_of(iteration, found)[0].task
    task = replace(task, scoring=scoring, scorer=None)
    measured = measure_afresh(out, iteration.settings, task, Silent())
    logged = {result.id: result for result in iteration.examples}
    for result in measured.examples:
        assert logged[result.id].mean_loss == pytest.approx(result.mean_loss, abs=1e-4)
        if scoring.scorer == "choice":
            assert result.output in {"money", "delivery"}
            assert result.passed == (result.output == result.expected)
        else:
            assert result.passed == (result.mean_loss <= 0.5)
    assert 24 == len(measured.examples)


class Server:
    """Serves a merged model by plain transformers, as a user's server does."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.lock = threading.Lock()

    def __call__(self, path: str, body: Any) -> Reply:
        if path == "models":
            return models("merged")
        how = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        asked = self.tokenizer.apply_chat_template(body["messages"], **how)
        with self.lock:
            out = self.model.generate(**asked, do_sample=False, max_new_tokens=body["max_tokens"])
        answer = out[0, asked["input_ids"].shape[1] :]
        return message(self.tokenizer.decode(answer, skip_special_tokens=True))


def test_served_model_is_checked(out: Path, capsys: Capture) -> None:
    """A server of the merged model holds; one with another chat template does not."""
    server = Server(out / "merged")
    with endpoint(server) as at:
        assert 0 == main(["export", "--check-endpoint", at.url]), capsys.readouterr()
        assert "ok: 24 examples as logged: 0 flipped" in capsys.readouterr().out
        server.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        assert 1 == main(["export", "--check-endpoint", at.url])
    assert "FAILED: " in capsys.readouterr().out
