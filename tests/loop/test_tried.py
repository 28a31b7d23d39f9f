"""Scorers that may fail are tried before anything is loaded; errors name the loop file's line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_ftloop.config.loop_config import read_loop_file
from pytest_ftloop.core.errors import ConfigError
from pytest_ftloop.loop.inputs import Inputs
from pytest_ftloop.loop.tried import try_scorers

if TYPE_CHECKING:
    from pathlib import Path

LOOP = """\
model: tiny
data:
  train: rows.jsonl
  eval: rows.jsonl
  guards:
    general: {guard}
scoring:
  scorer: {scorer}
gates: {{{gate}}}
"""


def tried(folder: Path, scorer: str, guard: str = "rows.jsonl", gate: str = "") -> None:
    rows = [{"id": f"r{n}", "prompt": f"p{n}", "completion": f"c{n}"} for n in range(4)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = folder / "s.ftloop.yaml"
    file.write_text(LOOP.format(guard=guard, scorer=scorer, gate=gate))
    config = read_loop_file(file)
    try_scorers(config, Inputs.of(config, None))


@pytest.mark.parametrize(
    ("scorer", "guard", "line"),
    [
        ("rouge", "rows.jsonl", 8),
        ("rouge", "{source: rows.jsonl, scoring: {scorer: exact}}", 8),
        ("exact", "{source: rows.jsonl, scoring: {scorer: rouge}}", 6),
    ],
    ids=["both", "eval set", "guard"],
)
def test_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scorer: str, guard: str, line: int
) -> None:
    """The package of `rouge` is asked for before a model is; a guard's scoring has its own line."""
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ConfigError, match="needs the package rouge-score") as told:
        tried(tmp_path, scorer, guard)
    assert f"s.ftloop.yaml:{line}" in str(told.value)
    assert 'pip install "pytest-ftloop[rouge]"' in told.value.cure


def test_what_is_not_tried(tmp_path: Path) -> None:
    """Built-in scorers can't fail for another reason, and a judge would cost something."""
    tried(tmp_path, "exact")
    tried(tmp_path, "f1", gate='score: ">= 50%"')
