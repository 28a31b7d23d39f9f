"""What is committed: files of known kinds only, and nothing large that can't be reviewed.

`make lint` runs it from the repository's root, over `git ls-files`. Exit code: 0 all is well, 1 a
file does not belong, 2 git can't list the files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGEST_BINARY = 100_000
"""Bytes. Every clone downloads a binary for ever; the largest of ours is a screenshot of 87 kB."""

SUFFIXES = frozenset(
    {".css", ".csv", ".in", ".j2", ".jinja", ".js", ".json", ".jsonl", ".md", ".png", ".py"}
    | {".toml", ".txt", ".typed", ".yaml", ".yml"}
)
NAMES = frozenset({".gitignore", "LICENSE", "Makefile"})
PATHS = frozenset({".ci/light", ".ci/run", ".ci/wheel"})
"""Scripts without a suffix."""

_LOOKED_AT = 8000
"""Bytes at a file's start: one with a NUL among them is binary, which is git's own rule."""


def faults(root: Path, paths: Iterable[str]) -> list[str]:
    """One line per committed file that does not belong; `paths` are relative to `root`."""
    return [
        f"{path}: {fault}" for path in sorted(paths) if (fault := _fault(root, PurePosixPath(path)))
    ]


def _fault(root: Path, path: PurePosixPath) -> str:
    file = root / path
    if not (path.suffix in SUFFIXES or path.name in NAMES or str(path) in PATHS):
        return (
            f"wanted a known kind of file, found {path.suffix or path.name!r}. Remove it with "
            "git rm --cached, or add its kind to .ci/committed_files.py"
        )
    if file.is_symlink():
        return "a symbolic link, which Windows checks out as text"
    if not file.exists():  # deleted, and that is not committed yet
        return ""
    size = file.stat().st_size
    if size > LARGEST_BINARY and _is_binary(file):
        return f"a binary file of {size:,} bytes; wanted {LARGEST_BINARY:,} at most"
    return ""


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        return b"\0" in opened.read(_LOOKED_AT)


def main(root: Path) -> int:
    """Check the repository at `root`; the exit code."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, check=False
    )
    if listed.returncode != 0:
        print(f"git ls-files in {root}: {os.fsdecode(listed.stderr).strip()}", file=sys.stderr)
        return 2
    found = faults(root, map(os.fsdecode, listed.stdout.split(b"\0")[:-1]))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parents[1]))
