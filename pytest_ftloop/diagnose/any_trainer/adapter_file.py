"""Read an adapter that peft saved, without torch: its number of parameters, and whether they moved.

A safetensors file begins with the length of its header (8 bytes, little endian). Then comes the
header (JSON: per tensor the dtype, the shape and the place of its bytes), then the tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard

from pytest_ftloop.core.bounds import check_file, read_bytes, read_json
from pytest_ftloop.core.errors import DataError, Location, shown_path
from pytest_ftloop.log.files import POINTER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FIRST_ZERO = ("lora_B", "lora_embedding_B")
"""Parts of the names of the tensors that LoRA initialises with zeros. As long as they are zero, the
adapter changes nothing."""

LONGEST_HEADER = 100_000_000
"""Maximum length of a header, in bytes: the limit of the safetensors format."""

_MOST_BYTES = 1 << 50
"""Weights have whatever size they have; but they are a file."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Adapter:
    """A saved adapter.

    `parameters` counts all that was saved, as peft saves what it trains. If it is 0, the tensors in
    the file are empty and show nothing of the training. `moved` is None if there is no LoRA-B,
    `rank` is None unless the configuration states a single one.
    """

    parameters: int
    moved: bool | None
    rank: int | None = None


def read_adapter(folder: Path) -> Adapter | None:
    """Read the adapter in a checkpoint's folder; None if there is none. DataError if damaged."""
    path = folder / WEIGHTS
    try:
        check_file(path, _MOST_BYTES)
        with path.open("rb") as file:
            size = path.stat().st_size
            start, tensors = _header(file, size)
            parameters = sum(math.prod(shape) for shape, _ in tensors.values())
            first_zero = [
                span
                for name, (_, span) in sorted(tensors.items())
                if any(part in name for part in FIRST_ZERO)
            ]
            # Empty tensors (DeepSpeed ZeRO-3 saves such) don't show whether the adapter moved.
            first_zero = [(a, b) for a, b in first_zero if b > a]
            moved = any(_is_nonzero(file, start + a, b - a) for a, b in first_zero)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(
            f"the adapter can't be read: {why}", where=Location(shown_path(path))
        ) from None
    return Adapter(parameters, moved if first_zero else None, _rank(folder / CONFIG))


Tensor = tuple[list[int], tuple[int, int]]
"""The shape of a tensor, and the span of its bytes after the header."""


def check_weights(path: Path) -> None:
    """Raise `OSError` or `ValueError` for a file whose header is not that of whole weights."""
    check_file(path, _MOST_BYTES)
    with path.open("rb") as file:
        _header(file, path.stat().st_size)


def _header(file: BinaryIO, size: int) -> tuple[int, dict[str, Tensor]]:
    """The place where the bytes of the tensors start, and the tensors by name."""
    start_of_file = file.read(len(POINTER))
    if start_of_file == POINTER:
        raise ValueError("it is a Git LFS pointer, not the file itself (git lfs pull fetches it)")
    file.seek(8)
    length = int.from_bytes(start_of_file[:8], "little")
    if not 2 <= length <= min(size - 8, LONGEST_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {size}: truncated?")
    header = read_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    start = 8 + length
    return start, dict(_tensors(header, size - start))


def _tensors(header: Mapping[str, Any], size: int) -> Iterator[tuple[str, Tensor]]:
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        of = facts if isinstance(facts, dict) else {}
        shape, span = of.get("shape"), of.get("data_offsets")
        if not _are_counts(shape) or not _are_counts(span) or len(span) != 2:
            raise ValueError(f"its header has no valid shape and place for {name[:80]!r}")
        if not span[0] <= span[1] <= size:
            raise ValueError(f"{name[:80]!r} extends beyond the end of the file: truncated?")
        yield name, (shape, (span[0], span[1]))


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _is_nonzero(file: BinaryIO, start: int, size: int) -> bool:
    """Whether any byte is not 0. Reads in pieces, up to the first such byte."""
    file.seek(start)
    while size > 0:
        piece = file.read(min(size, _CHUNK))
        if not piece or piece.strip(b"\0"):
            return bool(piece)
        size -= len(piece)
    return False


def _rank(path: Path) -> int | None:
    """The rank that the adapter's configuration states; None if it can't be read."""
    try:
        config = read_json(read_bytes(path))
    except (OSError, ValueError):
        return None
    rank = config.get("r") if isinstance(config, dict) else None
    return rank if type(rank) is int else None
