"""The arguments of peft's LoraConfig and trl's SFTConfig with their types, as plain types.

Written by `python .ci/known_arguments.py` from the versions below; a test compares the two.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

VERSIONS = {"peft": "0.21.2", "transformers": "5.23.0", "trl": "1.16.0"}
"""The versions that the arguments are of."""


class Lora(TypedDict, total=False):
    """The arguments of LoraConfig."""

    task_type: (
        Literal[
            "SEQ_CLS",
            "SEQ_2_SEQ_LM",
            "CAUSAL_LM",
            "TOKEN_CLS",
            "QUESTION_ANS",
            "FEATURE_EXTRACTION",
        ]
        | None
    )
    peft_type: str | None
    auto_mapping: dict[str, Any] | None
    peft_version: str | None
    base_model_name_or_path: str | None
    revision: str | None
    inference_mode: bool
    r: int
    target_modules: list[str] | str | None
    exclude_modules: list[str] | str | None
    lora_alpha: int
    lora_dropout: float
    fan_in_fan_out: bool
    bias: Literal["none", "all", "lora_only"]
    use_rslora: bool
    modules_to_save: list[str] | None
    init_lora_weights: bool | str
    layers_to_transform: int | list[int] | None
    layers_pattern: list[str] | str | None
    rank_pattern: dict[str, Any] | None
    alpha_pattern: dict[str, Any] | None
    megatron_config: dict[str, Any] | None
    megatron_core: str | None
    trainable_token_indices: dict[str, list[int]] | list[int] | None
    loftq_config: dict[str, Any]
    eva_config: dict[str, Any] | None
    corda_config: dict[str, Any] | None
    lora_ga_config: dict[str, Any] | None
    use_dora: bool
    velora_config: dict[str, Any] | None
    alora_invocation_tokens: list[int] | None
    use_qalora: bool
    qalora_group_size: int
    monteclora_config: dict[str, Any] | None
    layer_replication: list[list[int]] | None
    runtime_config: dict[str, Any]
    lora_bias: bool
    target_parameters: list[str] | None
    use_bdlora: dict[str, Any] | None
    arrow_config: dict[str, Any] | None
    kasa_config: dict[str, Any] | None
    ensure_weight_tying: bool


class Training(TypedDict, total=False):
    """The arguments of SFTConfig."""

    output_dir: str | None
    per_device_train_batch_size: int
    num_train_epochs: float
    max_steps: int
    learning_rate: float
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "reduce_lr_on_plateau",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "warmup_stable_decay",
        "greedy",
    ]
    lr_scheduler_kwargs: dict[str, Any] | str | None
    warmup_steps: float
    optim: Literal[
        "adamw_torch",
        "adamw_torch_fused",
        "adamw_torch_xla",
        "adamw_torch_npu_fused",
        "adafactor",
        "adamw_anyprecision",
        "adamw_torch_4bit",
        "adamw_torch_8bit",
        "ademamix",
        "sgd",
        "adagrad",
        "adamw_bnb_8bit",
        "adamw_8bit",
        "ademamix_8bit",
        "lion_8bit",
        "lion_32bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "paged_ademamix_32bit",
        "paged_ademamix_8bit",
        "paged_lion_32bit",
        "paged_lion_8bit",
        "rmsprop",
        "rmsprop_bnb",
        "rmsprop_bnb_8bit",
        "rmsprop_bnb_32bit",
        "galore_adamw",
        "galore_adamw_8bit",
        "galore_adafactor",
        "galore_adamw_layerwise",
        "galore_adamw_8bit_layerwise",
        "galore_adafactor_layerwise",
        "lomo",
        "adalomo",
        "grokadamw",
        "schedule_free_radam",
        "schedule_free_adamw",
        "schedule_free_sgd",
        "apollo_adamw",
        "apollo_adamw_layerwise",
        "stable_adamw",
    ]
    optim_args: str | None
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    optim_target_modules: list[str] | str | None
    gradient_accumulation_steps: int
    average_tokens_across_devices: bool
    max_grad_norm: float
    label_smoothing_factor: float
    bf16: bool | None
    fp16: bool
    bf16_full_eval: bool
    fp16_full_eval: bool
    tf32: bool | None
    activation_checkpointing: bool | None
    activation_checkpointing_kwargs: dict[str, Any] | str | None
    gradient_checkpointing: bool
    gradient_checkpointing_kwargs: dict[str, Any] | str | None
    torch_compile: bool
    torch_compile_backend: str | None
    torch_compile_mode: str | None
    use_liger_kernel: bool
    liger_kernel_config: dict[str, bool] | None
    use_cache: bool
    neftune_noise_alpha: float | None
    torch_empty_cache_steps: int | None
    auto_find_batch_size: bool
    logging_strategy: Literal["no", "steps", "epoch"]
    logging_steps: float
    logging_first_step: bool
    log_on_each_node: bool
    logging_nan_inf_filter: bool
    include_num_input_tokens_seen: bool | str
    log_level: Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]
    log_level_replica: Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]
    disable_tqdm: bool | None
    report_to: list[str] | str | None
    run_name: str | None
    project: str
    trackio_space_id: str | None
    trackio_bucket_id: str | None
    trackio_static_space_id: Literal[False] | str | None
    eval_strategy: Literal["no", "steps", "epoch"]
    eval_steps: float | None
    eval_delay: float
    per_device_eval_batch_size: int
    prediction_loss_only: bool
    eval_on_start: bool
    eval_do_concat_batches: bool
    eval_use_gather_object: bool
    eval_accumulation_steps: int | None
    include_for_metrics: list[str]
    batch_eval_metrics: bool
    save_only_model: bool
    save_strategy: Literal["no", "steps", "epoch", "best"]
    save_steps: float
    save_on_each_node: bool
    save_total_limit: int | None
    enable_jit_checkpoint: bool
    push_to_hub: bool
    hub_token: str | None
    hub_private_repo: bool | None
    hub_model_id: str | None
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"]
    hub_always_push: bool
    hub_revision: str | None
    load_best_model_at_end: bool
    metric_for_best_model: str | None
    greater_is_better: bool | None
    ignore_data_skip: bool
    restore_callback_states_from_checkpoint: bool
    full_determinism: bool
    seed: int
    data_seed: int | None
    use_cpu: bool
    accelerator_config: dict[str, Any] | str | None
    parallelism_config: dict[str, Any] | None
    dataloader_drop_last: bool
    dataloader_num_workers: int
    dataloader_pin_memory: bool
    dataloader_persistent_workers: bool
    dataloader_prefetch_factor: int | None
    dataloader_multiprocessing_context: Literal["fork", "spawn", "forkserver"] | None
    dataloader_in_order: bool
    remove_unused_columns: bool
    label_names: list[str] | None
    train_sampling_strategy: Literal["random", "sequential", "group_by_length", "batch_rebalance"]
    length_column_name: str
    ddp_find_unused_parameters: bool | None
    ddp_bucket_cap_mb: int | None
    ddp_broadcast_buffers: bool | None
    ddp_static_graph: bool | None
    ddp_backend: Literal["nccl", "gloo", "mpi", "xccl", "hccl", "cncl", "mccl"] | None
    ddp_timeout: int
    fsdp: str | None
    fsdp_config: dict[str, Any] | str | None
    deepspeed: dict[str, Any] | str | None
    debug: list[Literal["underflow_overflow", "tpu_metrics_debug"]] | str
    skip_memory_metrics: bool
    do_train: bool
    do_eval: bool
    do_predict: bool
    resume_from_checkpoint: str | None
    local_rank: int
    model_init_kwargs: dict[str, Any] | str | None
    trust_remote_code: bool
    router_aux_loss_coef: float | None
    chat_template_path: str | None
    dataset_text_field: str
    dataset_kwargs: dict[str, Any] | str | None
    dataset_num_proc: int | None
    eos_token: str | None
    max_length: int | None
    truncation_mode: Literal["keep_end", "keep_start"]
    shuffle_dataset: bool
    packing: bool
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"]
    padding_free: bool
    pad_to_multiple_of: int | str | None
    eval_packing: bool | None
    completion_only_loss: bool | None
    assistant_only_loss: bool
    loss_type: Literal["nll", "dft", "chunked_nll"]
    activation_offloading: bool
    pad_token: str | None
