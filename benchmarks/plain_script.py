"""The script people write: train one LoRA with SFTTrainer, evaluate, generate, count passes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pytest_ftloop.core.progress import Silent
from pytest_ftloop.train.tiny import tiny_folder

DATA, STEPS, RATE = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
BATCH = 8

base = tiny_folder(Silent())
tokenizer = AutoTokenizer.from_pretrained(base)
sets = load_dataset(
    "json", data_files={name: str(DATA / f"{name}.jsonl") for name in ("train", "eval")}
)
trainer = SFTTrainer(
    model=str(base),
    args=SFTConfig(
        output_dir="plain-out",
        learning_rate=RATE,
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=BATCH,
        activation_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=sets["train"],
    eval_dataset=sets["eval"],
    processing_class=tokenizer,
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
assert trainer.state.global_step == STEPS
eval_loss = trainer.evaluate()["eval_loss"]
train_loss = trainer.evaluate(sets["train"].shuffle(seed=0).select(range(256)))["eval_loss"]

tokenizer.padding_side = "left"
model = trainer.model.eval()
passed = 0
rows = list(sets["eval"])
for start in range(0, len(rows), BATCH):
    batch = rows[start : start + BATCH]
    inputs = tokenizer([row["prompt"] for row in batch], return_tensors="pt", padding=True)
    with torch.no_grad():
        out = model.generate(**inputs.to(model.device), do_sample=False, max_new_tokens=8)
    texts = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    passed += sum(t.strip() == r["completion"].strip() for t, r in zip(texts, batch, strict=True))
print(f"eval {eval_loss:.4f} train {train_loss:.4f} passed {passed / len(rows):.1%}")
