"""`ftloop schema`: print the JSON schema of a loop file, or of what `--json` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command

if TYPE_CHECKING:
    import argparse


def _arguments(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--output", action="store_true", help="the schema of what --json prints, instead"
    )


def _run(arguments: argparse.Namespace) -> int:
    import json

    if arguments.output:
        from pytest_ftloop.report.as_json.shapes import output_schema as schema
    else:
        from pytest_ftloop.config.schema import loop_file_schema as schema
    print(json.dumps(schema(), indent=2, allow_nan=False))
    return HOLDS


COMMAND = Command(
    "schema",
    "print the JSON schema of a loop file",
    "Print the JSON schema (2020-12) of a loop file, for editors. If the train extra is\n"
    "installed, the schema has every argument of peft's LoraConfig and trl's SFTConfig.",
    ("ftloop schema > ftloop.schema.json", "ftloop schema --output > output.schema.json"),
    _arguments,
    _run,
)
