"""Whoever holds a log's lock tidies up first, in the log and outside it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pytest_ftloop.core.temporary import MARK, PREFIX
from pytest_ftloop.log import ImprovementLog
from pytest_ftloop.log.aside import aside_of
from pytest_ftloop.loop.hold import held

DEAD = 999_999_999


def test_leftovers_of_each_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process's half files in log, cache and kept records, and its temporary folder."""
    for name in ("log", "cache/adapters", "cache/tiny", "kept/a-loop", "temporary"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("FTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FTLOOP_RECORDS", str(tmp_path / "kept"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    half = f".x.{DEAD}.1.tmp"
    places = ("log", "log/seeds", "cache/adapters", "cache/tiny", "kept", "kept/a-loop")
    left = [tmp_path / place / half for place in places]
    (tmp_path / "log/seeds").mkdir()
    for file in left:
        file.write_text("half")
    aside = aside_of(ImprovementLog(tmp_path / "log")).folder / "seeds"
    aside.mkdir(parents=True)
    left.append(aside / "7766a05d-43-0a1b.examples.csv")  # its record was to be written next
    left[-1].write_text("id\n")
    temporary = tmp_path / "temporary" / f"{PREFIX}abcdefgh"
    temporary.mkdir()
    (temporary / MARK).touch()
    with held(ImprovementLog(tmp_path / "log"), lambda: None):
        assert [] == [file for file in (*left, temporary) if file.exists()]
