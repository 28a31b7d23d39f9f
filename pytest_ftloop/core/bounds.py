"""Limits on what is read from files: their kind and size, and the depth and digits of the content.

Loop files, logs, data and trainers' states come by pull request and from other machines. Content
beyond these limits is refused with one line, before it takes time or memory. Every file or JSON
text of unknown origin is read by the functions of this module; the readers of YAML check the same
limits as they read.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

MIB = 1024**2

MOST_BYTES = 1024 * MIB
"""Maximum size of rows: a data file, a table, a trainer's state. 100,000 log lines of a state are
25 MB, 2,000 examples with eight long outputs each 130 MB."""

MOST_BYTES_OF_RECORD = 16 * MIB
"""Maximum size of every other text. A record with 100,000 failing examples has a million."""

MOST_BYTES_OF_LOOP_FILE = MIB // 2
"""Maximum size of a loop file, whose parser reads about a megabyte a second."""

MOST_LEVELS = 64
"""Maximum depth of lists and keys in each other. A record has 6, the JSON schema of a tool 15."""

MOST_VALUES = 200_000
"""Maximum number of values in a record."""

MOST_VALUES_OF_LOOP_FILE = 10_000
"""Maximum number of values in a loop file, what an alias repeats counted each time."""

MOST_DIGITS = 300
"""Maximum number of digits of a whole number: beyond that it has no float."""


class BoundError(ValueError):
    """A text is beyond a limit; its message says what was wanted and found."""


def read_bytes(path: Path, most: int = MOST_BYTES_OF_RECORD) -> bytes:
    """A file's content. Raises `OSError`, also where it is a device or pipe, or larger than `most`.

    Neither is opened: a pipe waits for a writer, and some devices have no end.
    """
    size = check_file(path, most)
    with path.open("rb") as file:
        content = file.read(size + 1)  # not `most`: as much memory is taken as is asked for
        if len(content) > size:  # a file of /proc, or one that grows
            content += file.read(most + 1 - len(content))
    if len(content) > most:
        raise _too_large(path, most)
    return content


def check_file(path: Path, most: int) -> int:
    """The size of a file that `read_bytes` reads. Raises `OSError` for any other."""
    about = path.stat()
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    if about.st_size > most:
        raise _too_large(path, most)
    return about.st_size


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it is larger than {size_text(most)}", str(path))


def size_text(size: int) -> str:
    """A limit in words."""
    return f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"


def read_json(text: str | bytes, constant: Callable[[str], Any] | None = None) -> Any:
    """The values of a JSON text. Raises `ValueError` if it is not JSON, or beyond a limit.

    `constant` makes the value of NaN and Infinity, which JSON itself does not have.
    """
    try:
        if isinstance(text, str) and not text.startswith("\ufeff"):
            found = _decoder(constant).decode(text)  # json.loads makes one for each row
        else:
            found = json.loads(text, parse_int=_whole, parse_constant=constant)
    except RecursionError:
        raise _too_deep() from None
    openings = text.count("[") + text.count("{") if isinstance(text, str) else MOST_LEVELS + 1
    if openings > MOST_LEVELS:
        check_depth(found)
    return found


@lru_cache(maxsize=16)
def _decoder(constant: Callable[[str], Any] | None) -> json.JSONDecoder:
    return json.JSONDecoder(parse_int=_whole, parse_constant=constant)


def check_depth(value: Any) -> None:
    """Raise `BoundError` for lists and dicts that are nested deeper than `MOST_LEVELS`."""
    level, depth = [value] if type(value) in (list, dict) else [], 0
    while level:
        if (depth := depth + 1) > MOST_LEVELS:
            raise _too_deep()
        level = [
            inner
            for holder in level
            for inner in (holder.values() if type(holder) is dict else holder)
            if type(inner) in (list, dict)
        ]


def check_digits(digits: str) -> None:
    """Raise `BoundError` for a whole number with more than `MOST_DIGITS`."""
    if len(digits) > MOST_DIGITS:
        raise BoundError(f"wanted a number of at most {MOST_DIGITS} digits, found {len(digits)}")


def check_float(number: float) -> None:
    """Raise `BoundError` for a whole number that no float holds: hexadecimal ones are shorter."""
    try:
        float(number)
    except OverflowError:
        raise BoundError(f"wanted a number of at most {MOST_DIGITS} digits, found more") from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        check_digits(digits)
    return int(digits)


def _too_deep() -> BoundError:
    return BoundError(f"wanted at most {MOST_LEVELS} levels of lists and keys, found more")
