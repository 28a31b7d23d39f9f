"""A record of any kind that holds a credential is named, with its keys and never the value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_ftloop.core.records import Untrained
from pytest_ftloop.log import ImprovementLog
from tests.fakes import (
    fake_example,
    fake_holdout_use,
    fake_iteration,
    fake_judgement,
    fake_seed_run,
)
from tests.torture.mutate import sealed

SECRET = "hf_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7"
ROWS = [fake_example("e1")]
ITERATION = fake_iteration(1, examples=ROWS)
BASE = Untrained(
    loop="sentiment",
    fingerprint="b" * 64,
    model="tiny",
    scoring={"scorer": "exact"},
    data={"eval": {"rows": 1}},
    metrics={"eval_loss": 6.0},
    facts={},
    environment={"device": "cpu"},
    examples=ROWS,
)

KINDS: dict[str, tuple[Callable[[ImprovementLog], object], str, str]] = {
    "an iteration": (lambda log: log.append(ITERATION), "device: cpu", "environment.device"),
    "a seed run": (
        lambda log: log.append_seed_run(fake_seed_run(ITERATION, 43)),
        "device: cpu",
        "environment.device",
    ),
    "a holdout use": (
        lambda log: log.append_holdout_use(fake_holdout_use(ITERATION, ROWS)),
        "source: holdout.jsonl",
        "data.source",
    ),
    "the base": (lambda log: log.append_base(BASE), "device: cpu", "environment.device"),
    "a verdict": (
        lambda log: log.append_judgement(fake_judgement(ITERATION, because="a reason")),
        "because: a reason",
        "because",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_each_kind_is_named(tmp_path: Path, kind: str) -> None:
    """With its file and its key; what replaces it is said."""
    append, line, key = KINDS[kind]
    log = ImprovementLog(tmp_path / "improvement_log" / "sentiment")
    append(log)
    assert () == log.exposed()
    (record,) = log.folder.rglob("*.yaml")
    text = record.read_text()
    assert line in text
    record.write_text(text.replace(line, f"{line.partition(':')[0]}: {SECRET}"))
    sealed(log.folder)
    (record,) = log.folder.rglob("*.yaml")
    (note,) = ImprovementLog(log.folder).exposed()
    assert f"{record.name} holds a credential ({key}): renew it" in note
    assert SECRET not in note
    assert ("train again" in note) is (kind in ("an iteration", "a seed run"))


def test_both_trainings_of_two_branches_are_named(tmp_path: Path) -> None:
    """Though one of them counts: each file is in version control."""
    log = ImprovementLog(tmp_path / "improvement_log" / "sentiment")
    for losses in (ROWS, [fake_example("e1", loss=1.0)]):
        log.append(fake_iteration(1, examples=losses))
    for record in log.folder.glob("*.yaml"):
        text = record.read_text()
        record.write_text(text.replace("device: cpu", f"device: {SECRET}"))
    sealed(log.folder)
    assert 1 == len(ImprovementLog(log.folder).read())
    assert 2 == len(ImprovementLog(log.folder).exposed())
