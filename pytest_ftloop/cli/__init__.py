"""The command `ftloop`, a file a subcommand. `main` is the function here, not its module."""

from pytest_ftloop.cli.command import BROKEN_PIPE, ERROR, FAILED, HOLDS, INTERRUPTED, STALE
from pytest_ftloop.cli.init import STARTER
from pytest_ftloop.cli.main import COMMANDS, main, parser

__all__ = [
    "BROKEN_PIPE",
    "COMMANDS",
    "ERROR",
    "FAILED",
    "HOLDS",
    "INTERRUPTED",
    "STALE",
    "STARTER",
    "main",
    "parser",
]
