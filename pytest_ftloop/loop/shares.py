"""How many workers train at once on this machine, and which devices and threads each has."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pytest_ftloop.train.threads import cores, set_threads, xdist_number, xdist_workers

MOST_BY_ITSELF = 8
"""Most workers that `auto` starts on a CPU: each holds the base model in its own memory."""

VISIBLE = "CUDA_VISIBLE_DEVICES"


def number_of_workers(
    stated: int | Literal["auto"], environ: Mapping[str, str] = os.environ
) -> int:
    """The number of workers of this process.

    `auto` is one per visible GPU, or without one one per core, shared by pytest-xdist's workers.
    """
    if stated != "auto":
        return stated
    found = len(devices(environ)) or min(cores(), MOST_BY_ITSELF)
    return max(1, found // xdist_workers(environ))


def environment_of(worker: int, of: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of one of `of` workers: a device of its own, its share of cores.

    The workers of pytest-xdist share the devices: the workers of each get those after the last's.
    """
    made = dict(environ)
    set_threads(made, of)
    if seen := devices(environ):
        made[VISIBLE] = seen[(xdist_number(environ) * of + worker) % len(seen)]
    return made


def environment_of_ranks(count: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment variables of `count` processes that train one run: all devices, in order.

    The loops of pytest-xdist's workers train at once: each gets the devices after the last's.
    """
    made = dict(environ)
    set_threads(made, count)
    if xdist_workers(environ) > 1 and (seen := devices(environ)):
        first = xdist_number(environ) * count
        taken = dict.fromkeys(seen[(first + n) % len(seen)] for n in range(count))
        made[VISIBLE] = ",".join(taken)
    return made


def devices(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The visible NVIDIA GPUs, as `CUDA_VISIBLE_DEVICES` names them. Found without torch."""
    if (stated := environ.get(VISIBLE)) is not None:
        # CUDA sees those before the first that does not exist: -1 hides all that follow.
        names = [name.strip() for name in stated.split(",")]
        end = next((n for n, name in enumerate(names) if name in ("", "-1")), len(names))
        return tuple(names[:end])
    return tuple(str(number) for number in range(_gpus()))


def _gpus() -> int:
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return sum(1 for _ in listed.iterdir())
    if not (command := shutil.which("nvidia-smi")):
        return 0
    try:
        found = subprocess.run(
            [command, "-L"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):  # a driver that does not work has no device
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())
