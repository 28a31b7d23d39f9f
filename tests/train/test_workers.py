"""Workers that train the embedded base: the log is that of a run in turn, to the last digit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.loop.loop import Loop
from pytest_ftloop.loop.options import Options
from tests.small_base import LORA, rows

if TYPE_CHECKING:
    from collections.abc import Callable

UNLIKE = re.compile(
    r"^(cost:|environment:) *(\{.*\})?\n(  .*\n)*|^(tag|hash|sha256): .*\n", re.MULTILINE
)
"""The parts of a record that may differ: what it took, and where."""


@pytest.mark.slow
@pytest.mark.usefixtures("tiny", "no_ci")
def test_log_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[str, str], Path]
) -> None:
    """Records and tables of seeds and of a list are those of a run in turn, but for the cost."""
    for role, count, seed in (("train", 32, 1), ("eval", 12, 2)):
        write(f"{role}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows(count, seed)))
    stated = {
        "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
        "lora": LORA,
        "training": {"learning_rate": 5e-3, "num_train_epochs": 1},
        "scoring": {"scorer": "exact"},
        "loop": {"policy": [{"training.learning_rate": rate} for rate in (2e-3, 1e-3)], "seeds": 3},
    }
    file = write("x.ftloop.yaml", json.dumps(stated))
    monkeypatch.chdir(tmp_path)
    logs = {}
    for parallel in (1, 2):
        folder = tmp_path / f"log{parallel}"
        Loop(read_loop_file(file), Options(parallel=parallel, log_folder=folder)).run()
        logs[parallel] = comparable(folder)
    assert 5 == sum(name.endswith(".yaml") for name in logs[1] if "base" not in name)
    assert logs[1] == logs[2]


def comparable(folder: Path) -> dict[str, str]:
    """The log's files without what may differ, by their names without the tag, which is a hash."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        re.sub(r"-[0-9a-f]{4}(?=\.)", "", path.relative_to(folder).as_posix()): UNLIKE.sub(
            "", path.read_text(encoding="utf-8")
        )
        for path in files
    }
