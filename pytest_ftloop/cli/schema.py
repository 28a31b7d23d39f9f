"""`ftloop schema`: print the JSON schema of a loop file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ftloop.cli.command import HOLDS, Command

if TYPE_CHECKING:
    import argparse


def _arguments(to: argparse.ArgumentParser) -> None:
    del to  # `Command` asks for this function; the schema takes no arguments


def _run(arguments: argparse.Namespace) -> int:
    del arguments
    import json

    from pytest_ftloop.config.schema import loop_file_schema

    print(json.dumps(loop_file_schema(), indent=2, allow_nan=False))
    return HOLDS


COMMAND = Command(
    "schema",
    "print the JSON schema of a loop file",
    "Print the JSON schema (2020-12) of a loop file, for editors. If the train extra is\n"
    "installed, the schema has every argument of peft's LoraConfig and trl's SFTConfig.",
    ("ftloop schema > ftloop.schema.json",),
    _arguments,
    _run,
)
