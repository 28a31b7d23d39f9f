"""Missing data files: all of them are told at once, before any is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import DataError
from pytest_ftloop.data.files import check_files_exist, check_holdout_exists

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def told(path: Path, check: Callable[..., None] = check_files_exist) -> list[str]:
    """The lines of the error without the lines of its cures."""
    with pytest.raises(DataError) as error:
        check(read_loop_file(path))
    lines = str(error.value).splitlines()
    return [line.split("/")[-1] for line in lines if not line.startswith("  ")]


def test_all_missing_files_are_told_at_once(write: Callable[[str, str], Path]) -> None:
    """Parts of a mixture, guards and the holdout too, each at its own line and once."""
    write("train.jsonl", "{}\n")
    path = write(
        "x.ftloop.yaml",
        "data:\n"
        "  train:\n"
        "  - {source: trian.jsonl}\n"
        "  - {source: train.jsonl}\n"
        "  eval: evil.csv\n"
        "  holdout: nope.parquet\n"
        "  guards: {g: gard.jsonl}\n",
    )
    assert 4 == len(told(path))
    with pytest.raises(DataError) as error:
        check_files_exist(read_loop_file(path))
    text = str(error.value)
    for name in ("trian.jsonl", "evil.csv", "nope.parquet", "gard.jsonl"):
        assert 1 == text.count(name)
    lines = [line.split(":")[1] for line in text.splitlines() if not line.startswith("  ")]
    assert ["2", "5", "6", "7"] == lines
    assert "Did you mean 'train.jsonl'?" in text
    assert "Data files there: train.jsonl." in text  # not the loop file beside it


def test_a_holdout_is_not_needed_where_all_else_is_there(
    write: Callable[[str, str], Path],
) -> None:
    """Who judges a log need not have it; who trains must."""
    write("train.jsonl", "{}\n")
    path = write(
        "x.ftloop.yaml", "data: {train: train.jsonl, eval: train.jsonl, holdout: no.jsonl}\n"
    )
    check_files_exist(read_loop_file(path))
    assert 1 == len(told(path, check_holdout_exists))


@pytest.mark.parametrize(
    "source", ["module:rows", "owner/name", "{hub: owner/name}"], ids=["function", "hub", "mapping"]
)
def test_only_files_are_looked_for(write: Callable[[str, str], Path], source: str) -> None:
    path = write("x.ftloop.yaml", f"data: {{train: {source!s}, eval: {source!s}}}\n")
    check_files_exist(read_loop_file(path))
