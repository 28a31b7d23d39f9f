"""A training script as they are: `ftloop init --from train.py` makes a loop file of it."""

import argparse

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

MODEL = "Qwen/Qwen3-0.6B"
RANK = 16

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=2e-4)
parser.add_argument("--output", required=True)
args = parser.parse_args()

rows = load_dataset("json", data_files="../quickstart/data/train.jsonl", split="train")
held = load_dataset("json", data_files="../quickstart/data/eval.jsonl", split="train")
schedule = {"lr_scheduler_type": "cosine", "warmup_ratio": 0.1}

trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(MODEL, torch_dtype="bfloat16"),
    processing_class=AutoTokenizer.from_pretrained(MODEL),
    args=SFTConfig(
        output_dir=args.output,
        learning_rate=args.lr,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        max_seq_length=512,
        evaluation_strategy="epoch",
        dataset_num_proc=len(rows) // 1000 + 1,
        **schedule,
    ),
    peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"),
    train_dataset=rows,
    eval_dataset=held,
)
trainer.train()
