"""The page of the improvement log lists what a record and its table hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_ftloop.core.neutral import NEUTRAL
from pytest_ftloop.core.records import SCHEMA_VERSION
from pytest_ftloop.log.table import COLUMNS
from pytest_ftloop.loop.loop import Loop
from tests.docs.pages import LOG, names, section, tables, ticked
from tests.fake_backend import FakeBackend
from tests.loop.loop_cases import config as fake_loop

OPEN = {"metrics", "final", "base", "facts", "environment"}
"""Keys of a record whose content other tables list, or the user names."""


def record_keys(value: Any, above: str) -> set[str]:
    """The dotted keys of a record, `[]` for a list's items."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key for item in value for key in record_keys(item, f"{above}[]")}
    closed = re.fullmatch(r"settings\.\w+|data\.\w+|findings\[\]\.evidence", above) or above in OPEN
    if not isinstance(value, dict) or closed:
        return {above}
    return {
        key
        for name, item in value.items()
        for key in record_keys(item, f"{above}.{name}".lstrip("."))
    }


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    """The records of a loop of three iterations, with findings and adjustments."""
    result = Loop(fake_loop(tmp_path), backend=FakeBackend()).run()
    own = [f for f in result.files if f.suffix == ".yaml" and f.parent.name != "base"]
    return [yaml.safe_load(f.read_text()) for f in own]


def test_keys_of_a_record(records: list[dict[str, Any]]) -> None:
    """The table has each key that a record holds, and no other."""
    held = {key for record in records for key in record_keys(record, "")}
    held -= {"adjustments", "findings", "decision.next"}  # empty in some: their items' keys count
    held.add("cost.resumed_at")  # of an interrupted training only
    assert held == set(names(tables(section(LOG, "The record"))[0]))


def test_keys_of_a_record_are_in_order(records: list[dict[str, Any]]) -> None:
    """The table's order is that of the file."""
    tops = [re.split(r"[.\[]", name)[0] for name in names(tables(section(LOG, "The record"))[0])]
    assert list(records[0]) == list(dict.fromkeys(tops))


def test_facts_and_environment(records: list[dict[str, Any]], tmp_path: Path) -> None:
    """The tables have each fact and each part of the environment, and no other."""
    from trl import SFTConfig

    from pytest_ftloop.train.environment import environment

    _, facts, parts = tables(section(LOG, "The record"))
    assert set(records[0]["facts"]) == set(names(facts))
    config = SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    assert set(environment(config)) == set(names(parts))


def test_columns_of_the_examples() -> None:
    """The table has each column of the examples' CSV, in order."""
    assert list(COLUMNS) == names(tables(section(LOG, "The examples"))[0])


def test_schema_version() -> None:
    """The schema version is the code's."""
    assert f"`schema` is {SCHEMA_VERSION}." in section(LOG, "Schema version")


def test_settings_outside_the_fingerprint() -> None:
    """The settings that can't move a figure are all listed, and no other."""
    line = next(x for x in section(LOG, "The fingerprint").split("\n") if "can't move" in x)
    assert set(NEUTRAL) == set(ticked(line)) - {"training"}
