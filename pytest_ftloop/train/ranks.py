"""TORCH: the ranks of a run that a launcher such as torchrun has started.

Plain objects travel over the CPU (gloo), in a group of their own: a scorer may take an hour, after
which the group of the gradients would have given up.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from pytest_ftloop.core.errors import ConfigError, Location
from pytest_ftloop.core.ranks import ALONE, Ranks, every, ranks_in

T = TypeVar("T")
K = TypeVar("K")

PATIENCE = timedelta(days=7)
"""How long a rank waits for another: one that dies ends all of them, through the launcher."""


@dataclass(frozen=True)
class Together:
    """One of several ranks. If the model `is_sharded`, all must compute every batch together."""

    group: Any
    is_sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and scores."""
        return bool(dist.get_rank() == 0)

    def share(self, batches: Iterable[T]) -> Iterator[T]:
        """See `Ranks`. Of a sharded model all of them, because each forward needs all shards."""
        if self.is_sharded:
            return iter(batches)
        return every(batches, dist.get_rank(), dist.get_world_size())

    def union(self, found: Mapping[K, T]) -> dict[K, T]:
        """See `Ranks`."""
        return {key: value for part in self.each(dict(found)) for key, value in part.items()}

    def each(self, value: T) -> tuple[T, ...]:
        """See `Ranks`."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self.group)
        return tuple(values)

    def of_first(self, make: Callable[[], T]) -> T:
        """See `Ranks`."""
        made = [make() if self.is_first else None]
        dist.broadcast_object_list(made, src=0, group=self.group)
        return made[0]  # type: ignore[return-value] # the first rank's


def ranks_here(*, is_sharded: bool = False) -> Ranks:
    """The ranks of this process, once transformers has joined them; alone if there are no others.

    All ranks must call it for the first time at the same point.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return ALONE
    return Together(_group(), is_sharded)


@functools.cache
def _group() -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def check_launch(*, use_cpu: bool, where: Location | None) -> None:
    """Raise `ConfigError` where a launcher asks for what a loop can't do, or lacks devices."""
    if ranks_in() == 1:
        return
    asked = {name: os.environ.get(name, "").lower() == "true" for name in _REFUSED}
    for name, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"loop.launcher asks for {_REFUSED[name]}, which keeps weights and checkpoints in "
                "a form of its own: they could not be measured, chosen and resumed as a loop does",
                where=where,
                cure="Use distributed_type: MULTI_GPU, or FSDP with fsdp_version: 2.",
            )
    is_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    if is_fsdp and os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(
            f"loop.launcher: wanted FSDP 2, found {os.environ.get('FSDP_VERSION', '1')}",
            where=where,
            cure="Set fsdp_version: 2 in the config of accelerate.",
        )
    local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if torch.cuda.is_available() and not use_cpu and local >= devices:
        raise ConfigError(
            f"wanted a GPU for each process, found {devices} for at least {local + 1} here",
            where=where,
            cure="Lower loop.processes, or make more visible by CUDA_VISIBLE_DEVICES.",
        )


_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def is_of_another(error: BaseException) -> bool:
    """Whether an error only says that another rank has ended, whose own error is the one to show.

    gloo and NCCL have no type of their own for it, and `boundary` puts its own error before theirs.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error)
    return isinstance(error, RuntimeError) and any(word in words for word in _LOST)


_LOST = ("gloo/", "Connection closed by peer", "Connection reset by peer", "NCCL", "Socket Timeout")
