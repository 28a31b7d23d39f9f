"""`--json`: what a command answers as one list on stdout, also where it ends with an error."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_ftloop.cli.command import ERROR
from pytest_ftloop.core.errors import FtloopError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from pytest_ftloop.report.as_json.shapes import CommandName


def json_argument(to: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    to.add_argument("--json", action="store_true", help="print a JSON list, one item per loop")


class Items:
    """The items of one command, in the order of its loops; none are made unless `wanted`."""

    def __init__(self, command: CommandName, *, wanted: bool) -> None:
        self.command, self.wanted = command, wanted
        self.made: list[Any] = []

    def add(self, make: Callable[[], Any]) -> None:
        """Add a loop's item, which `make` makes."""
        if self.wanted:
            self.made.append(make())

    def failed(self, source: str, error: FtloopError, exit_code: int = ERROR) -> None:
        """Add a loop that the command can't answer for."""
        from pytest_ftloop.report.as_json.items import failure

        self.made.append(failure(self.command, source, error, exit_code))


@contextmanager
def items_of(command: CommandName, *, wanted: bool) -> Iterator[Items]:
    """Collect a command's items, and print them at its end if they are `wanted`.

    An error that ends the command is an item too; after Ctrl-C those that were made are printed.
    """
    items = Items(command, wanted=wanted)
    try:
        yield items
    except FtloopError as error:
        items.failed("", error)
        raise
    finally:
        if wanted:
            from pytest_ftloop.report.diff import to_json

            print(to_json(items.made))
