"""The settings that change no figure."""

from __future__ import annotations

NEUTRAL = frozenset(
    {
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "disable_tqdm",
        "hub_model_id",
        "hub_private_repo",
        "hub_strategy",
        "hub_token",
        "log_level",
        "logging_dir",
        "logging_first_step",
        "logging_steps",
        "logging_strategy",
        "output_dir",
        "per_device_eval_batch_size",
        "project",
        "push_to_hub",
        "report_to",
        "run_name",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
    }
)
"""Arguments of SFTConfig that can't change a figure."""
