"""`make bench-architectures`: is any causal model trained, scored and exported as by hand?

Small random models of many architectures, each with every form of data and every scorer that takes
it: one loop of four steps. Beside it, with plain transformers, peft and trl: the losses of a plain
SFTTrainer script (equal to the bit), the eval loss of the exported adapter and of the merged
weights (to 1e-5), their greedy outputs and their choices (equal).

    python benchmarks/architectures.py [--only llama gpt2] [--forms text tokens] [--each]

Exits 1 if anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from by_hand import ByHand
from same_losses import Recorder, plain
from tabulate import tabulate

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options

ROOT = Path(__file__).parent.parent
DATA = ROOT / "examples" / "quickstart" / "data"
CANDIDATES = ("positive", "negative")
CLOSE = 1e-5
"""The largest difference between two eval losses that counts as none, in nats per token.

Both are sums of 32-bit floats in another order, over some ten tokens per row.
"""

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
}
MOE = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "decoder_sparse_step": 1,
}
HEADS = {**SHAPE, "head_dim": 16}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    "cohere": {**SHAPE, "logit_scale": 0.25},
    "falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gemma": HEADS,
    "gemma2": {**HEADS, "final_logit_softcapping": 1.0},
    "gemma3_text": {**HEADS, "sliding_window": 16},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_bigcode": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": SHAPE,
    "gpt_oss": {**HEADS, **MOE, "sliding_window": 16},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "rotary_dim": 16},
    "granite": {**SHAPE, "logits_scaling": 8.0},
    "lfm2": SHAPE,
    "llama": SHAPE,
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2},
    "mistral": {**SHAPE, "sliding_window": 16},
    "mixtral": {**SHAPE, **MOE},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256},
    "olmo2": SHAPE,
    "olmoe": {**SHAPE, **MOE},
    "opt": {**SHAPE, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "phi": SHAPE,
    "phi3": SHAPE,
    "qwen2": {**SHAPE, "tie_word_embeddings": True},
    "qwen2_moe": {**SHAPE, **MOE},
    "qwen3": HEADS,
    "qwen3_moe": {**HEADS, **MOE},
    "smollm3": SHAPE,
    "stablelm": SHAPE,
    "starcoder2": SHAPE,
}
"""Model types of transformers, with the shape of a model of some hundred thousand parameters."""

FORMS: dict[str, tuple[str, ...]] = {
    "text": ("loss",),
    "prompt/completion": ("loss", "exact", "choice"),
    "messages": ("loss", "exact", "choice"),
    "tokens": ("loss",),
}
"""The forms of data, and the scorers that take them: texts and tokens expect no answer."""

SCORING: dict[str, dict[str, Any]] = {
    "loss": {"scorer": "loss", "threshold": 6.9},
    "exact": {"scorer": "exact", "max_new_tokens": 6},
    "choice": {"scorer": "choice", "choices": list(CANDIDATES)},
}
TRAINING = {
    "learning_rate": 1e-2,
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "activation_checkpointing": False,
    "disable_tqdm": True,
}
LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}
TARGETS = {"mamba": ["in_proj", "x_proj"]}
"""Where peft takes not all linear layers: none that a fused kernel of Mamba reads past LoRA."""

DROPOUT = 0.1
"""Of the adapters, but not of mixtures of experts: peft takes none on experts."""


@dataclass(frozen=True)
class Compared:
    """One loop beside what was measured by hand.

    `steps` are the losses of its steps that a plain script has too, of `of_steps`; `adapter` and
    `merged` the differences of the eval loss in nats; `same` the outputs and choices that are
    equal, of `of_same` (the adapter's and the merged model's).
    """

    architecture: str
    form: str
    scorer: str
    steps: int
    of_steps: int
    adapter: float
    merged: float
    same: int
    of_same: int

    @property
    def holds(self) -> bool:
        """Whether the two sides agree."""
        differences = (self.adapter, self.merged)
        close = all(difference <= CLOSE for difference in differences)
        return close and self.steps == self.of_steps > 0 and self.same == self.of_same


def main() -> int:
    """Compare all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--each", action="store_true", help="a row per form and scorer")
    chosen = parser.parse_args()
    from pytest_ftloop.train.tiny import tiny_folder

    tokenizer = tiny_folder(Silent())
    compared: list[Compared] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FTLOOP_CACHE"] = str(Path(folder, "cache"))  # for the adapters, not the user's
        for name in chosen.only:
            model = made(name, tokenizer, Path(folder, "models", name))
            for form in chosen.forms:
                compared += compare(name, model, form, Path(folder, "loops", name))
    show(compared, each=chosen.each)
    return 0 if all(case.holds for case in compared) else 1


