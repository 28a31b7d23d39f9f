"""Errors about the holdout, without what its rows say: nobody is to learn or tune by them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_ftloop.core.errors import DataError, FtloopError, ScoringError
from pytest_ftloop.data.sources import functions_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ftloop.config.loop_config import LoopConfig


@contextmanager
def holdout_unquoted(config: LoopConfig) -> Iterator[None]:
    """Raise an error that may quote a row of the holdout as one that names its place alone."""
    try:
        yield
    except (DataError, ScoringError) as error:
        if not _may_quote(error, config):
            raise
        cause = f" ({type(error.__cause__).__name__})" if error.__cause__ is not None else ""
        raise type(error)(
            f"the holdout can't be measured{cause}: the message may quote a row, so it is not "
            "printed",
            where=error.where,
            cure="Name the file as data.eval in a copy of the loop file: there it is printed.",
        ) from None


def _may_quote(error: FtloopError, config: LoopConfig) -> bool:
    """Whether an error is about a row, or by a user's function that has read the rows."""
    if isinstance(error, ScoringError):
        return True
    is_by_function = error.__cause__ is not None and functions_in(config.holdout, config.folder)
    return bool(is_by_function) or error.where != config.locate("data.holdout")
