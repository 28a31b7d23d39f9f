"""The reference lists the keys of `--json` as the schema has them."""

from __future__ import annotations

from pytest_ftloop.report.as_json.shapes import output_schema
from tests.docs.pages import REFERENCE, names, section, tables

COMMANDS = ("run", "gate", "diff", "show", "suggest")


def test_keys_by_command() -> None:
    """Each key of each command's item is in the table, with the command, and no other is."""
    (table,) = tables(section(REFERENCE, "JSON output"))
    listed = {command: set[str]() for command in COMMANDS}
    for row in table:
        for command in COMMANDS if row[1] == "all" else row[1].split(", "):
            listed[command] |= {*names([row[:1]])}
    shapes = output_schema()["$defs"]
    for command in COMMANDS:
        assert set(shapes[f"{command.title()}Item"]["properties"]) == listed[command], command