def made(name: str, tokenizer_folder: Path, folder: Path) -> Path:
    """A random model of an architecture, in a folder with the embedded model's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from pytest_ftloop.train.quiet import quiet

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.chat_template = TEMPLATE
    end = tokenizer.eos_token_id
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}
    config = AutoConfig.for_model(name, **tokens, pad_token_id=end, **ARCHITECTURES[name])
    torch.manual_seed(0)
    with quiet():
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def compare(name: str, model: Path, form: str, folder: Path) -> Iterator[Compared]:
    """Run a loop per scorer on a form of data; the plain script is the same for all of them."""
    from pytest_ftloop.train.quiet import quiet

    expected: list[float] | None = None
    for scorer in FORMS[form]:
        file = written(model, form, scorer, folder / f"{form.replace('/', '-')}-{scorer}")
        recorder = Recorder()
        best = Loop(read_loop_file(file), Options(), backend=recorder).run().best
        (trained,) = recorder.trained
        if expected is None:
            with quiet(), contextlib.redirect_stdout(io.StringIO()):
                expected = plain(read_loop_file(file), trained.settings)
        rows = read(file.parent / "eval.jsonl")
        export(file, file.parent / "out")
        with quiet():
            sides = (
                ByHand.of_adapter(file.parent / "out"),
                ByHand.of_merged(file.parent / "out" / "merged"),
            )
        adapter, merged = (abs(s.mean_loss(rows) - best.metrics["eval_loss"]) for s in sides)
        found = {example.id: example.output for example in best.examples}
        same = [
            found[row["id"]] == by_hand
            for side in sides
            for row in rows
            if (by_hand := answered(side, scorer, row)) is not None
        ]
        equal = sum(a == b for a, b in zip(trained.losses, expected, strict=True))
        case = Compared(
            name, form, scorer, equal, len(expected), adapter, merged, sum(same), len(same)
        )
        print(f"{'' if case.holds else 'DIFFERS: '}{case}", file=sys.stderr, flush=True)
        yield case


def answered(side: ByHand, scorer: str, row: Mapping[str, Any]) -> str | None:
    """What a model answers by hand; None where the scorer asks for no answer."""
    if scorer == "exact":
        return side.output(row, SCORING["exact"]["max_new_tokens"])
    return side.chosen(row, CANDIDATES) if scorer == "choice" else None


def written(model: Path, form: str, scorer: str, folder: Path) -> Path:
    """A loop file with its data."""
    folder.mkdir(parents=True)
    lora = {**LORA, "lora_dropout": DROPOUT}
    if MOE.keys() <= ARCHITECTURES[model.name].keys():
        lora["lora_dropout"] = 0.0
    if model.name in TARGETS:
        lora["target_modules"] = TARGETS[model.name]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for role, most in (("train", 16), ("eval", 6)):
        rows = [in_form(row, form, tokenizer) for row in read(DATA / f"{role}.jsonl")[:most]]
        (folder / f"{role}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    loop = {
        "model": str(model),
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "lora": lora,
        "training": TRAINING,
        "scoring": SCORING[scorer],
        "loop": {"iterations": 1},
    }
    file = folder / "case.ftloop.yaml"
    file.write_text(json.dumps(loop))
    return file


def in_form(row: Mapping[str, Any], form: str, tokenizer: Any) -> dict[str, Any]:
    """A row of prompt and completion in another form."""
    prompt, completion = row["prompt"], row["completion"]
    made: dict[str, Any] = {"prompt": prompt, "completion": completion}
    if form == "text":
        made = {"text": prompt + completion}
    elif form == "messages":
        turns = (("user", prompt), ("assistant", completion.strip()))
        made = {"messages": [{"role": role, "content": text} for role, text in turns]}
    elif form == "tokens":
        asked, answer = tokenizer(prompt)["input_ids"], tokenizer(completion)["input_ids"]
        made = {"input_ids": asked + answer, "labels": [-100] * len(asked) + answer}
    return {"id": row["id"], **made}


def export(file: Path, folder: Path, *, merged: bool = True) -> None:
    """`ftloop export`, with the merged weights or without."""
    from pytest_ftloop.cli import main as ftloop

    with contextlib.redirect_stdout(io.StringIO()):
        options = ["-o", str(folder), *["--merged"] * merged]
        code = ftloop(["export", "best", str(file), *options])
    if code:
        sys.exit(f"ftloop export {file}: exit code {code}")


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def show(compared: Sequence[Compared], *, each: bool) -> None:
    """A row per architecture, or per case."""
    groups: dict[tuple[str, ...], list[Compared]] = {}
    for case in compared:
        key = (case.architecture, case.form, case.scorer) if each else (case.architecture,)
        groups.setdefault(key, []).append(case)
    rows = [
        (
            *key,
            f"{sum(c.holds for c in cases)} of {len(cases)}",
            f"{sum(c.steps for c in cases)} of {sum(c.of_steps for c in cases)}",
            f"{max(c.adapter for c in cases):.0e}",
            f"{max(c.merged for c in cases):.0e}",
            f"{sum(c.same for c in cases)} of {sum(c.of_same for c in cases)}",
        )
        for key, cases in groups.items()
    ]
    names = ("architecture", "form", "scorer") if each else ("architecture",)
    figures = ("cases hold", "steps identical", "adapter", "merged", "answers equal")
    print(tabulate(rows, (*names, *figures), "github", disable_numparse=True))


if __name__ == "__main__":
    sys.exit(main())
