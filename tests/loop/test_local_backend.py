"""The backend that trains here reads an adapter's own files, and what no link leads to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_ftloop.core.errors import FtloopError
from pytest_ftloop.core.progress import Silent
from pytest_ftloop.loop.local_backend import LocalBackend
from tests.loop.loop_cases import config

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("place", ["", "adapter_model.safetensors", "checkpoint"])
@pytest.mark.parametrize(
    "measure",
    [
        lambda backend, adapter: backend.measure(None, adapter, None),
        lambda backend, adapter: backend.measure_missing(None, adapter, None),
    ],
    ids=["all", "missing"],
)
def test_no_link_in_an_adapter_is_followed(
    tmp_path: Path, place: str, measure: Callable[[Any, Path], object]
) -> None:
    """Neither its folder nor a file nor a folder in it; nothing is loaded for that."""
    adapter, elsewhere = tmp_path / "adapter", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if place:
        adapter.mkdir()
    (adapter / place).symlink_to(elsewhere)
    backend = LocalBackend(config(tmp_path), None, Silent())  # type: ignore[arg-type]
    with pytest.raises(FtloopError, match="wanted files only, found a link") as refused:
        measure(backend, adapter)
    assert str(adapter / place).rstrip("/").endswith(str(refused.value.where).rpartition("/")[2])
