"""Arguments of SFTConfig and LoraConfig that a loop refuses, and what to write for old names."""

from __future__ import annotations

REFUSED = {
    "auto_find_batch_size": "after an out-of-memory error the iteration continues from its last "
    "evaluation point with half the batch size and twice the accumulation steps",
    "load_best_model_at_end": "the result of an iteration already is its best evaluation point",
    "resume_from_checkpoint": "every iteration starts from the clean base model, or from "
    "lora.init_from",
    "eval_delay": "eval_strategy and eval_steps determine when the eval set is measured",
    "eval_on_start": "the untrained base is always measured, once per loop",
    "eval_packing": "the eval set is never packed, since each example has its own figures",
    "push_to_hub": "iterations are experiments; publish the adapter of the best one yourself",
    "deepspeed": "it keeps weights and checkpoints in a form of its own, which a loop could not "
    "measure and resume; loop.processes trains on several devices",
    "fsdp": "loop.processes trains on several devices, and loop.launcher takes a config of "
    "accelerate",
    "do_eval": "the eval set is evaluated at every evaluation point",
    "metric_for_best_model": "the best evaluation point is the one with the lowest eval loss",
    "greater_is_better": "the best evaluation point is the one with the lowest eval loss",
}
"""Arguments of SFTConfig that are refused, each with what the loop does instead."""


_BY_MODEL = "It belongs to the model: training: {model_init_kwargs: {NAME: ...}}."

RENAMED: dict[str, dict[str, str]] = {
    "training": {
        "adafactor": "Write optim: adafactor.",
        "batch_size": "Write per_device_train_batch_size.",
        "chars_per_token": "trl has no such argument any more: remove the line.",
        "dataset_batch_size": "trl has no such argument any more: remove the line.",
        "epochs": "Write num_train_epochs.",
        "evaluation_strategy": "Its name is now eval_strategy.",
        "fp16_opt_level": "transformers has no such argument any more: write fp16: true.",
        "group_by_length": "Write train_sampling_strategy: group_by_length.",
        "logging_dir": "Set the variable TENSORBOARD_LOGGING_DIR.",
        "labelled_only": "Write loop: {labelled_only: true}.",
        "lr": "Write learning_rate.",
        "max_seq_length": "Its name is now max_length.",
        "no_cuda": "Its name is now use_cpu.",
        "num_of_sequences": "trl has no such argument any more: remove the line.",
        "overwrite_output_dir": "The trainer writes to a temporary folder: remove the line.",
        "processes": "Write loop: {processes: ...}.",
        "peft_config": "Its arguments are the section lora.",
        "per_gpu_eval_batch_size": "Its name is now per_device_eval_batch_size.",
        "per_gpu_train_batch_size": "Its name is now per_device_train_batch_size.",
        "save_safetensors": "Adapters are always saved so: remove the line.",
        "tokenizer": "It is a section of its own: tokenizer: {name: ...}.",
        "use_mps_device": "The device is chosen by the machine: remove the line.",
        "warmup_ratio": "Write warmup_steps, as a share of the run: warmup_steps: 0.1.",
        "data_collator": "Rows are collated as by a plain SFTTrainer: remove the line.",
        "eval_dataset": "It belongs to the data: data: {eval: ...}.",
        "formatting_func": "Name a function that returns the rows: data: {train: module:function}.",
        "include_inputs_for_metrics": "Write include_for_metrics: [inputs].",
        "label_smoothing": "Write label_smoothing_factor.",
        "max_new_tokens": "It belongs to the scoring: scoring: {max_new_tokens: ...}.",
        "model_name_or_path": "It is a key of its own: model: ....",
        "processing_class": "It is a section of its own: tokenizer: {name: ...}.",
        "push_to_hub_model_id": "Its name is now hub_model_id.",
        "push_to_hub_token": "Its name is now hub_token.",
        "train_dataset": "It belongs to the data: data: {train: ...}.",
        "use_liger": "Its name is now use_liger_kernel.",
        **dict.fromkeys(
            ("fp16_backend", "half_precision_backend"),
            "transformers has no such argument any more: write bf16 or fp16.",
        ),
        **dict.fromkeys(("dispatch_batches", "split_batches"), "Write it in accelerator_config."),
        **dict.fromkeys(
            ("include_tokens_per_second", "jit_mode_eval", "past_index", "ray_scope", "use_ipex"),
            "transformers has no such argument any more: remove the line.",
        ),
        **{
            name: _BY_MODEL.replace("NAME", name)
            for name in ("attn_implementation", "device_map", "dtype", "quantization_config")
        },
        "torch_dtype": _BY_MODEL.replace("NAME", "dtype"),
        **dict.fromkeys(
            ("load_in_4bit", "load_in_8bit"),
            _BY_MODEL.replace("NAME: ...", "quantization_config: {load_in_4bit: true}"),
        ),
    },
    "lora": {
        "alpha": "Write lora_alpha.",
        "dropout": "Write lora_dropout.",
        "enable_lora": "peft has no such argument any more: name the target_modules.",
        "lora_r": "Write r.",
        "lora_rank": "Write r.",
        "merge_weights": "peft has no such argument any more: ftloop export --merged merges.",
        "rank": "Write r.",
    },
}
"""What to write in place of arguments that SFTConfig and LoraConfig no longer or never had."""

ALIASES: dict[str, dict[str, str]] = {
    "training": {
        "gradient_checkpointing": "activation_checkpointing",
        "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
    },
    "lora": {},
}
"""Old names that still work, each with its new name."""
