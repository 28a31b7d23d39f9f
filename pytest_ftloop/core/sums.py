"""The hashes of a folder's files, kept in it: they show whether it holds what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pytest_ftloop.core.bounds import read_bytes, read_json

SUMS = "sha256.json"
"""The file in the folder that has them, by path."""


def write_sums(folder: Path) -> None:
    """Write the hashes of a folder's files into it, as its last file. Raises `OSError`."""
    sums = {name: _sha256(folder / name) for name in _names(folder)}
    (folder / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")


def damaged_file(folder: Path) -> str:
    """The first file that is not what was written, by its path; empty if there is none.

    A folder without hashes is of an older version, and counts as whole.
    """
    if not (folder / SUMS).is_file():
        return ""
    try:
        sums = read_json(read_bytes(folder / SUMS))
    except (OSError, ValueError):
        return SUMS
    if not isinstance(sums, dict):
        return SUMS
    found = set(_names(folder))
    for name, said in sorted(sums.items()):
        if name not in found:
            return str(name)
        with suppress(OSError):
            if _sha256(folder / name) == said:
                continue
        return str(name)
    return min(found - sums.keys(), default="")


def _names(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SUMS:
            yield path.relative_to(folder).as_posix()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
