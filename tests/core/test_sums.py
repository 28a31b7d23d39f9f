"""What is in a cache is what was written, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_ftloop.core.sums import SUMS, damaged_file, write_sums
from tests.torture.kills import flipped, torn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "sub/config.json").write_text('{"r": 8}')
    write_sums(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["weights", "sub/config.json"])
def test_each_change_is_seen(folder: Path, name: str) -> None:
    """One bit, a missing end, a file of zeros: the file is named; restored it is whole."""
    whole = (folder / name).read_bytes()
    assert "" == damaged_file(folder)
    for changed in (*flipped(whole, 8), *torn(whole, 4)):
        (folder / name).write_bytes(changed)
        assert name == damaged_file(folder)
    (folder / name).unlink()
    assert name == damaged_file(folder)
    (folder / name).write_bytes(whole)
    assert "" == damaged_file(folder)


def test_another_file_is_seen(folder: Path) -> None:
    """A file that was not written counts: a library might load it."""
    (folder / "more.py").touch()
    assert "more.py" == damaged_file(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[1", '{"gone": ""}', "\x00" * 9])
def test_damaged_hashes(folder: Path, text: str) -> None:
    """Hashes that can't be read are damage, no error."""
    (folder / SUMS).write_text(text)
    assert damaged_file(folder) in (SUMS, "gone")


def test_older_folders_count_as_whole(folder: Path) -> None:
    """Without hashes there is nothing to compare with."""
    (folder / SUMS).unlink()
    assert "" == damaged_file(folder)
