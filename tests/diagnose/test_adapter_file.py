"""An adapter's file read without torch: its parameters, and whether it ever moved."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_ftloop.core.errors import DataError
from pytest_ftloop.diagnose.any_trainer.adapter_file import CONFIG, WEIGHTS, Adapter, read_adapter

A, B = "base_model.model.h.0.attn.lora_A.weight", "base_model.model.h.0.attn.lora_B.weight"


def packed(tensors: Mapping[str, tuple[list[int], bytes]]) -> bytes:
    """A safetensors file with these tensors: shape and bytes of each."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at, body = 0, b""
    for name, (shape, content) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(content)]}
        at, body = at + len(content), body + content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write an adapter's file; its folder."""

    def write(content: bytes) -> Path:
        (tmp_path / WEIGHTS).write_bytes(content)
        return tmp_path

    return write


def test_moved(put: Callable[[bytes], Path]) -> None:
    """All saved parameters count; one byte of LoRA-B that is not 0 shows that it moved."""
    zero, moved = bytes(64), bytes(63) + b"\1"
    folder = put(packed({A: ([8, 2], moved), B: ([2, 8], moved)}))
    assert Adapter(32, moved=True) == read_adapter(folder)
    assert Adapter(32, moved=False) == read_adapter(
        put(packed({A: ([8, 2], moved), B: ([2, 8], zero)}))
    )


def test_moved_late_in_a_large_file(put: Callable[[bytes], Path]) -> None:
    """It is looked at to its end, whatever its size."""
    content = bytes(3_000_000) + b"\1\0\0\0"
    assert Adapter(750_001, moved=True) == read_adapter(put(packed({B: ([750_001], content)})))


def test_saved_empty(put: Callable[[bytes], Path]) -> None:
    """Tensors without a value have no parameter, and don't say whether they moved."""
    assert Adapter(0, moved=None) == read_adapter(put(packed({A: ([0], b""), B: ([0], b"")})))


def test_another_kind_of_adapter(put: Callable[[bytes], Path]) -> None:
    """Without a LoRA-B it is not known whether it moved."""
    assert Adapter(2, moved=None) == read_adapter(put(packed({"ia3_l": ([2], bytes(8))})))


@pytest.mark.parametrize(
    ("config", "rank"),
    [('{"r": 16}', 16), ('{"r": "16"}', None), ("{", None), ("[]", None), (None, None)],
)
def test_rank(put: Callable[[bytes], Path], config: str | None, rank: int | None) -> None:
    """The rank is what the configuration states, and unknown without one that can be read."""
    folder = put(packed({B: ([1], b"\1\0\0\0")}))
    if config is not None:
        (folder / CONFIG).write_text(config)
    assert Adapter(1, moved=True, rank=rank) == read_adapter(folder)


def test_no_adapter(tmp_path: Path) -> None:
    """A folder without one has none."""
    assert None is read_adapter(tmp_path)


SOUND = packed({B: ([2, 8], bytes(64))})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\1\0\0",
        SOUND[:40],
        SOUND[:-1],
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{",
        struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe",
        packed({}).replace(b'{"format": "pt"}', b"{}").replace(b"__metadata__", b"a__________b"),
        struct.pack("<Q", 4000) + b'{"a":' * 800,
        struct.pack("<Q", 49) + b'{"a": {"shape": [-1], "data_offsets": [0, 0]}}   ',
        struct.pack("<Q", 49) + b'{"a": {"shape": [1.5], "data_offsets": [0, 0]}}  ',
        struct.pack("<Q", 49) + b'{"a": {"shape": [1], "data_offsets": [4, 0]}}    ',
    ],
)
def test_damaged(put: Callable[[bytes], Path], content: bytes) -> None:
    """A truncated or foreign file is a `DataError` that names it."""
    folder = put(content)
    with pytest.raises(DataError, match=WEIGHTS):
        read_adapter(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(cut=st.integers(0, len(SOUND)), put_in=st.binary(max_size=12), at=st.integers(0, 200))
def test_any_damage(put: Callable[[bytes], Path], cut: int, put_in: bytes, at: int) -> None:
    """Whatever the bytes are: an adapter, or a `DataError`."""
    content = SOUND[:cut]
    try:
        found = read_adapter(put(content[:at] + put_in + content[at + len(put_in) :]))
    except DataError:
        return
    assert found is None or found.parameters >= 0
