"""Which files of a repository are the records of a loop's log."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from pytest_ftloop.log.files import folders_of_records
from pytest_ftloop.loop.workspace import log_folders

LOG = "improvement_log/x"

NAMES = {
    "001-4a541ab4.yaml": True,
    "001-4a541ab4-9c1e.yaml": True,
    "1234-37313707-0000.yaml": True,
    "verdicts/4a541ab4-f0429c4d.yaml": False,
    "verdicts/37313707-f0429c4d.yaml": False,
    "verdicts/37313707-12345678.yaml": False,
    "seeds/37313707-43-1c5f.yaml": False,
    "seeds/37313707-20261130-1c5f.yaml": False,
    "holdout/37313707-1c5f.yaml": False,
}
"""Files of a log, also of ids whose digits are all decimal, and whether each is an iteration's."""


@pytest.mark.parametrize(("name", "is_record"), NAMES.items(), ids=str)
def test_only_iterations_make_a_log(name: str, is_record: bool, tmp_path: Path) -> None:
    """Verdicts and seed runs are no log of their own, whatever digits their names begin with."""
    path = PurePosixPath(LOG) / name
    found = folders_of_records({path: "blob"})
    assert ({path.parent} if is_record else set()) == set(found)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("")
    assert ([tmp_path / LOG] if is_record else []) == log_folders([tmp_path], None)
