"""A loop's error is told by the first of its gates that meets it; the others name that gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pytest_ftloop.core.errors import FtloopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ftloop.config.loop_config import LoopConfig

Result = TypeVar("Result")


class ToldError(FtloopError):
    """An error that another gate of the loop has told."""


class Told:
    """The errors that were told, each with the gate that did so."""

    def __init__(self) -> None:
        self._by: dict[tuple[int, str], str] = {}

    def once(self, loop: LoopConfig, gate: str, do: Callable[[], Result]) -> Result:
        """What `do` returns. An error of it is raised as it is for one gate, which may run again.

        For the loop's other gates a `ToldError` is raised.
        """
        try:
            return do()
        except FtloopError as error:
            first = self._by.setdefault((id(loop), str(error)), gate)
            if first == gate:
                raise
            raise ToldError(f"not judged: {loop.name} has an error, see {first}") from error
