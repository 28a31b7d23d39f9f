"""TORCH: the environment that a training's figures are recorded with, and its peak memory."""

from __future__ import annotations

import platform

import peft
import torch
import transformers
import trl
from trl import SFTConfig

from pytest_ftloop.train.quantised import versions


def environment(args: SFTConfig, quantised_by: str = "") -> dict[str, str]:
    """Device, precision and versions: what can change a figure although no setting changed.

    `quantised_by` is the package that quantises the base (`quantised_by`).
    """
    return {
        "device": device_name(args.device),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "peft": peft.__version__,
        **versions(quantised_by, args.optim),
    }


def device_name(device: torch.device) -> str:
    """The accelerator's name, or its kind (`cpu`)."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_memory_mib() -> float:
    """The accelerator's peak memory since the last call, in MiB; 0 on the CPU."""
    if not torch.cuda.is_available():
        return 0.0
    peak = torch.cuda.max_memory_allocated() / 2**20
    torch.cuda.reset_peak_memory_stats()
    return round(peak, 1)
