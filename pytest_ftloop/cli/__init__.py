"""The command `ftloop`, one module per subcommand. `cli.main` is the function, not the module."""

from pytest_ftloop.core.collector import importing

with importing():
    from pytest_ftloop.cli.main import main

__all__ = ["main"]
