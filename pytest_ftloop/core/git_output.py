"""What git prints, as values."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from pytest_ftloop.core.git_program import GitError


def listed_blobs(answer: bytes) -> Iterator[tuple[PurePosixPath, str]]:
    """Path and blob of each file in the output of `ls-tree -z`; no symlinks, no submodules."""
    for entry in answer.split(b"\0")[:-1]:
        about, _, name = entry.partition(b"\t")
        mode, _, blob = about.decode().split(" ")
        if mode.startswith("100"):
            yield PurePosixPath(os.fsdecode(name)), blob


def batch_contents(answer: bytes) -> Iterator[bytes]:
    """The contents in the output of `cat-file --batch`: header line, content, line break."""
    start = 0
    while start < len(answer):
        end = answer.index(b"\n", start)
        name, *about = answer[start:end].decode().split(" ")
        if about[0] != "blob":
            raise GitError(
                f"the git blob {name} is missing"
                if about[0] == "missing"
                else f"wanted a git blob, found the {about[0]} {name}",
                kind="failed",
                cure="Check the repository with git fsck.",
            )
        start = end + 1 + int(about[1])
        yield answer[end + 1 : start]
        start += 1


def entries(answer: bytes) -> list[str]:
    """The entries in an output of `-z`."""
    return [os.fsdecode(entry) for entry in answer.split(b"\0")[:-1]]


def lists_folder_above(answer: bytes, name: str) -> bool:
    """Whether `git status -z` has a folder as a single entry that this path is below.

    Asked about the path alone, git may list nothing: it does not look into another repository.
    """
    return any(entry.endswith("/") and name.startswith(entry[3:]) for entry in entries(answer))


def touches(differing: str, name: str) -> bool:
    """Whether an entry of `git status` is this path, is below it, or is a folder above it.

    An ignored folder or another repository is a single entry, which ends with a slash.
    """
    if name == "." or differing == name:
        return True
    return differing.startswith(f"{name}/") or (
        differing.endswith("/") and f"{name}/".startswith(differing)
    )
