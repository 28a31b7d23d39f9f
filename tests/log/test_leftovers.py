"""What a killed process leaves in a log is swept; what a user or git put there is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_ftloop.log.leftovers import has_leftovers, replaced, sweep_log

DEAD = 999_999_999

LEFT = [
    "001-0000000a-0001.examples.csv",
    "001-0000000a-0001.guard-general.examples.csv",
    "seeds/0000000a-43-0001.examples.csv",
    "holdout/0000000a-0001.examples.csv",
    "base/0000000a-0001.examples.csv",
    ".001-0000000a-0001.replaces",
    f".001-0000000a-0001.yaml.{DEAD}.1.tmp",
    f"verdicts/.0000000a-00000001.yaml.{DEAD}.1.tmp",
    f"judge/.0123456789abcdef.jsonl.{DEAD}.1.tmp",
]

STAYS = [
    "001-0000000b-0001.yaml",
    "001-0000000b-0001.examples.csv",
    "001-0000000b-0001.guard-general.examples.csv",
    "seeds/0000000b-43-0001.yaml",
    "seeds/0000000b-43-0001.examples.csv",
    "verdicts/0000000b-00000001.yaml",
    "judge/0123456789abcdef.jsonl",
    "notes.examples.csv",  # the user's
    "mine/001-0000000a-0001.examples.csv",
    ".gitkeep",
    "README.md",
]


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def there(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("left", LEFT)
def test_each_kind_is_swept(tmp_path: Path, left: str) -> None:
    """It is noticed, and the next that holds the lock removes it and nothing else."""
    put(tmp_path, left, *STAYS)
    assert has_leftovers(there(tmp_path))
    sweep_log(tmp_path)
    assert set(STAYS) == there(tmp_path)
    assert not has_leftovers(STAYS)


def test_a_finished_replacement(tmp_path: Path) -> None:
    """With the new record and its mark the old ones do not count; without it they do."""
    old, new = "001-0000000a-0001", "001-0000000a-0002"
    other = "002-0000000b-0003.yaml"
    names = [f"{old}.yaml", f"{old}.examples.csv", other, f".{new}.replaces"]
    assert frozenset() == replaced(names)
    names += [f"{new}.yaml", f"{new}.examples.csv"]
    assert {f"{old}.yaml"} == replaced(names)
    put(tmp_path, *names)
    sweep_log(tmp_path)
    assert {f"{new}.yaml", f"{new}.examples.csv", other} == there(tmp_path)


def test_two_that_branches_trained_both_stay(tmp_path: Path) -> None:
    """Without a mark two records of an iteration were merged: both are kept."""
    names = ["001-0000000a-0001.yaml", "001-0000000a-0002.yaml"]
    put(tmp_path, *names)
    assert frozenset() == replaced(names)
    sweep_log(tmp_path)
    assert set(names) == there(tmp_path)


def test_a_link_is_not_entered(tmp_path: Path) -> None:
    """A folder of the log that leads elsewhere is not swept."""
    put(tmp_path / "elsewhere", "0000000a-43-0001.examples.csv")
    (tmp_path / "log").mkdir()
    (tmp_path / "log/seeds").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    sweep_log(tmp_path / "log")
    assert {"0000000a-43-0001.examples.csv"} == there(tmp_path / "elsewhere")
